"""The headers of a tar archive, and their encoding."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from array import array
from collections.abc import Mapping
from typing import Final, NamedTuple

from flistfs.errors import FormatError

BLOCK: Final = 512

ZEROS: Final = bytes(BLOCK)


# Records kept of extended headers; on Linux no file has more than 64 KiB of xattr names.
_MAX_RECORDS: Final = 1 << 15


# Extents of one sparse file: 16 bytes of memory each.
MAX_EXTENTS: Final = 1 << 20


MAX_SIZE: Final = 2**63 - 1


_CHECKSUM: Final = slice(148, 156)


# Name, mode, uid, gid, size, mtime, checksum, type, link, magic with version, user, group, device numbers,
# prefix of the name.
HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")


_POSIX_MAGIC: Final = b"ustar\0"  # of any version


GNU_MAGIC: Final = b"ustar  \0"


# Records of extended headers that are used, besides extended attributes.
SPARSE_RECORDS: Final = frozenset(
    {b"GNU.sparse." + name for name in (b"major", b"minor", b"name", b"realsize", b"size", b"map")}
    | {b"SUN.holesdata"}
)


_RECORDS: Final = SPARSE_RECORDS | {
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


GLOBAL_RECORDS: Final = _RECORDS - SPARSE_RECORDS


_EXTENT_RECORDS: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # alternating, for each extent


# The prefixes of extended attributes in GNU tar, star and Docker, and in bsdtar, which adds base64.
XATTR: Final = b"SCHILY.xattr."


BSD_XATTR: Final = b"LIBARCHIVE.xattr."


_XATTRS: Final = (XATTR, BSD_XATTR)


_OCTAL: Final = re.compile(rb"[ \0]*([0-7]+)[ \0]")


_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")


_MAP: Final = re.compile(rb"[0-9]{1,19}(?:,[0-9]{1,19})*")


# The first bytes of files that are mistaken for tar archives.
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
    """Something about a member is invalid, or cannot be represented."""


class Extents(NamedTuple):
    """The parts of a file that hold data, in order, in bytes; the rest is holes."""

    offsets: array[int]
    lengths: array[int]


class Header(NamedTuple):
    """A member's raw header, with its extensions."""

    block: bytes
    fields: tuple[bytes, ...]
    long_name: bytes
    long_link: bytes
    records: Mapping[bytes, bytes]
    extents: array[int]  # of PAX 0.0: alternating offsets and lengths

    @property
    def kind(self) -> bytes:
        """The type flag."""
        return self.fields[7]

    @property
    def name(self) -> bytes:
        """The path of the member."""
        records = self.records
        if name := records.get(b"GNU.sparse.name") or records.get(b"path") or self.long_name:
            return name
        name = self.fields[0].partition(b"\0")[0]
        # GNU headers have times there. star has them after the prefix, which ends with a NUL.
        if self.fields[9].startswith(_POSIX_MAGIC) and (prefix := self.fields[14].partition(b"\0")[0]):
            return prefix + b"/" + name
        return name

    @property
    def link(self) -> bytes:
        """The target of a link."""
        return self.records.get(b"linkpath") or self.long_link or self.fields[8].partition(b"\0")[0]

    @property
    def size(self) -> int:
        """The bytes of content that follow, according to the header."""
        text = self.records.get(b"size")
        try:
            size = parse_decimal(text, "size") if text else parse_number(self.fields[4], "size")
        except MemberError as error:
            raise FormatError(f"it is damaged: the next header is wrong ({error})") from error
        if not 0 <= size <= MAX_SIZE:
            raise FormatError(f"it is damaged: a size is {size}")
        return size


def is_header(block: bytes) -> bool:
    """Return whether a block has the checksum of a header."""
    if len(block) < BLOCK:
        return False
    try:
        wanted = parse_number(block[_CHECKSUM], "checksum")
    except MemberError:
        return False
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if wanted == total:
        return True
    # Some old programs summed signed bytes.
    return wanted == total - 256 * sum(byte >> 7 for byte in block)


