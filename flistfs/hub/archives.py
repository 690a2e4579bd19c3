"""Archives for hubs that want one: of a directory, of a sealed flist, or one that is there.

They are made while they are sent: nothing is written to the disk, and memory does not grow with them.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flistfs.errors import FormatError, OutputError, SourceError
from flistfs.reading.content import read
from flistfs.reading.flist import Flist
from flistfs.stores import Store
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node

_PART: Final = 1 << 18
_LEVEL: Final = 6  # as gzip has it
_TYPES: Final = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.LINK: tarfile.SYMTYPE,
    Kind.CHAR: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


@dataclass
class Tally:
    """How many files and links an archive has got so far; each name of a file counts."""

    files: int = 0
    links: int = 0

    def count(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """Count a member that goes into an archive."""
        self.files += member.isreg() or member.islnk()
        self.links += member.issym()
        return member


def of_directory(source: Path, tally: Tally) -> Iterator[bytes]:
    """Yield an archive of what is in a directory; `tally` counts.

    Raises:
        SourceError: something in it cannot be read.
    """

    def write(tar: tarfile.TarFile) -> None:
        try:
            tar.add(source, ".", filter=tally.count)
        except OSError as error:
            raise SourceError(f"{error.filename or source} cannot be read: {error.strerror}") from error

    return _streamed(write)


def of_flist(flist: Flist, store: Store, tally: Tally) -> Iterator[bytes]:
    """Yield an archive of the tree of an flist, whose blocks a store has; `tally` counts.

    Sockets are left out, as by tar.

    Raises:
        FormatError: the flist is damaged.
        StoreError: the store cannot be reached, or lacks a block.
    """

    def write(tar: tarfile.TarFile) -> None:
        root = flist.find(b"")
        tar.addfile(_member(root))
        for node in flist.walk(root):
            if node.kind is Kind.SOCKET:
                continue
            content = read(store, node) if node.kind is Kind.FILE and node.size else None
            tar.addfile(tally.count(_member(node)), None if content is None else _Joined(content))

    return _streamed(write)


def of_archive(source: Path) -> Iterator[bytes]:
    """Yield an archive that is there, as it is: hubs look at what it is.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with source.open("rb") as file:
            while part := file.read(_PART):
                yield part
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error


def _member(node: Node) -> tarfile.TarInfo:
    if node.kind not in _TYPES:
        raise FormatError(f"{printable(node.path)} is of an unknown kind")
    member = tarfile.TarInfo(os.fsdecode(b"./" + node.path if node.path else b"."))
    member.type = _TYPES[node.kind]
    member.mode = node.mode & 0o7777
    member.mtime = node.mtime
    member.linkname = os.fsdecode(node.target or b"")
    if node.kind is Kind.FILE:
        member.size = node.size
    if node.device is not None:
        member.devmajor, member.devminor = node.device
    access = node.access
    if access is not None:
        member.uname, member.gname = os.fsdecode(access.user), os.fsdecode(access.group)
        member.uid, member.gid = access.uid or 0, access.gid or 0
    return member


class _Joined(io.RawIOBase):
    """Chunks as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Return as many bytes as are asked for, if there are so many."""
        parts = [self._rest]
        length = len(self._rest)
        while length < size and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            length += len(chunk)
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]


def _streamed(write: Callable[[tarfile.TarFile], None]) -> Iterator[bytes]:
    """Yield the compressed archive that a function writes, which a thread calls."""
    read_end, write_end = os.pipe()
    failures: list[BaseException] = []

    def produce() -> None:
        try:
            with (
                os.fdopen(write_end, "wb", _PART) as pipe,
                gzip.GzipFile("", "wb", _LEVEL, pipe, mtime=0) as packed,
                tarfile.open(None, "w|", packed, format=tarfile.PAX_FORMAT) as tar,
            ):
                write(tar)
        except BrokenPipeError:
            pass  # nobody wants the rest
        except BaseException as error:  # noqa: BLE001  raised where it is read
            failures.append(error)

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    try:
        with os.fdopen(read_end, "rb", 0) as pipe:
            while part := pipe.read(_PART):
                yield part
    except OSError as error:
        raise OutputError(f"the archive cannot be made: {error.strerror}") from error
    finally:
        producer.join()
    if failures:
        raise failures[0]
