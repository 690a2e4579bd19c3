"""`Vfs` behaves like a local file system, whatever happens to chunks, store and daemon meanwhile.

FLISTFS_EXAMPLES sets how many random lists of operations are tried; with HYPOTHESIS_PROFILE=explore they are
others each time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flistfs.authoring.filesystem.vfs import RENAME_EXCHANGE, RENAME_NOREPLACE
from flistfs.tree.chunks import CHUNK_SIZE
from tests.authoring import model
from tests.authoring.model import Operation, Tuning, play

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_EXAMPLES = int(os.environ.get("FLISTFS_EXAMPLES", "50"))

_few = st.integers(0, 3)
_names = st.sampled_from([b"a", b"b", b"c", b"d", b"\xff\n", b"n" * 255, b"n" * 256])
_name = st.one_of(st.sampled_from([b"a", b"b"]), _names)
_near = st.sampled_from([0, 1, -1, 2, 511, -512, 4096, -4097, 100_000])
_offset = st.builds(lambda chunk, by: max(0, chunk * CHUNK_SIZE + by), st.integers(0, 3), _near)
_length = st.one_of(
    st.sampled_from([0, 1, 10, 5000]),
    st.sampled_from([CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE]),
)
_seed = st.integers(0, 5)
_mode = st.sampled_from([0o755, 0o600, 0o777, 0o2755, 0o1777])
_flags = st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE])
_time = st.sampled_from([0, -1, 1, 999_999_999, 10**17 + 7, -(10**18)])
_id = st.sampled_from([-1, 0, 1, 65534, 2**32 - 2])
_kind = st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG])
_target = st.sampled_from([b"a", b"../x", b"\xfe", b"t" * 4095])
_region = st.tuples(_few, st.integers(0, 5), st.sampled_from([0, 0, 5, CHUNK_SIZE // 2 - 3]))

_create = st.builds(model.Create, at=_few, name=_name, mode=st.sampled_from([0o644, 0o755, 0o600]))
_write = st.builds(model.Write, file=_few, offset=_offset, length=_length, seed=_seed)


def _mix(*weighted: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Draw from several, each as often as its weight says (`one_of` takes what it gets apart, once each)."""
    table = [strategy for weight, strategy in weighted for _ in range(weight)]
    return st.integers(0, len(table) - 1).flatmap(table.__getitem__)


_content: st.SearchStrategy[Operation] = _mix(
    (5, _write),
    (1, st.builds(model.Append, file=_few, length=_length, seed=_seed)),
    (2, st.builds(model.Read, file=_few, offset=_offset, length=_length)),
    (4, st.builds(model.Truncate, file=_few, size=_offset)),
    (1, st.builds(model.Burst, st.lists(_region, min_size=1, max_size=4).map(tuple))),
    (1, st.builds(model.Fsync, file=_few)),
)
_files: st.SearchStrategy[Operation] = _mix(
    (2, _create),
    (2, st.builds(model.Open, at=_few, name=_name, writable=st.booleans(), truncate=st.booleans())),
    (1, st.builds(model.Release, file=_few)),
    (1, st.builds(model.Unlink, at=_few, name=_name)),
)
_tree: st.SearchStrategy[Operation] = _mix(
    (2, _create),
    (3, st.builds(model.Mkdir, at=_few, name=_name, mode=st.sampled_from([0o755, 0o700, 0o1777]))),
    (5, st.builds(model.Rename, at=_few, name=_name, to=_few, new_name=_name, flags=_flags)),
    (1, st.builds(model.Rmdir, at=_few, name=_name)),
    (1, st.builds(model.Unlink, at=_few, name=_name)),
    (2, st.builds(model.Link, at=_few, name=_name, to=_few, new_name=_name)),
    (1, st.builds(model.LinkOpened, file=_few, to=_few, new_name=_name)),
    (1, st.builds(model.Symlink, at=_few, name=_name, target=_target)),
    (1, st.builds(model.Mknod, at=_few, name=_name, mode=_kind.map(lambda kind: kind | 0o640))),
    (1, st.builds(model.StartListing, at=_few)),
    (1, st.builds(model.GoOnListing, listing=_few, count=_few)),
)
_attributes: st.SearchStrategy[Operation] = _mix(
    (1, st.builds(model.Chmod, at=_few, name=_name, mode=_mode)),
    (1, st.builds(model.Chown, at=_few, name=_name, uid=_id, gid=_id)),
    (1, st.builds(model.Utimens, at=_few, name=_name, atime_ns=_time, mtime_ns=_time)),
    (1, st.builds(model.TruncateOther, at=_few, name=_name, size=_offset)),
)
_events: st.SearchStrategy[Operation] = _mix(
    (2, st.builds(model.Settle, idle=st.booleans())),
    (2, st.just(model.Breathe())),
    (4, st.builds(model.Drain, drop=st.booleans())),
    (2, st.just(model.DropCopies())),
    (2, st.just(model.Hold())),
    (1, st.just(model.Break())),
    (1, st.just(model.Repair())),
    (2, st.just(model.Look())),
    (2, st.builds(model.Forget, at=_few, name=_name)),
    (1, st.builds(model.Die, clean=st.booleans())),
)
_listings: st.SearchStrategy[Operation] = _mix(
    (3, st.builds(model.Create, at=st.just(0), name=_names)),
    (1, st.builds(model.Unlink, at=st.just(0), name=_names)),
    (3, st.builds(model.Rename, st.just(0), _names, st.just(0), _names, flags=_flags)),
    (1, st.builds(model.StartListing, at=st.just(0))),
    (3, st.builds(model.GoOnListing, listing=_few, count=_few)),
)


