"""The records of a catalog: directories and ACIs, as values and as Cap'n Proto messages.

A record is an unpacked Cap'n Proto message in the standard stream framing; `schema.capnp` has the fields.
Names, targets and keys are bytes, because the format is UTF-8 by convention only: the schema declares Text
as Data, and the trailing NUL that Text has on the wire is added and removed here. An empty text is written
as a null pointer, which every Cap'n Proto library reads as the empty text.

The meaning of a record (whether a key is in the catalog, whether a name can be listed) is not checked here:
`decode_*` reject only malformed messages, so that a verifier can see the rest.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import capnp

from flistfs.errors import FormatError
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

BLOCK_SIZE_UNIT: Final = 4096
"""Bytes in one unit of `File.block_size`."""

NO_ID: Final = -1
"""The number in an ACI for a user or group that is known by name only."""

# Reading a well-formed message visits each of its words at most once. Twice that leaves room for pointers
# that a library counts again, and still stops a message at once in which many pointers lead to one place.
_VISITS_PER_WORD: Final = 2
_WORD: Final = 8

# A reader or builder of pycapnp: its attributes are the schema's fields, unknown to type checkers.
_Message: TypeAlias = Any

_schema: _Message = capnp.load(str(Path(__file__).with_name("schema.capnp")))


class SpecialKind(enum.IntEnum):
    """The kind of a special file; the numbers are those on the wire."""

    SOCKET = 0
    BLOCK = 1
    CHAR = 2
    FIFO = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class SubDirectory:
    """A directory's entry in its parent: the key of its own record."""

    key: bytes


@dataclass(frozen=True, slots=True)
class File:
    """A plain file. `block_size` is in units of `BLOCK_SIZE_UNIT`; an empty file has no blocks."""

    blocks: tuple[BlockRef, ...]
    block_size: int = CHUNK_SIZE // BLOCK_SIZE_UNIT


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Special:
    """A socket, device or FIFO. The data of a device is ASCII `major,minor`."""

    kind: SpecialKind
    data: bytes = b""


Attributes = SubDirectory | File | Link | Special


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory. `size` is in bytes; times are whole seconds since 1970 in 32 bits.

    `creation_time` holds `st_ctime`. `attributes` is None if a record has none: readers cannot mount such a
    record, but it can be decoded.
    """

    name: bytes
    size: int
    attributes: Attributes | None
    aclkey: bytes
    modification_time: int
    creation_time: int


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory's record.

    `location` is the path whose hash is the record's key, relative to the root without a slash at either
    end; `name` is its last part; `parent` the key of the parent's record, empty at the root; `size` the
    directory's `st_size`.
    """

    name: bytes
    location: bytes
    entries: Sequence[Entry]
    parent: bytes
    size: int
    aclkey: bytes
    modification_time: int
    creation_time: int


@dataclass(frozen=True, slots=True)
class Right:
    """One right of an ACI. No known writer stores any."""

    right: bytes
    usergroupid: int


@dataclass(frozen=True, slots=True)
class Aci:
    """Owner and mode of entries. `mode` is the full `st_mode`, file type included; -1 is an unknown id."""

    uname: bytes
    gname: bytes
    mode: int
    rights: tuple[Right, ...] = ()
    id: int = 0
    uid: int = NO_ID
    gid: int = NO_ID


def encode_directory(directory: Directory) -> bytes:
    """Return the message for `directory`, its entries in the order given.

    Takes 5 µs per entry for files of one block, in a directory of 100,000 (decoding 15 µs).

    Raises:
        ValueError: a number does not fit its field.
    """
    with _encoding("directory"):
        message = _schema.Dir.new_message()
        _set_text(message, "name", directory.name)
        _set_text(message, "location", directory.location)
        _set_text(message, "parent", directory.parent)
        _set_text(message, "aclkey", directory.aclkey)
        message.size = directory.size
        message.modificationTime = directory.modification_time
        message.creationTime = directory.creation_time
        # Fields are set on builders made with init: building from dicts takes ten times as long.
        contents = message.init("contents", len(directory.entries))
        for index, entry in enumerate(directory.entries):
            _fill_entry(contents[index], entry)
        return bytes(message.to_bytes())


def decode_directory(raw: bytes) -> Directory:
    """Return the directory in the message `raw`.

    Time and memory depend only on the message's length, whatever it claims to hold.

    Raises:
        FormatError: `raw` is not a well-formed directory record.
    """
    with _decoding(_schema.Dir, raw, "directory") as message:
        return _read_directory(message, tuple(map(_read_entry, _elements(message.contents, raw))))


def decode_head(raw: bytes) -> Directory:
    """Return the directory in the record `raw` without its entries: 0.1 ms for one of 100,000.

    Raises:
        FormatError: `raw` is not a well-formed directory record; its entries are not checked.
    """
    with _decoding(_schema.Dir, raw, "directory") as message:
        return _read_directory(message, ())


