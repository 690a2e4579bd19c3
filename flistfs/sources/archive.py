"""A tar archive as a source of items: plain, or compressed with gzip, bzip2, xz or zstd.

An archive comes from strangers. Nothing of it is ever written to this machine's file system; what would lead
out of the tree, or is invalid in it, is a problem that names its entry.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from flistfs.errors import FormatError, SourceError
from flistfs.sources.data import BytesSource
from flistfs.sources.decompress import Decompressed, Raw
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.sources.item import Item, Note, Piece, Problem
from flistfs.sources.tar import DIRECTORY, FILE, HARD_LINK, BadMember, Member, TarReader
from flistfs.sources.tar_headers import BLOCK, MemberError, is_header
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.owners import MAX_ID
from flistfs.util.input_file import InputFile

_TYPES: Final[Mapping[bytes, int]] = {
    FILE: stat.S_IFREG,
    HARD_LINK: stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}

# The longest path of an entry, in bytes: four times what the kernel accepts in one call. And the greatest
# depth: deeper paths would take seconds.
_MAX_PATH: Final = 16 << 10
_MAX_DEPTH: Final = 2048

_READ_SIZE: Final = 1 << 20

# What reading raises from a damaged archive or disk.
_UNREADABLE: Final = (FormatError, OSError)


class ArchiveFile(Raw, Protocol):
    """A file that an archive is read from."""

    def fileno(self) -> int:
        """Return its descriptor, if it has one."""

    def tell(self) -> int:
        """Return how many bytes were read."""

    def close(self) -> None:
        """Close it."""


class TarSource:
    """The members of an archive. Missing parent directories are created."""

    def __init__(
        self,
        file: ArchiveFile,
        name: str,
        *,
        excluded: Filter = nothing_excluded,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Read from `file`, without seeking; it is called `name` in errors, and closed at the end.

        `stop` ends a read that waits in another thread.
        """
        self._file = file
        self._stop = stop
        self._name = name
        self._excluded = excluded
        self._last: bytes | None = None
        self._has_absolute = False

    @classmethod
    def open(cls, path: str, *, excluded: Filter = nothing_excluded, start: bytes = b"") -> TarSource:
        """Open an archive; `-` is standard input, of which `start` was read already.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            raw = InputFile(path, start)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from None
        name = "standard input" if path == "-" else path
        return cls(raw, name, excluded=excluded, stop=raw.stop)

    def measure(self) -> None:
        """Do nothing: an archive's size is known, or it is read from a pipe."""

    def extent(self, size: int) -> tuple[int, int]:
        """Return how much of the archive has been read."""
        try:
            status = os.fstat(self._file.fileno())
            return (self._file.tell(), status.st_size) if stat.S_ISREG(status.st_mode) else (size, 0)
        except (OSError, ValueError):
            return size, 0

    def named(self, path: bytes) -> str:
        """Return the name of a member, after the name of the archive."""
        return f"{self._name}: {os.fsdecode(path) or '.'}"

    def items(self) -> Iterator[Item | Problem | Note]:
        """Yield the members, in the archive's order."""
        try:
            stream = Decompressed(self._file)
            reader = TarReader(stream)
            for member in reader.members():
                yield from self._converted(reader, member)
            yield from self._checked_end(stream, reader)
        except _UNREADABLE as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            if self._last is None:
                raise SourceError(f"{self._name} cannot be read: {reason}") from error
            yield Problem(self._last, f"nothing after it can be read: {reason}")

    def close(self) -> None:
        """Close the file; a blocked read ends."""
        if self._stop is not None:
            self._stop()
        self._file.close()

    def _checked_end(self, stream: Decompressed, reader: TarReader) -> Iterator[Note]:
        """Read to the end: the checksum of it all is there, and a writer to a pipe expects it.

        Raises:
            FormatError: the archive is truncated, or its apparent end was not its end.
        """
        is_empty, is_archive = True, False
        while data := stream.read(_READ_SIZE):
            if is_empty and (start := len(data) - len(data.lstrip(b"\0"))) < len(data):
                is_empty = False
                start -= start % BLOCK
                is_archive = is_header(data[start : start + BLOCK])
        if not (reader.has_end or stream.is_complete):
            raise FormatError("it is truncated: there is no end-of-archive marker")
        if self._last is None and not is_empty:
            raise FormatError("it is not a tar archive, or is damaged")
        if is_archive:
            yield Note(f"{self._name} is followed by another archive, which was not read")

    def _converted(self, reader: TarReader, member: Member | BadMember) -> Iterator[Item | Problem | Note]:
        self._last = member.name
        if isinstance(member, BadMember):
            yield Problem(member.name, member.reason)
            return
        try:
            path = _checked_path(member.name)
            if self._is_excluded(path, is_directory=member.kind == DIRECTORY):
                return
            item = member_item(reader, member, path)
        except MemberError as error:
            yield Problem(member.name, str(error))
            return
        if member.name.startswith(b"/") and not self._has_absolute:
            self._has_absolute = True
            yield Note(f"{self._name} has absolute names; the leading slashes were removed")
        yield item

    def _is_excluded(self, path: bytes, *, is_directory: bool) -> bool:
        """Return whether an entry or one of its parents is left out."""
        if not path or self._excluded is nothing_excluded:
            return False
        parts = path.split(b"/")
        above = (b"/".join(parts[:depth]) for depth in range(1, len(parts)))
        return any(self._excluded(directory, True) for directory in above) or self._excluded(
            path, is_directory
        )


