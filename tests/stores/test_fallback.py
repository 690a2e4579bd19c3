"""Reading from several stores: in their order, past those that are down, and what is said if none has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flistfs.errors import BlockMissingError, StoreRefusedError, StoreUnavailableError
from flistfs.stores.combined.fallback import FallbackStore
from tests.generation1 import open_store
from tests.redis_server import running_redis
from tests.stores.blocks import block, blocks, value_of

if TYPE_CHECKING:
    from pathlib import Path

DOWN = "redis://127.0.0.1:1"


def test_the_first_that_has_a_block_gives_it(tmp_path: Path) -> None:
    first, second, both = blocks(3)
    with running_redis() as server:
        one, other = open_store(server.url), open_store(f"dir://{tmp_path}/other")
        one.put([first, both])
        other.put([second, both])
        store = FallbackStore([one, other])
        store.check()
        assert [store.get(each.hash) for each in (first, second, both)] == list(
            map(value_of, (first, second, both))
        )
        absent = block(7)
        assert store.missing([first.hash, second.hash, absent.hash, absent.hash]) == {absent.hash}
        assert store.missing([]) == set()
        with pytest.raises(BlockMissingError, match=rf"{server.url} or dir://.* does not hold"):
            store.get(absent.hash)
        with pytest.raises(StoreRefusedError, match="opened for reading"):
            store.put([absent])
        assert other.missing([first.hash]) == {first.hash}
        store.close()


def test_one_that_is_down_is_passed_over_unless_it_may_have_the_block(tmp_path: Path) -> None:
    held, absent = blocks(2)
    other = open_store(f"dir://{tmp_path}/other")
    other.put([held])
    store = FallbackStore([open_store(DOWN), other])
    assert store.get(held.hash) == value_of(held)
    assert store.missing([held.hash]) == set()
    with pytest.raises(StoreUnavailableError):
        store.get(absent.hash)
    with pytest.raises(StoreUnavailableError):
        store.missing([held.hash, absent.hash])
    with pytest.raises(StoreUnavailableError):
        store.check()
    store.close()
