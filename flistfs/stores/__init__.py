from flistfs.stores.base import MAX_BLOCK_SIZE, Store
from flistfs.stores.opening import open_flist_store, open_store
from flistfs.stores.url import default_store_url, without_password

__all__ = [
    "MAX_BLOCK_SIZE",
    "Store",
    "default_store_url",
    "open_flist_store",
    "open_store",
    "without_password",
]