def member_item(reader: TarReader | None, member: Member, path: bytes) -> Item:
    """Return the item of a member at a path; without a reader it has no content.

    Raises:
        MemberError: it is invalid.
    """
    kind = _TYPES.get(member.kind)
    if kind is None:
        raise MemberError(f"it is of an unknown type ({member.kind!r})")
    if not path and kind != stat.S_IFDIR:
        raise MemberError("it has no name")
    has_content = member.kind == FILE
    mtime = member.mtime_ns
    return Item(
        path=path,
        mode=kind | (0o777 if kind == stat.S_IFLNK else stat.S_IMODE(member.mode)),
        uid=_id(member.uid),
        gid=_id(member.gid),
        mtime_ns=mtime,
        atime_ns=mtime,
        size=member.size if has_content else 0,
        rdev=_device(member) if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0,
        target=_link_target(member) if kind == stat.S_IFLNK else b"",
        link=_checked_path(member.link) if member.kind == HARD_LINK else None,
        xattrs=member.xattrs,
        pieces=_pieces(reader, member) if has_content and reader is not None else (),
        count=_count_chunks(member) if has_content else 0,
        makes_parents=True,
        replaces_link=True,
    )


def _checked_path(name: bytes) -> bytes:
    """Return a member's path in the tree.

    Raises:
        MemberError: it leads out of the tree, or is too deep or too long.
    """
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise MemberError("its name contains '..'")
    return joined(parts)


def joined(parts: Sequence[bytes]) -> bytes:
    """Return the path that the parts of a member's name make.

    Raises:
        MemberError: it is too deep or too long, or has a NUL byte.
    """
    if any(b"\0" in part for part in parts):
        raise MemberError("its name contains a NUL byte")
    if len(parts) > _MAX_DEPTH:
        raise MemberError(f"it is nested more than {_MAX_DEPTH:,} directories deep")
    path = b"/".join(parts)
    if len(path) > _MAX_PATH:
        raise MemberError(f"its path is longer than {_MAX_PATH:,} bytes")
    return path


def _link_target(member: Member) -> bytes:
    if not member.link or b"\0" in member.link:
        raise MemberError("it is a link without a target")
    return member.link


def _device(member: Member) -> int:
    try:
        return os.makedev(*member.device)
    except (OverflowError, ValueError):
        raise MemberError("its device numbers are invalid") from None


def _id(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise MemberError(f"its owner {number} is not a possible user or group")
    return number


# Content


def _extents(member: Member) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file that hold data: the offset and length of each in bytes."""
    if member.extents is None:
        yield 0, member.size
    else:
        yield from zip(*member.extents, strict=True)


def _count_chunks(member: Member) -> int:
    """Return the number of chunks of a file that hold data."""
    count = done = 0
    for offset, length in _extents(member):
        if length:
            end = (offset + length - 1) // CHUNK_SIZE + 1
            count += end - max(offset // CHUNK_SIZE, done)
            done = end
    return count


def _pieces(reader: TarReader, member: Member) -> Iterator[Piece]:
    """Yield the chunks of a file that hold data, one at a time."""
    number, chunk = 0, bytearray()
    for offset, length in _extents(member):
        position, end = offset, offset + length
        while position < end:
            index, start = divmod(position, CHUNK_SIZE)
            if chunk and index != number:
                yield Piece(number, BytesSource(bytes(chunk)))
                chunk = bytearray()
            size = min(CHUNK_SIZE, member.size - index * CHUNK_SIZE)
            data = _read(reader, min(end - position, CHUNK_SIZE - start))
            position += len(data)
            if len(data) == size:
                yield Piece(index, BytesSource(data))
                continue
            number, chunk = index, chunk or bytearray(size)
            chunk[start : start + len(data)] = data
    if chunk:
        yield Piece(number, BytesSource(bytes(chunk)))


def _read(reader: TarReader, size: int) -> bytes:
    try:
        return reader.read(size)
    except _UNREADABLE as error:
        raise SourceError(str(error)) from error
