from flistfs.stores.base import MAX_BLOCK_SIZE, Store
from flistfs.stores.url import default_store_url, open_store, without_password

__all__ = ["MAX_BLOCK_SIZE", "Store", "default_store_url", "open_store", "without_password"]
