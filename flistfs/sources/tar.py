"""The tar format, read as a stream: ustar, PAX, GNU and what came before, as GNU tar reads them.

Python's tarfile takes GNU headers' times for a part of the name, mixes up names and sizes of sparse files,
and needs 19 to 49 µs for a header where this needs 7 to 9. libarchive reads all of it right, in 6 to 7 µs;
but its binding hears no signal and is not safe from its faults, so that it would need a process of its own:
40 ms at the start, and 10 µs for taking over an entry.

Everything is held against what it may be before memory is taken for it. Names are bytes, as they are.

Sources: POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar's manual,
"Basic Tar Format", "GNU Extensions to the Archive Format" and "Storing Sparse Files"; tar.h.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from array import array
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from flistfs.errors import FormatError

BLOCK: Final = 512

# Extended headers of one member, in bytes: xattrs and long names take kilobytes, sparse maps of PAX 0.x more.
_MAX_HEADERS: Final = 8 << 20

# Records of them that are kept; Linux has no file with more than 64 KiB of names of xattrs.
_MAX_RECORDS: Final = 1 << 15

# Extents of one sparse file: 16 bytes of memory each.
_MAX_EXTENTS: Final = 1 << 20

_MAX_SIZE: Final = 2**63 - 1
_SKIP_SIZE: Final = 1 << 20

_ZEROS: Final = bytes(BLOCK)
_CHECKSUM: Final = slice(148, 156)

# Name, mode, uid, gid, size, mtime, checksum, type, link, magic with version, user, group, device numbers,
# prefix of the name.
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_POSIX_MAGIC: Final = b"ustar\0"  # of any version
_GNU_MAGIC: Final = b"ustar  \0"

# Where a GNU header has the map of a sparse file: four extents, whether a block of 21 more follows, and the
# size; and where that block says whether another follows. An extent is an offset and a length.
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
_EMPTY: Final = frozenset({b"2", b"3", b"4", DIRECTORY, b"6"})  # whatever their size says
_SPARSE: Final = b"S"
_DUMP_DIRECTORY: Final = b"D"
_CONTINUED: Final = b"M"
_IGNORED: Final = frozenset({b"V", b"A"})  # a label, and access control lists of Solaris

# Types of what extends the next member, or all.
_LONG_NAME: Final = b"L"
_LONG_LINK: Final = b"K"
_EXTENDED: Final = frozenset({b"x", b"X"})  # X: Solaris, before there was a standard
_GLOBAL: Final = b"g"

# Records of extended headers that are of use, beside extended attributes.
_SPARSE_RECORDS: Final = frozenset(
    {b"GNU.sparse." + name for name in (b"major", b"minor", b"name", b"realsize", b"size", b"map")}
    | {b"SUN.holesdata"}
)
_RECORDS: Final = _SPARSE_RECORDS | {
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"SCHILY.devmajor",
    b"SCHILY.devminor",
    b"GNU.volume.filename",
}
_GLOBAL_RECORDS: Final = _RECORDS - _SPARSE_RECORDS
_EXTENT_RECORDS: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # of each extent, in turns

# How GNU tar, star and Docker keep extended attributes, and how bsdtar does: in base64, besides.
_XATTR: Final = b"SCHILY.xattr."
_BSD_XATTR: Final = b"LIBARCHIVE.xattr."
_XATTRS: Final = (_XATTR, _BSD_XATTR)

_OCTAL: Final = re.compile(rb"[ \0]*([0-7]+)[ \0]")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_MAP: Final = re.compile(rb"[0-9]{1,19}(?:,[0-9]{1,19})*")

# How files begin that people take for tar archives.
_OTHERS: Final = (
    ((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"), "a zip file"),
    ((b"070701", b"070702", b"070707", b"\xc7\x71", b"\x71\xc7"), "a cpio archive"),
    ((b"!<arch>\n", b"!<thin>\n"), "an ar archive (a .deb, say)"),
    ((b"7z\xbc\xaf\x27\x1c",), "a 7z archive"),
    ((b"Rar!\x1a\x07",), "a rar archive"),
    ((b"\xed\xab\xee\xdb",), "an rpm package"),
    ((b"hsqs",), "a squashfs image"),
    ((b"SQLite format 3\0",), "a SQLite database"),
    ((b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"), "a compressed file in a compressed file"),
    ((b"\x04\x22\x4d\x18",), "an lz4 file"),
    ((b"LZIP",), "an lzip file"),
    ((b"\x89LZO\0",), "an lzop file"),
    ((b"\x1f\x9d", b"\x1f\xa0"), "a file of compress"),
    ((b"\x5d\0\0",), "an lzma file"),
)


class MemberError(Exception):
    """Something about a member makes no sense, or cannot be taken."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, or what is left."""


