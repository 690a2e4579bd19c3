"""What becomes of an archive is what GNU tar extracts: of all formats that it and Python's tarfile write.

FLISTFS_EXAMPLES sets how many random trees are tried; with HYPOTHESIS_PROFILE=explore they are others each
time.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.sources.archive import TarSource
from tests.authoring.packing import pack
from tests.independent_reader import CHUNK
from tests.snapshots import assert_flist_equals, snapshot

_EXAMPLES = int(os.environ.get("FLISTFS_EXAMPLES", "40"))

BLOCK = 4096  # of the file system: holes are whole ones


@dataclass(frozen=True)
class Way:
    """A way to write an archive: GNU tar's options, and whether it is a format without extensions."""

    options: tuple[str, ...]
    is_old: bool = False


POSIX = "--format=posix"
WAYS = {
    "v7": Way(("--format=v7",), is_old=True),
    "ustar": Way(("--format=ustar",), is_old=True),
    "oldgnu": Way(("--format=oldgnu", "-S")),
    "gnu": Way(("--format=gnu",)),
    "gnu sparse": Way(("--format=gnu", "-S")),
    "posix": Way((POSIX,)),
    "posix xattrs": Way((POSIX, "--xattrs", "--xattrs-include=*")),
    "sparse 0.0": Way((POSIX, "-S", "--sparse-version=0.0")),
    "sparse 0.1": Way((POSIX, "-S", "--sparse-version=0.1")),
    "sparse 1.0": Way((POSIX, "-S", "--sparse-version=1.0")),
    "label": Way(("-V", "weekly")),
    "posix label": Way((POSIX, "-V", "weekly")),
    "incremental": Way(("--listed-incremental=../dumped",)),
    "posix incremental": Way((POSIX, "--listed-incremental=../dumped", "-S")),
    "absolute": Way(("-P", "--transform=s,^\\.,/top,S")),
    "blocked": Way(("-b", "1")),
}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}

COMPRESSIONS: Sequence[Callable[[bytes], bytes]] = (
    lambda data: data,
    gzip.compress,
    bz2.compress,
    lambda data: lzma.compress(data, preset=0) + bytes(4),
)


# Trees


@dataclass(frozen=True)
class File:
    """A file: where its parts of data begin, and what they hold; its size is at least `size`."""

    parts: tuple[tuple[int, bytes], ...] = ()
    size: int = 0


@dataclass(frozen=True)
class Tree:
    """Entries by their names, some in a directory `d` or `d/d`; links by number of what they link to."""

    files: dict[bytes, File] = field(default_factory=dict)
    symlinks: dict[bytes, bytes] = field(default_factory=dict)
    hard_links: dict[bytes, int] = field(default_factory=dict)
    fifos: set[bytes] = field(default_factory=set)
    times: tuple[int, ...] = (0,)

    def make(self, directory: Path) -> None:
        (directory / "d/d").mkdir(parents=True)
        top = os.fsencode(directory) + b"/"
        for name, file in self.files.items():
            with Path(os.fsdecode(top + name)).open("wb") as out:
                for position, data in file.parts:
                    out.seek(position)
                    out.write(data)
                out.truncate(max(file.size, out.tell()))
        for name, target in self.symlinks.items():
            os.symlink(target, top + name)  # noqa: PTH211  bytes
        for name in self.fifos:
            os.mkfifo(top + name, 0o640)
        first = sorted(self.files)
        for name, number in self.hard_links.items():
            if first:
                os.link(top + first[number % len(first)], top + name)
        for number, name in enumerate(sorted({*self.files, *self.symlinks}, reverse=True)):
            time = self.times[number % len(self.times)]
            os.utime(top + name, ns=(time, time), follow_symlinks=False)


def trees(*, is_old: bool) -> st.SearchStrategy[Tree]:
    """Draw trees; old formats hold neither long names nor FIFOs (v7) nor times before 1970."""
    longest = 60 if is_old else 250
    name = st.binary(min_size=1, max_size=12).filter(is_name) | st.sampled_from(
        [b"plain", "d\xe9j\xe0".encode(), b"n" * longest, "\N{EM DASH}".encode() * (longest // 3), b"\\n \n"]
    )
    path = (
        st.tuples(st.sampled_from([b"", b"d/", b"d/d/"]), name)
        .map(b"".join)
        .filter(lambda each: each not in {b"d", b"d/d"})
    )
    data = st.binary(min_size=1, max_size=40) | st.sampled_from([b"x" * 511, b"y" * 513, b"z" * (BLOCK + 1)])
    # Parts that touch no others, so that there are holes; some lie on both sides of the end of a chunk.
    position = st.integers(0, 8).map(lambda number: number * 4 * BLOCK) | st.sampled_from(
        [CHUNK - BLOCK, CHUNK, 2 * CHUNK - 2, 3 * CHUNK]
    )
    parts = st.dictionaries(position, data, max_size=12).map(lambda found: tuple(sorted(found.items())))
    file = st.builds(File, parts, st.sampled_from([0, 0, 1, BLOCK, CHUNK, 4 * CHUNK + 5]))
    return st.builds(
        Tree,
        st.dictionaries(path, file, max_size=4),
        st.dictionaries(path.map(lambda each: each + b"-s"), name, max_size=2),
        st.dictionaries(path.map(lambda each: each + b"-h"), st.integers(0, 3), max_size=3),
        st.sets(path.map(lambda each: each + b"-p"), max_size=0 if is_old else 1),
        st.tuples(
            st.integers(0 if is_old else -(2**31), 2**33 - 1).map(
                lambda seconds: seconds * 10**9 + 999_999_999
            ),
            st.just(0),
        ),
    )


def is_name(name: bytes) -> bool:
    return name not in {b".", b".."} and not {0, 0x2F} & set(name)


# Both ways


def packed_like_extracted(archive: Path, work: Path) -> None:
    """Pack an archive, extract it with GNU tar, and compare."""
    extracted = work / "extracted"
    extracted.mkdir()
    subprocess.run(["tar", "-xpf", archive, "-C", extracted], check=True, capture_output=True)
    nodes, get, (added,) = pack(work, TarSource.open(str(archive)))
    assert not added.left_out
    # The top has a name in most archives only.
    assert_flist_equals(nodes, snapshot(extracted), get, fast=True, ignore={(b"", "mtime")})


@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=max(1, _EXAMPLES // len(WAYS)))
@given(data=st.data())
def test_archives_of_gnu_tar(name: str, data: st.DataObject) -> None:
    way = WAYS[name]
    tree = data.draw(trees(is_old=way.is_old))
    with tempfile.TemporaryDirectory() as work:
        source, archive = Path(work) / "source", Path(work) / "archive"
        tree.make(source)
        subprocess.run(["tar", *way.options, "-cf", archive, "."], cwd=source, check=True)
        archive.write_bytes(data.draw(st.sampled_from(COMPRESSIONS))(archive.read_bytes()))
        packed_like_extracted(archive, Path(work))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=max(1, _EXAMPLES // len(WAYS)))
@given(data=st.data())
def test_archives_of_python(name: str, data: st.DataObject) -> None:
    tree = data.draw(trees(is_old=name == "ustar"))
    with tempfile.TemporaryDirectory() as work:
        source, archive = Path(work) / "source", Path(work) / "archive"
        tree.make(source)
        with tarfile.open(archive, "w", format=FORMATS[name]) as out:
            out.add(source, ".")
        packed_like_extracted(archive, Path(work))
