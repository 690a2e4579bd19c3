"""The tar format, read as a stream: ustar, PAX, GNU and older ones, as GNU tar reads them.

Python's tarfile takes GNU headers' times for a part of the name, mixes up names and sizes of sparse files,
and needs 19 to 49 µs per header where this needs 7 to 9. libarchive reads all of it right, in 6 to 7 µs; but
its binding does not react to signals, and a crash in it would kill the program, so it would need a process of
its own: 40 ms to start, and 10 µs to transfer an entry.

Every size is checked against its limit before memory is allocated. Names are unconverted bytes.

Sources: POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar's manual,
"Basic Tar Format", "GNU Extensions to the Archive Format" and "Storing Sparse Files"; tar.h.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from flistfs.errors import FormatError
from flistfs.sources.tar_headers import (
    BLOCK,
    BSD_XATTR,
    GLOBAL_RECORDS,
    GNU_MAGIC,
    HEADER,
    MAX_EXTENTS,
    MAX_SIZE,
    SPARSE_RECORDS,
    XATTR,
    ZEROS,
    Extents,
    Header,
    MemberError,
    append_numbers,
    check_beginning,
    check_extents,
    extents_from,
    from_base64,
    is_header,
    parse_decimal,
    parse_map,
    parse_number,
    parse_time,
    read_records,
)

# Extended headers of one member, in bytes: xattrs and long names take kilobytes, sparse maps of PAX 0.x more.
_MAX_HEADERS: Final = 8 << 20


_SKIP_SIZE: Final = 1 << 20


# The fields of a GNU header for a sparse file: four extents, whether a block of 21 more follows, and the
# size; and the field of that block for whether another follows. An extent is an offset and a length.
_SPARSE_MAP: Final = slice(386, 482)
_SPARSE_MORE: Final = 482
_SPARSE_SIZE: Final = slice(483, 495)
_SPARSE_BLOCK: Final = slice(0, 504)
_SPARSE_BLOCK_MORE: Final = 504
_EXTENT: Final = struct.Struct("12s12s")

# Types of members.
FILE: Final = b"0"
HARD_LINK: Final = b"1"
DIRECTORY: Final = b"5"
_FILES: Final = frozenset({FILE, b"\0", b"7"})
_EMPTY: Final = frozenset({b"2", b"3", b"4", DIRECTORY, b"6"})  # whatever their size field says
_SPARSE: Final = b"S"
_DUMP_DIRECTORY: Final = b"D"
_CONTINUED: Final = b"M"
_IGNORED: Final = frozenset({b"V", b"A"})  # a label, and access control lists of Solaris

# Types of headers that extend the next member, or all.
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_EXTENDED: Final = frozenset({b"x", b"X"})  # X: Solaris, before the standard
_GLOBAL: Final = b"g"


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return that many bytes, or the rest if there are fewer."""


class Member(NamedTuple):
    """A member of an archive.

    `name` and `link` are as written in the archive. `kind` is its type, with equivalent types made one.
    `size` is the file's in bytes; if `extents` is None, that much content follows.
    Numbers are parsed on access, and raise MemberError then.
    """

    name: bytes
    kind: bytes
    link: bytes
    size: int
    extents: Extents | None
    fields: tuple[bytes, ...]
    records: Mapping[bytes, bytes]

    @property
    def mode(self) -> int:
        """Its permissions, and any other bits that were recorded."""
        return parse_number(self.fields[1], "mode")

    @property
    def uid(self) -> int:
        """Its owner's number."""
        return self._recorded_number(b"uid", self.fields[2])

    @property
    def gid(self) -> int:
        """Its group's number."""
        return self._recorded_number(b"gid", self.fields[3])

    @property
    def mtime_ns(self) -> int:
        """Its modification time in nanoseconds since 1970."""
        text = self.records.get(b"mtime")
        time = parse_time(text) if text else parse_number(self.fields[5], "time") * 10**9
        if abs(time) > MAX_SIZE:
            raise MemberError("its time is invalid")
        return time

    @property
    def device(self) -> tuple[int, int]:
        """The numbers of a device, major and minor."""
        major = self._recorded_number(b"SCHILY.devmajor", self.fields[12])
        return major, self._recorded_number(b"SCHILY.devminor", self.fields[13])

    @property
    def xattrs(self) -> dict[bytes, bytes]:
        """Its extended attributes."""
        found = {}
        for key, value in self.records.items():
            if key.startswith(XATTR):
                found[key.removeprefix(XATTR)] = value
            elif key.startswith(BSD_XATTR):
                name = unquote_to_bytes(key.removeprefix(BSD_XATTR))
                found.setdefault(name, from_base64(value))
        return found

    def _recorded_number(self, key: bytes, field: bytes) -> int:
        text = self.records.get(key)
        return parse_decimal(text, key.decode()) if text else parse_number(field, key.decode())