class Extents(NamedTuple):
    """The parts of a file that hold data, in their order; the rest of it is holes. In bytes."""

    offsets: array[int]
    lengths: array[int]


class Member(NamedTuple):
    """A member of an archive.

    `name` and `link` are as they are written. `kind` is its type, where those that stand for the same are
    one. `size` is the file's; where `extents` are None, so much content follows.
    Numbers are read when they are asked for, and raise MemberError then.
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
        """Its permissions, and whatever else was written."""
        return _number(self.fields[1], "mode")

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
        """Its time in nanoseconds since 1970."""
        text = self.records.get(b"mtime")
        time = _time(text) if text else _number(self.fields[5], "time") * 10**9
        if abs(time) > _MAX_SIZE:
            raise MemberError("its time makes no sense")
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
            if key.startswith(_XATTR):
                found[key.removeprefix(_XATTR)] = value
            elif key.startswith(_BSD_XATTR):
                name = unquote_to_bytes(key.removeprefix(_BSD_XATTR))
                found.setdefault(name, _from_base64(value))
        return found

    def _recorded_number(self, key: bytes, field: bytes) -> int:
        text = self.records.get(key)
        return _decimal(text, key.decode()) if text else _number(field, key.decode())


class BadMember(NamedTuple):
    """A member that makes no sense, or cannot be taken, and why; what follows it can."""

    name: bytes
    reason: str


class _Header(NamedTuple):
    """A member's header, as it is, with what extends it."""

    block: bytes
    fields: tuple[bytes, ...]
    long_name: bytes
    long_link: bytes
    records: Mapping[bytes, bytes]
    extents: array[int]  # of PAX 0.0: offsets and lengths in turns

    @property
    def kind(self) -> bytes:
        return self.fields[7]

    @property
    def name(self) -> bytes:
        records = self.records
        if name := records.get(b"GNU.sparse.name") or records.get(b"path") or self.long_name:
            return name
        name = self.fields[0].partition(b"\0")[0]
        # GNU headers have times there. star has them behind it: its prefix ends with a NUL before.
        if self.fields[9].startswith(_POSIX_MAGIC) and (prefix := self.fields[14].partition(b"\0")[0]):
            return prefix + b"/" + name
        return name

    @property
    def link(self) -> bytes:
        return self.records.get(b"linkpath") or self.long_link or self.fields[8].partition(b"\0")[0]

    @property
    def size(self) -> int:
        """How many bytes of content it says that follow."""
        text = self.records.get(b"size")
        try:
            size = _decimal(text, "size") if text else _number(self.fields[4], "size")
        except MemberError as error:
            raise FormatError(f"it is damaged: the next header is wrong ({error})") from error
        if not 0 <= size <= _MAX_SIZE:
            raise FormatError(f"it is damaged: a size is {size}")
        return size


