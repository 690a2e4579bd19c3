"""A tar archive as a source of items: plain, or compressed with gzip, bzip2, xz or zstd.

An archive comes from strangers. Nothing of it is ever written to this machine's file system; what would lead
out of the tree, or makes no sense in it, is a problem that names its entry.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import IO, BinaryIO, Final, cast

from flistfs.authoring.encoder import BytesSource
from flistfs.authoring.excludes import Filter, nothing_excluded
from flistfs.authoring.source import Item, Piece, Problem
from flistfs.errors import FormatError, SourceError
from flistfs.format.records import CHUNK_SIZE
from flistfs.format.tarstream import Readable, TarStream
from flistfs.input_file import InputFile

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdFile
else:
    from backports.zstd import ZstdFile

__all__ = ["TarSource", "ZstdFile"]

_NANO = 1_000_000_000

# How a compressed file begins, by the tools' own file formats.
_FORMATS: Final[tuple[tuple[bytes, str, Callable[[BinaryIO], Readable]], ...]] = (
    (b"\x1f\x8b", "gzip file", lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    (b"BZh", "bzip2 file", bz2.BZ2File),
    (b"\xfd7zXZ\0", "xz file", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", "zstd file", ZstdFile),
)
_MAGIC_SIZE: Final = 6

# Bytes of an archive that are read at a time; a pipe gives up to 64 KiB.
_BUFFER_SIZE: Final = 64 << 10

# Types of members that hold content; tarfile takes the odd ones for plain files too.
_TYPES: Final[Mapping[bytes, int]] = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}

# What reading a damaged archive raises: tarfile lets ValueError out where a number or a text in an extended
# header is none.
_DAMAGE: Final = (FormatError, tarfile.TarError, ValueError, OverflowError, OSError)

# How GNU tar, bsdtar and Docker keep extended attributes in extended headers.
_XATTR_PREFIX: Final = "SCHILY.xattr."

# What a directory is made with that an archive has things in but does not name.
_IMPLIED_MODE: Final = stat.S_IFDIR | 0o755


class TarSource:
    """The members of an archive. Directories that it does not name are made on the way."""

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        excluded: Filter = nothing_excluded,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Read from `file`, which is called `name` in errors and is closed at the end; nothing is sought.

        `stop` ends a read that waits in another thread.
        """
        self._file = file
        self._stop = stop
        self._name = name
        self._excluded = excluded
        self._folders: set[bytes] = set()
        self._last: bytes | None = None

    @classmethod
    def open(cls, path: str, *, excluded: Filter = nothing_excluded) -> TarSource:
        """Open an archive; `-` is standard input.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            raw = InputFile(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from None
        name = "standard input" if path == "-" else path
        return cls(io.BufferedReader(raw, _BUFFER_SIZE), name, excluded=excluded, stop=raw.stop)

    def measure(self) -> None:
        """Do nothing: an archive's size is known, or it comes from a pipe."""

    def extent(self, size: int) -> tuple[int, int]:
        """Say how much of the archive was read."""
        try:
            status = os.fstat(self._file.fileno())
            return (self._file.tell(), status.st_size) if stat.S_ISREG(status.st_mode) else (size, 0)
        except (OSError, ValueError):
            return size, 0

    def named(self, path: bytes) -> str:
        """Return what a member is called, behind the name of the archive."""
        return f"{self._name}: {os.fsdecode(path) or '.'}"

    def items(self) -> Iterator[Item | Problem]:
        """Walk the members, in the archive's order."""
        try:
            stream = _decompressed(self._file)
            with stream.open() as archive:
                for member in stream.members(archive):
                    self._last = os.fsencode(member.name)
                    yield from self._converted(archive, member)
            stream.drain()
        except _DAMAGE as error:
            if self._last is None:
                raise SourceError(f"{self._name} cannot be read: {error}") from error
            yield Problem(self._last, f"{self._name} cannot be read beyond it: {error}")

    def close(self) -> None:
        """Close the file; a read that waits ends."""
        if self._stop is not None:
            self._stop()
        self._file.close()

    def _converted(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Item | Problem]:
        try:
            path = _checked_path(member.name)
            if self._leaves_out(path, is_folder=member.isdir()):
                return
            item = self._item(archive, member, path)
        except _HostileError as error:
            yield Problem(os.fsencode(member.name), str(error))
            return
        yield from self._implied(item)
        if stat.S_ISDIR(item.mode):
            self._folders.add(path)
        yield item

    def _leaves_out(self, path: bytes, *, is_folder: bool) -> bool:
        """Say whether an entry is left out, or anything that it lies in."""
        if not path:
            return False
        parts = path.split(b"/")
        above = (b"/".join(parts[:depth]) for depth in range(1, len(parts)))
        return any(self._excluded(folder, True) for folder in above) or self._excluded(path, is_folder)

    def _implied(self, item: Item) -> Iterator[Item]:
        """Make the directories that an entry lies in and that were not named before."""
        parts = item.path.split(b"/")
        for depth in range(1, len(parts)):
            path = b"/".join(parts[:depth])
            if path not in self._folders:
                self._folders.add(path)
                yield Item(path, _IMPLIED_MODE, 0, 0, item.mtime_ns, item.mtime_ns, is_implied=True)

    def _item(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: bytes) -> Item:
        kind = stat.S_IFREG if member.isreg() or member.islnk() else _TYPES.get(member.type)
        if kind is None:
            raise _HostileError(f"it is of a kind that is unknown ({member.type!r})")
        if not path and kind != stat.S_IFDIR:
            raise _HostileError("it has no name")
        size = member.size if kind == stat.S_IFREG and not member.islnk() else 0
        if size < 0:
            raise _HostileError("its size is less than nothing")
        mtime = _mtime_ns(member)
        return Item(
            path=path,
            mode=kind | (0o777 if kind == stat.S_IFLNK else stat.S_IMODE(member.mode)),
            uid=_id(member.uid),
            gid=_id(member.gid),
            mtime_ns=mtime,
            atime_ns=mtime,
            size=size,
            rdev=_device(member) if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
            target=_link_target(member) if kind == stat.S_IFLNK else b"",
            link=_checked_path(member.linkname) if member.islnk() else None,
            xattrs=_xattrs(member),
            pieces=_pieces(archive, member, size),
            count=-(-size // CHUNK_SIZE),
        )


class _HostileError(Exception):
    """An entry that is not taken, and why."""


def _decompressed(file: BinaryIO) -> TarStream:
    start = file.read(_MAGIC_SIZE)
    whole = cast(BinaryIO, io.BufferedReader(_Rejoined(start, file)))
    for magic, kind, opened in _FORMATS:
        if start.startswith(magic):
            return TarStream(opened(whole), kind)
    return TarStream(whole, "file")


class _Rejoined(io.RawIOBase):
    """A file of which the beginning was read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._start or self._rest.read(len(buffer))
        self._start = data[len(buffer) :]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        return len(data)


def _checked_path(name: str) -> bytes:
    """Return a path inside the tree.

    Raises:
        _HostileError: it leads out of it.
    """
    path = name.encode("utf-8", "surrogateescape")
    if path.startswith(b"/"):
        raise _HostileError("its name is absolute")
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise _HostileError("its name leads upwards")
    if b"\0" in path:
        raise _HostileError("its name has a NUL byte in it")
    return b"/".join(parts)


def _link_target(member: tarfile.TarInfo) -> bytes:
    target = member.linkname.encode("utf-8", "surrogateescape")
    if not target or b"\0" in target:
        raise _HostileError("it is a link to nothing")
    return target


def _device(member: tarfile.TarInfo) -> int:
    try:
        return os.makedev(member.devmajor, member.devminor)
    except (OverflowError, ValueError):
        raise _HostileError("its device numbers make no sense") from None


def _id(number: int) -> int:
    if not 0 <= number < 2**32 - 1:
        raise _HostileError(f"its owner {number} is no user or group")
    return number


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the time of an entry; tarfile makes a float of it, which rounds."""
    text = member.pax_headers.get("mtime", "")
    try:
        time = Decimal(text or member.mtime) * _NANO
        if abs(time) < 2**63:
            return int(time)
    except (ArithmeticError, ValueError):
        pass
    raise _HostileError("its time makes no sense")


def _xattrs(member: tarfile.TarInfo) -> Mapping[bytes, bytes]:
    return {
        name.removeprefix(_XATTR_PREFIX).encode("utf-8", "surrogateescape"): value.encode(
            "utf-8", "surrogateescape"
        )
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR_PREFIX)
    }


def _pieces(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> Iterator[Piece]:
    if not size:
        return
    content = cast(IO[bytes], archive.extractfile(member))
    for number in range(-(-size // CHUNK_SIZE)):
        length = min(CHUNK_SIZE, size - number * CHUNK_SIZE)
        try:
            data = content.read(length)
        except _DAMAGE as error:
            raise SourceError(str(error)) from error
        if len(data) != length:
            raise SourceError("the archive ends in the middle of it")
        yield Piece(number, BytesSource(data))