class BadMember(NamedTuple):
    """A member that is invalid or cannot be represented, and why; what follows it can be read."""

    name: bytes
    reason: str


class TarReader:
    """Walks the members of an archive."""

    def __init__(self, stream: Readable) -> None:
        """Read from `stream`."""
        self._stream = stream
        self._ahead: bytes | None = None  # a header that was already read
        self._left = 0  # of a member's content
        self._padding = 0  # after that
        self._headers_left = 0
        self._global: dict[bytes, bytes] = {}
        self._has_begun = False
        self.has_end = False
        """Whether the archive has an end-of-archive marker: known after its members were walked."""

    def members(self) -> Iterator[Member | BadMember]:
        """Yield the members.

        The content of each must be read before the next; unread content is skipped.

        Raises:
            FormatError: it is not an archive, or is truncated or damaged; nothing after that can be read.
        """
        while (header := self._header()) is not None:
            self._begin_content(header)
            if header.kind not in _IGNORED:
                yield self._good_or_bad(header)
            self._skip()

    def read(self, size: int) -> bytes:
        """Return that many bytes of a member's content.

        Raises:
            FormatError: the archive ends before them, or is damaged.
        """
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        if len(data) < size:
            raise FormatError("the archive ends in the middle of it")
        return data

    # Headers

    def _header(self) -> Header | None:
        """Read the header of the next member, with its extensions; None at the end of the archive."""
        self._headers_left = _MAX_HEADERS
        long_name = long_link = b""
        records: dict[bytes, bytes] = {}
        extents = array("q")
        is_extended = False
        while block := self._block():
            fields = HEADER.unpack(block)
            kind = fields[7]
            header = Header(block, fields, long_name, long_link, records, extents)
            if kind == _LONG_NAME:
                long_name = self._extension(header).partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = self._extension(header).partition(b"\0")[0]
            elif kind in _EXTENDED:
                read_records(self._extension(header), records, extents)
            elif kind == _GLOBAL:
                self._take_global(self._extension(header))
                continue
            else:
                return header._replace(records={**self._global, **records}) if self._global else header
            is_extended = True
        if is_extended:
            raise FormatError("it is truncated: nothing follows an extended header")
        return None

    def _block(self) -> bytes:
        """Return the next header block; empty at the end of the archive."""
        block, self._ahead = self._stream.read(BLOCK) if self._ahead is None else self._ahead, None
        if not self._has_begun:
            check_beginning(block)
            self._has_begun = True
        if block == ZEROS:
            self.has_end = True
            return b""
        if block and not is_header(block):
            raise FormatError(
                "it is truncated in the middle of a header"
                if len(block) < BLOCK
                else "it is damaged: the next header has a wrong checksum"
            )
        return block

    def _extension(self, header: Header) -> bytes:
        """Read the content of a header that extends the next one."""
        # Its size is in its own header, whatever earlier records say.
        size = header._replace(records={}).size
        self._headers_left -= BLOCK + size
        if self._headers_left < 0:
            raise FormatError("the headers of a member are too long")
        data = self._stream.read(size + -size % BLOCK)
        if len(data) < size:
            raise FormatError("it is truncated in the middle of an extended header")
        return data[:size]

    def _take_global(self, data: bytes) -> None:
        records: dict[bytes, bytes] = {}
        read_records(data, records, array("q"))
        # Others apply to a single member.
        self._global |= {key: value for key, value in records.items() if key in GLOBAL_RECORDS}
        if sum(map(len, self._global.values())) > _MAX_HEADERS:
            raise FormatError("the global headers are too long")

    # Members

    def _begin_content(self, header: Header) -> None:
        """Determine how much content follows a header."""
        size = 0 if header.kind in _EMPTY else header.size
        self._left, self._padding = size, -size % BLOCK
        if header.kind == HARD_LINK and size:
            # Only in PAX may its content follow, but other formats record a size all the same.
            block = self._stream.read(BLOCK)
            if block in {b"", ZEROS} or is_header(block):
                self._ahead, self._left, self._padding = block, 0, 0
            else:
                self._left = max(0, size - BLOCK)
                self._padding = -size % BLOCK if size > BLOCK else 0

    def _good_or_bad(self, header: Header) -> Member | BadMember:
        try:
            return self._member(header)
        except MemberError as error:
            return BadMember(header.name, str(error))

    def _member(self, header: Header) -> Member:
        kind, name, records, extents = header.kind, header.name, header.records, None
        size = self._left
        if kind == _CONTINUED or b"GNU.volume.filename" in records:
            self._global.pop(b"GNU.volume.filename", None)  # it applies to the first member only
            raise MemberError("it is the continuation of a file from another volume of the archive")
        if kind == _SPARSE:
            kind = FILE
            size, extents = self._gnu_sparse(header)
        elif kind in _FILES:
            kind = DIRECTORY if name.endswith(b"/") else FILE  # as in tar formats before the directory type
            if kind == DIRECTORY and size:
                raise MemberError("it is a directory by its name, but has content")
            if header.extents or not SPARSE_RECORDS.isdisjoint(records):
                size, extents = self._pax_sparse(header)
        elif kind == _DUMP_DIRECTORY:
            kind = DIRECTORY
        if extents is not None:
            check_extents(extents, size, self._left)
        return Member(name, kind, header.link, size, extents, header.fields, records)

    def _skip(self) -> None:
        """Skip to the end of a member."""
        while self._left:
            data = self._stream.read(min(self._left, _SKIP_SIZE))
            if not data:
                raise FormatError("the archive ends in the middle of it")
            self._left -= len(data)
        if self._padding:
            self._stream.read(self._padding)  # some writers omit it at the end of the archive
            self._padding = 0

    # Sparse files

    def _gnu_sparse(self, header: Header) -> tuple[int, Extents]:
        """Read the map of a sparse file from its header and the blocks after it."""
        if header.fields[9] != GNU_MAGIC:
            raise MemberError("it is a sparse file in star's format, which is not supported")
        block = header.block
        parts, more = [block[_SPARSE_MAP]], block[_SPARSE_MORE]
        while more:
            block = self._stream.read(BLOCK)
            if len(block) < BLOCK:
                raise FormatError("the archive ends in the middle of it")
            parts.append(block[_SPARSE_BLOCK])
            more = block[_SPARSE_BLOCK_MORE]
            if len(parts) * len(parts[-1]) > MAX_EXTENTS * _EXTENT.size:
                raise FormatError(f"it has more than {MAX_EXTENTS} holes")
        numbers = array("q")
        for offset, length in _EXTENT.iter_unpack(b"".join(parts)):
            if not length[0]:
                break
            append_numbers(
                numbers, parse_number(offset, "map of holes"), parse_number(length, "map of holes")
            )
        return parse_number(header.block[_SPARSE_SIZE], "size"), extents_from(numbers)

    def _pax_sparse(self, header: Header) -> tuple[int, Extents]:
        """Read the map of a sparse file: its records (0.0, 0.1), or the start of its content (1.0)."""
        records = header.records
        if b"SUN.holesdata" in records:
            raise MemberError("it is a sparse file in Solaris' format, which is not supported")
        version = records.get(b"GNU.sparse.major") or b"0", records.get(b"GNU.sparse.minor") or b"0"
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if size is None:
            raise MemberError("its size is missing")
        if version == (b"1", b"0"):
            numbers = self._map_in_content()
        elif version[0] == b"0":
            text = records.get(b"GNU.sparse.map")
            numbers = header.extents if text is None else parse_map(text)
            if not numbers and self._left:
                raise MemberError("its map of holes is missing")
        else:
            raise MemberError("it is a sparse file of an unknown version")
        return parse_decimal(size, "size"), extents_from(numbers)

    def _map_in_content(self) -> array[int]:
        """Read one number per line, first the number of extents, in whole blocks."""
        numbers = array("q")
        count: int | None = None
        rest = b""
        while count is None or len(numbers) < 2 * count:
            if self._left < BLOCK or len(rest) > BLOCK:
                raise MemberError("its map of holes is damaged")
            *lines, rest = (rest + self.read(BLOCK)).split(b"\n")
            for line in lines:
                if count is None:
                    count = parse_decimal(line, "map of holes")
                elif len(numbers) < 2 * count:
                    append_numbers(numbers, parse_decimal(line, "map of holes"))
        return numbers