class TarReader:
    """Walks the members of an archive."""

    def __init__(self, stream: Readable) -> None:
        """Read from `stream`."""
        self._stream = stream
        self._ahead: bytes | None = None  # a header that was read already
        self._left = 0  # of a member's content
        self._padding = 0  # after that
        self._headers_left = 0
        self._global: dict[bytes, bytes] = {}
        self._has_begun = False
        self.has_end = False
        """Whether the archive has an end-of-archive marker: known when its members were walked."""

    def members(self) -> Iterator[Member | BadMember]:
        """Walk the members.

        The content of each is to be read before the next; what is not read is skipped.

        Raises:
            FormatError: it is not an archive, or is cut off or damaged; nothing after that can be read.
        """
        while (header := self._header()) is not None:
            self._begin_content(header)
            if header.kind not in _IGNORED:
                yield self._good_or_bad(header)
            self._skip()

    def read(self, size: int) -> bytes:
        """Return so many bytes of a member's content.

        Raises:
            FormatError: the archive ends before them, or is damaged.
        """
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        if len(data) < size:
            raise FormatError("the archive ends in the middle of it")
        return data

    # Headers

    def _header(self) -> _Header | None:
        """Read the header of the next member, with what extends it; none at the end of the archive."""
        self._headers_left = _MAX_HEADERS
        long_name = long_link = b""
        records: dict[bytes, bytes] = {}
        extents = array("q")
        is_extended = False
        while block := self._block():
            fields = _HEADER.unpack(block)
            kind = fields[7]
            header = _Header(block, fields, long_name, long_link, records, extents)
            if kind == _LONG_NAME:
                long_name = self._extension(header).partition(b"\0")[0]
            elif kind == _LONG_LINK:
                long_link = self._extension(header).partition(b"\0")[0]
            elif kind in _EXTENDED:
                _read_records(self._extension(header), records, extents)
            elif kind == _GLOBAL:
                self._take_global(self._extension(header))
                continue
            else:
                return header._replace(records={**self._global, **records}) if self._global else header
            is_extended = True
        if is_extended:
            raise FormatError("it is cut off: an extended header is the last")
        return None

    def _block(self) -> bytes:
        """Return the next header block; nothing at the end of the archive."""
        block, self._ahead = self._stream.read(BLOCK) if self._ahead is None else self._ahead, None
        if not self._has_begun:
            _check_beginning(block)
            self._has_begun = True
        if block == _ZEROS:
            self.has_end = True
            return b""
        if block and not is_header(block):
            raise FormatError(
                "it is cut off in the middle of a header"
                if len(block) < BLOCK
                else "it is damaged: the next header has a wrong checksum"
            )
        return block

    def _extension(self, header: _Header) -> bytes:
        """Read the content of a header that extends the next one."""
        # Its size is its own, whatever the records before it say.
        size = header._replace(records={}).size
        self._headers_left -= BLOCK + size
        if self._headers_left < 0:
            raise FormatError("the headers of a member are too long")
        data = self._stream.read(size + -size % BLOCK)
        if len(data) < size:
            raise FormatError("it is cut off in the middle of an extended header")
        return data[:size]

    def _take_global(self, data: bytes) -> None:
        records: dict[bytes, bytes] = {}
        _read_records(data, records, array("q"))
        # Others are about a single member.
        self._global |= {key: value for key, value in records.items() if key in _GLOBAL_RECORDS}
        if sum(map(len, self._global.values())) > _MAX_HEADERS:
            raise FormatError("the global headers are too long")

    # Members

    def _begin_content(self, header: _Header) -> None:
        """Find out how much content follows a header."""
        size = 0 if header.kind in _EMPTY else header.size
        self._left, self._padding = size, -size % BLOCK
        if header.kind == HARD_LINK and size:
            # It may have its content with it in PAX alone, and others write a size just the same.
            block = self._stream.read(BLOCK)
            if block in {b"", _ZEROS} or is_header(block):
                self._ahead, self._left, self._padding = block, 0, 0
            else:
                self._left = max(0, size - BLOCK)
                self._padding = -size % BLOCK if size > BLOCK else 0

    def _good_or_bad(self, header: _Header) -> Member | BadMember:
        try:
            return self._member(header)
        except MemberError as error:
            return BadMember(header.name, str(error))

    def _member(self, header: _Header) -> Member:
        kind, name, records, extents = header.kind, header.name, header.records, None
        size = self._left
        if kind == _CONTINUED or b"GNU.volume.filename" in records:
            self._global.pop(b"GNU.volume.filename", None)  # it is about the first member alone
            raise MemberError("it is the rest of a file that another volume of the archive begins with")
        if kind == _SPARSE:
            kind = FILE
            size, extents = self._gnu_sparse(header)
        elif kind in _FILES:
            kind = DIRECTORY if name.endswith(b"/") else FILE  # as tars did before there were directories
            if kind == DIRECTORY and size:
                raise MemberError("it is a directory by its name, but has content")
            if header.extents or not _SPARSE_RECORDS.isdisjoint(records):
                size, extents = self._pax_sparse(header)
        elif kind == _DUMP_DIRECTORY:
            kind = DIRECTORY
        if extents is not None:
            _check_extents(extents, size, self._left)
        return Member(name, kind, header.link, size, extents, header.fields, records)

    def _skip(self) -> None:
        """Go to the end of a member."""
        while self._left:
            data = self._stream.read(min(self._left, _SKIP_SIZE))
            if not data:
                raise FormatError("the archive ends in the middle of it")
            self._left -= len(data)
        if self._padding:
            self._stream.read(self._padding)  # some writers leave it out at the end of the archive
            self._padding = 0

    # Sparse files

    def _gnu_sparse(self, header: _Header) -> tuple[int, Extents]:
        """Read the map of a sparse file that its header holds, and blocks behind that."""
        if header.fields[9] != _GNU_MAGIC:
            raise MemberError("it is a sparse file as star writes them, which cannot be read")
        block = header.block
        parts, more = [block[_SPARSE_MAP]], block[_SPARSE_MORE]
        while more:
            block = self._stream.read(BLOCK)
            if len(block) < BLOCK:
                raise FormatError("the archive ends in the middle of it")
            parts.append(block[_SPARSE_BLOCK])
            more = block[_SPARSE_BLOCK_MORE]
            if len(parts) * len(parts[-1]) > _MAX_EXTENTS * _EXTENT.size:
                raise FormatError(f"it has more than {_MAX_EXTENTS} holes")
        numbers = array("q")
        for offset, length in _EXTENT.iter_unpack(b"".join(parts)):
            if not length[0]:
                break
            _append(numbers, _number(offset, "map of holes"), _number(length, "map of holes"))
        return _number(header.block[_SPARSE_SIZE], "size"), _extents(numbers)

    def _pax_sparse(self, header: _Header) -> tuple[int, Extents]:
        """Read the map of a sparse file: its records (0.0, 0.1), or the beginning of its content (1.0)."""
        records = header.records
        if b"SUN.holesdata" in records:
            raise MemberError("it is a sparse file as Solaris writes them, which cannot be read")
        version = records.get(b"GNU.sparse.major") or b"0", records.get(b"GNU.sparse.minor") or b"0"
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if size is None:
            raise MemberError("its size is missing")
        if version == (b"1", b"0"):
            numbers = self._map_in_content()
        elif version[0] == b"0":
            text = records.get(b"GNU.sparse.map")
            numbers = header.extents if text is None else _parse_map(text)
            if not numbers and self._left:
                raise MemberError("its map of holes is missing")
        else:
            raise MemberError("it is a sparse file of an unknown version")
        return _decimal(size, "size"), _extents(numbers)

    def _map_in_content(self) -> array[int]:
        """Read lines with a number each, first how many extents there are, in whole blocks."""
        numbers = array("q")
        count: int | None = None
        rest = b""
        while count is None or len(numbers) < 2 * count:
            if self._left < BLOCK or len(rest) > BLOCK:
                raise MemberError("its map of holes is damaged")
            *lines, rest = (rest + self.read(BLOCK)).split(b"\n")
            for line in lines:
                if count is None:
                    count = _decimal(line, "map of holes")
                elif len(numbers) < 2 * count:
                    _append(numbers, _decimal(line, "map of holes"))
        return numbers