def check_beginning(block: bytes) -> None:
    """Raise FormatError unless this begins a tar archive; the message names other known formats."""
    if not block:
        raise FormatError("it is empty")
    if block == ZEROS or is_header(block):
        return
    for magics, what in _OTHERS:
        if block.startswith(magics):
            raise FormatError(f"it is {what}, not a tar archive")
    raise FormatError("it is not a tar archive, or is damaged")


def parse_number(field: bytes, what: str) -> int:
    """Parse a number in a header: octal, or binary (base-256) if the first bit is set. Blank means 0."""
    text = field.strip(b" \0")
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number
    if not text:
        return 0
    if not text.isdigit() and (match := _OCTAL.match(field)):
        text = match[1]  # anything after a NUL is ignored
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    raise MemberError(f"its {what} is not a number")


def parse_decimal(text: bytes, what: str) -> int:
    """Parse a number of an extended header."""
    if not text.isdigit() or len(text) > 20:
        raise MemberError(f"its {what} is not a number")
    return int(text)


def parse_time(text: bytes) -> int:
    """Parse a time of an extended header, with fractions; return nanoseconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise MemberError("its time is invalid")
    sign, seconds, fraction = match.groups()
    time = int(seconds + (fraction or b"")[:9].ljust(9, b"0"))
    return -time if sign else time


def from_base64(text: bytes) -> bytes:
    """Decode base64 without padding; return invalid text unchanged."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return text


def read_records(data: bytes, records: dict[bytes, bytes], extents: array[int]) -> None:
    """Parse the records of an extended header, each preceded by its own length."""
    position = 0
    while position < len(data) and data[position]:  # zeros: padding
        space = data.find(b" ", position, position + 20)
        length = data[position : max(space, position)]
        end = position + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1 : max(end - 1, 0)].partition(b"=")
        if not equals or data[end - 1 : end] != b"\n":
            raise FormatError("it is damaged: an extended header is invalid")
        if key in _EXTENT_RECORDS:
            if key != _EXTENT_RECORDS[len(extents) % 2]:
                raise FormatError("it is damaged: the map of a sparse file is invalid")
            try:
                append_numbers(extents, parse_decimal(value, "map of holes"))
            except MemberError as error:
                raise FormatError(f"it is damaged: {error}") from error
        elif key in _RECORDS or key.startswith(_XATTRS):
            records[key] = value
            if len(records) > _MAX_RECORDS:
                raise FormatError("an extended header has too many records")
        position = end


def parse_map(text: bytes) -> array[int]:
    """Parse a map of holes: alternating offsets and lengths. Raises MemberError if it is damaged."""
    if _MAP.fullmatch(text) is None:
        raise MemberError("its map of holes is damaged")
    numbers = array("q")
    for match in re.finditer(rb"[0-9]+", text):
        append_numbers(numbers, int(match[0]))
    return numbers


def append_numbers(numbers: array[int], *more: int) -> None:
    """Append numbers to a map of holes.

    Raises:
        MemberError: it becomes too long, or a number is invalid.
    """
    if len(numbers) >= 2 * MAX_EXTENTS:
        raise MemberError(f"it has more than {MAX_EXTENTS} holes")
    for number in more:
        if not 0 <= number <= MAX_SIZE:
            raise MemberError("its map of holes is invalid")
        numbers.append(number)


def extents_from(numbers: array[int]) -> Extents:
    """Return the extents of a map of holes. Raises MemberError if it is damaged."""
    if len(numbers) % 2:
        raise MemberError("its map of holes is damaged")
    return Extents(numbers[::2], numbers[1::2])


def check_extents(extents: Extents, size: int, stored: int) -> None:
    """Raise MemberError for a map whose extents are out of order, or hold more than is stored."""
    end = total = 0
    for offset, length in zip(*extents, strict=True):
        if length and offset < end:
            break
        end, total = max(end, offset + length), total + length
    else:
        if end <= size <= MAX_SIZE and total <= stored:
            return
    raise MemberError("its map of holes is invalid")