def encode_aci(aci: Aci) -> bytes:
    """Return the message for `aci`.

    Raises:
        ValueError: a number does not fit its field.
    """
    with _encoding("ACI"):
        message = _schema.Aci.new_message()
        _set_text(message, "uname", aci.uname)
        _set_text(message, "gname", aci.gname)
        message.mode = aci.mode
        message.id = aci.id
        message.uid = aci.uid
        message.gid = aci.gid
        if aci.rights:
            rights = message.init("rights", len(aci.rights))
            for builder, right in zip(rights, aci.rights, strict=True):
                _set_text(builder, "right", right.right)
                builder.usergroupid = right.usergroupid
        return bytes(message.to_bytes())


def decode_aci(raw: bytes) -> Aci:
    """Return the ACI in the message `raw`, within the same bounds as `decode_directory`.

    Raises:
        FormatError: `raw` is not a well-formed ACI record.
    """
    with _decoding(_schema.Aci, raw, "ACI") as message:
        return Aci(
            uname=_text(message.uname),
            gname=_text(message.gname),
            mode=message.mode,
            rights=tuple(
                Right(_text(right.right), right.usergroupid) for right in _elements(message.rights, raw)
            ),
            id=message.id,
            uid=message.uid,
            gid=message.gid,
        )


@contextlib.contextmanager
def _encoding(kind: str) -> Iterator[None]:
    try:
        yield
    except (capnp.KjException, OverflowError) as error:
        raise ValueError(f"a value does not fit the {kind} record: {_first_line(error)}") from error


@contextlib.contextmanager
def _decoding(struct: _Message, raw: bytes, kind: str) -> Iterator[_Message]:
    words, rest = divmod(len(raw), _WORD)
    if rest:
        raise FormatError(f"malformed {kind} record: its {len(raw)} bytes are not a whole number of words")
    try:
        with struct.from_bytes(raw, traversal_limit_in_words=_VISITS_PER_WORD * words + 1) as message:
            yield message
    except capnp.KjException as error:
        raise FormatError(f"malformed {kind} record: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    # The rest of a KJ exception is a stack of addresses.
    return str(error).partition("\n")[0]


def _elements(values: _Message, raw: bytes) -> _Message:
    # Cap'n Proto accepts a list of bytes or of nothing as one of structs without fields, so a few bytes could
    # claim many entries. Writers that know the fields use at least a word for each.
    if len(values) > len(raw) // _WORD:
        raise FormatError(f"malformed record: a list of {len(values)} in {len(raw)} bytes")
    return values


def _set_text(builder: _Message, field: str, value: bytes) -> None:
    if value:
        setattr(builder, field, value + b"\0")


def _text(value: bytes) -> bytes:
    if not value:
        return b""
    if value[-1]:
        raise FormatError("malformed record: a text has no trailing NUL")
    return value[:-1]


def _fill_entry(builder: _Message, entry: Entry) -> None:
    _set_text(builder, "name", entry.name)
    builder.size = entry.size
    _set_text(builder, "aclkey", entry.aclkey)
    builder.modificationTime = entry.modification_time
    builder.creationTime = entry.creation_time
    match entry.attributes:
        case File(blocks, block_size):
            file = builder.attributes.init("file")
            file.blockSize = block_size
            _fill_blocks(file, blocks)
        case SubDirectory(key):
            _set_text(builder.attributes.init("dir"), "key", key)
        case Link(target):
            _set_text(builder.attributes.init("link"), "target", target)
        case Special(kind, data):
            special = builder.attributes.init("special")
            special.type = int(kind)
            if data:
                special.data = data
        case None:
            pass


def _fill_blocks(file: _Message, blocks: tuple[BlockRef, ...]) -> None:
    if not blocks:
        return
    builders = file.init("blocks", len(blocks))
    for index, block in enumerate(blocks):
        builder = builders[index]
        builder.hash = block.hash
        builder.key = block.key


def _read_directory(message: _Message, entries: tuple[Entry, ...]) -> Directory:
    return Directory(
        name=_text(message.name),
        location=_text(message.location),
        entries=entries,
        parent=_text(message.parent),
        size=message.size,
        aclkey=_text(message.aclkey),
        modification_time=message.modificationTime,
        creation_time=message.creationTime,
    )


def _read_entry(entry: _Message) -> Entry:
    return Entry(
        name=_text(entry.name),
        size=entry.size,
        attributes=_read_attributes(entry.attributes),
        aclkey=_text(entry.aclkey),
        modification_time=entry.modificationTime,
        creation_time=entry.creationTime,
    )


def _read_attributes(attributes: _Message) -> Attributes | None:
    match attributes.which():
        case "file":
            file = attributes.file
            blocks = tuple(BlockRef(block.hash, block.key) for block in file.blocks)
            return File(blocks, file.blockSize)
        case "dir":
            # The union's default: an entry whose attributes were never set has a null pointer here.
            return SubDirectory(_text(attributes.dir.key)) if attributes._has("dir") else None  # noqa: SLF001
        case "link":
            return Link(_text(attributes.link.target))
        case "special":
            return Special(_special_kind(attributes.special.type), attributes.special.data)
        case other:
            raise FormatError(f"malformed directory record: attributes of an unknown kind, {other}")


def _special_kind(number: int) -> SpecialKind:
    try:
        return SpecialKind(number)
    except ValueError:
        raise FormatError(f"malformed directory record: {number} is not a kind of special file") from None
