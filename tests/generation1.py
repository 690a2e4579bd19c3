"""Generation 1, in short: what tests make by hand, and look up."""

from __future__ import annotations

from flistfs import stores
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.format.router import Router
from flistfs.format.zeroos.keys import GENERATION_1
from flistfs.stores import Store
from flistfs.stores.base import DEFAULT_TIMEOUT

CODEC = ROCKSDB.codec

chunk_key = CODEC.key
encode_block = CODEC.encode
decode_block = CODEC.decode
has_hash = CODEC.has_hash

directory_key = GENERATION_1.directory
aci_key = GENERATION_1.aci
aci_text = GENERATION_1.aci_text
distinct_aci_key = GENERATION_1.distinct_aci


def open_store(
    url: str, password: str | None = None, *, timeout: float = DEFAULT_TIMEOUT, reading: bool = False
) -> Store:
    """Open a store of such blocks."""
    return stores.open_store(url, CODEC, password, timeout=timeout, reading=reading)


def open_flist_store(router: Router | None, url: str | None = None, password: str | None = None) -> Store:
    """Open the store of an flist with such blocks."""
    return stores.open_flist_store(CODEC, router, url, password)