def is_header(block: bytes) -> bool:
    """Return whether a block has the checksum of a header."""
    if len(block) < BLOCK:
        return False
    try:
        wanted = _number(block[_CHECKSUM], "checksum")
    except MemberError:
        return False
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if wanted == total:
        return True
    # Some summed up signed bytes.
    return wanted == total - 256 * sum(byte >> 7 for byte in block)


def _check_beginning(block: bytes) -> None:
    """Refuse what is not an archive, by name if possible."""
    if not block:
        raise FormatError("it is empty")
    if block == _ZEROS or is_header(block):
        return
    for magics, what in _OTHERS:
        if block.startswith(magics):
            raise FormatError(f"it is {what}, not a tar archive")
    raise FormatError("it is not a tar archive, or is damaged")


def _number(field: bytes, what: str) -> int:
    """Read a number in a header: octal, or binary (base-256) if the first bit is set. Blanks are 0."""
    text = field.strip(b" \0")
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number
    if not text:
        return 0
    if not text.isdigit() and (match := _OCTAL.match(field)):
        text = match[1]  # what is behind a NUL is nothing
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    raise MemberError(f"its {what} is not a number")


def _decimal(text: bytes, what: str) -> int:
    """Read a number of an extended header."""
    if not text.isdigit() or len(text) > 20:
        raise MemberError(f"its {what} is not a number")
    return int(text)