def _lists(*weighted: tuple[int, st.SearchStrategy[Operation]]) -> st.SearchStrategy[list[Operation]]:
    """Draw long lists. Hypothesis alone draws about six; these shrink by turning operations into nothing."""
    one: st.SearchStrategy[Operation | None] = _mix((1, st.none()), (9, _mix(*weighted)))
    return st.lists(one, min_size=30, max_size=60).map(lambda drawn: [one for one in drawn if one])


_tunings = st.builds(
    Tuning,
    cached=st.sampled_from([4096, 4]),
    warm=st.sampled_from([64, 0]),
    limit=st.sampled_from([1 << 40, CHUNK_SIZE]),
)

_random = settings(
    max_examples=_EXAMPLES,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@_random
@given(
    operations=_lists((6, _content), (2, _files), (3, _tree), (1, _attributes), (4, _events)), tuning=_tunings
)
def test_everything(base: Path, operations: list[Operation], tuning: Tuning) -> None:
    start: list[Operation] = [
        model.Create(0, b"a"),
        model.Mkdir(0, b"b"),
        model.Create(1, b"a"),
        model.Mkdir(1, b"b"),
    ]
    play(base, [*start, *operations], tuning)


@_random
@given(operations=_lists((2, _content), (1, _events)), tuning=_tunings)
def test_content_of_two_files(base: Path, operations: list[Operation], tuning: Tuning) -> None:
    start: list[Operation] = [model.Create(0, b"a"), model.Create(0, b"b")]
    reopen: list[Operation] = []
    for operation in operations:
        reopen.append(operation)
        if isinstance(operation, model.Die):
            reopen += [model.Open(0, b"a"), model.Open(0, b"b")]
    play(base, start + reopen, tuning)


@_random
@example(
    operations=[
        *(model.Mkdir(0, b"a"), model.Mkdir(0, b"b"), model.Mkdir(1, b"c"), model.Create(2, b"d")),
        *(model.Rename(1, b"c", 2, b"d", RENAME_EXCHANGE), model.Rename(2, b"d", 0, b"b", RENAME_EXCHANGE)),
        *(model.Rename(0, b"a", 2, b"a", RENAME_EXCHANGE), model.Rename(0, b"a", 2, b"d", RENAME_EXCHANGE)),
    ],
    tuning=Tuning(),
)
@given(operations=_lists((9, _tree), (2, _attributes), (2, _events)), tuning=_tunings)
def test_names(base: Path, operations: list[Operation], tuning: Tuning) -> None:
    play(base, operations, tuning)


@_random
@given(operations=_lists((1, _listings)))
def test_listings_while_names_come_and_go(base: Path, operations: list[Operation]) -> None:
    play(base, operations)