def _time(text: bytes) -> int:
    """Read a time of an extended header, with fractions; in nanoseconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise MemberError("its time makes no sense")
    sign, seconds, fraction = match.groups()
    time = int(seconds + (fraction or b"")[:9].ljust(9, b"0"))
    return -time if sign else time


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return text


def _read_records(data: bytes, records: dict[bytes, bytes], extents: array[int]) -> None:
    """Read what an extended header says, each record after its own length."""
    position = 0
    while position < len(data) and data[position]:  # zeros: padding
        space = data.find(b" ", position, position + 20)
        length = data[position : max(space, position)]
        end = position + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise FormatError("it is damaged: an extended header makes no sense")
        if key in _EXTENT_RECORDS:
            if key != _EXTENT_RECORDS[len(extents) % 2]:
                raise FormatError("it is damaged: the map of a sparse file makes no sense")
            try:
                _append(extents, _decimal(value, "map of holes"))
            except MemberError as error:
                raise FormatError(f"it is damaged: {error}") from error
        elif key in _RECORDS or key.startswith(_XATTRS):
            records[key] = value
            if len(records) > _MAX_RECORDS:
                raise FormatError("an extended header has too many records")
        position = end


def _parse_map(text: bytes) -> array[int]:
    if _MAP.fullmatch(text) is None:
        raise MemberError("its map of holes is damaged")
    numbers = array("q")
    for match in re.finditer(rb"[0-9]+", text):
        _append(numbers, int(match[0]))
    return numbers


def _append(numbers: array[int], *more: int) -> None:
    """Add to a map of holes.

    Raises:
        MemberError: it becomes too long, or a number makes no sense.
    """
    if len(numbers) >= 2 * _MAX_EXTENTS:
        raise MemberError(f"it has more than {_MAX_EXTENTS} holes")
    for number in more:
        if not 0 <= number <= _MAX_SIZE:
            raise MemberError("its map of holes makes no sense")
        numbers.append(number)


def _extents(numbers: array[int]) -> Extents:
    if len(numbers) % 2:
        raise MemberError("its map of holes is damaged")
    return Extents(numbers[::2], numbers[1::2])


def _check_extents(extents: Extents, size: int, stored: int) -> None:
    """Refuse a map whose extents are out of order, or hold more than there is."""
    end = total = 0
    for offset, length in zip(*extents, strict=True):
        if length and offset < end:
            break
        end, total = max(end, offset + length), total + length
    else:
        if end <= size <= _MAX_SIZE and total <= stored:
            return
    raise MemberError("its map of holes makes no sense")
