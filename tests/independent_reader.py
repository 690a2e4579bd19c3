"""A second opinion on flists of generation 1: reads a package the way 0-fs does, and trusts nothing.

It shares no code with flistfs, and none of the libraries that flistfs writes with: the database is read by
Debian's `ldb`, the Cap'n Proto messages, XXTEA and snappy are decoded here by hand. Faster ways (rocksdict,
xxtea, cramjam) can be asked for; the tests compare them with the slow ones.

Every defect that makes a reader hang, die or lose a file is a `DefectError`, which is an AssertionError.

It is one file because it is to be read as a whole, against the facts of the format and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cramjam
import rocksdict
import xxtea

CHUNK = 512 * 1024
BLOCK_UNITS = 128  # File.blockSize counts in units of 4 KiB
HEADER = 16  # bytes in front of a stored block that readers skip unread
MAX_NAME = 255
MAX_TARGET = 4095
NO_ID = -1  # an ACI of the time before uid and gid were recorded

MEMBER_MODE = 0o644
MEMBER_TIME = 0

Engine = Literal["ldb", "rocksdict"]
Kind = Literal["dir", "file", "link", "fifo", "socket", "block", "char"]
Get = Callable[[bytes], bytes | None]

_DIRECTORY_KEY = re.compile(rb"[0-9a-f]{64}")
_ACI_KEY = re.compile(rb"[0-9a-f]{32}")
_BLOCK_NAME = re.compile(rb"[0-9a-f]{64}")
_DEVICE = re.compile(rb"(0|[1-9][0-9]*),(0|[1-9][0-9]*)")
_MEMBER = re.compile(r"CURRENT|MANIFEST-[0-9]{6,}|[0-9]{6,}\.sst|router\.yaml")
_SCANNED = re.compile(rb"0x([0-9A-F]*) : 0x([0-9A-F]*)")


class DefectError(AssertionError):
    """The flist has something that a reader hangs, dies or stumbles over."""


def require(condition: object, defect: str) -> None:
    """Refuse the flist for `defect` unless `condition` holds."""
    if not condition:
        raise DefectError(defect)


@dataclass(frozen=True)
class Node:
    """One entry of the tree, as the flist tells it."""

    kind: Kind
    mode: int  # permission bits with set-id and sticky
    type_mode: int  # the ACI's mode whole; kinds can share an ACI, so its type bits may be another kind's
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    size: int
    mtime: int
    ctime: int
    target: bytes | None = None
    device: tuple[int, int] | None = None
    blocks: tuple[tuple[bytes, bytes], ...] = ()  # (hash, key) of each chunk


def read_flist(package: Path, *, strict: bool = True, engine: Engine = "ldb") -> dict[bytes, Node]:
    """Every node of a package by its path relative to the root, which is b"".

    `strict=False` is for flists made long ago by other programs: it forgives what readers forgive.
    """
    return read_tree(decode_records(read_records(package, strict=strict, engine=engine)), strict=strict)


# The package and its database


def read_records(package: Path, *, strict: bool = True, engine: Engine = "ldb") -> dict[bytes, bytes]:
    """The raw records of the package's database."""
    with tempfile.TemporaryDirectory(prefix="flist-") as name:
        directory = Path(name)
        _unpack(package, directory, strict=strict)
        return dict(_scan_with_ldb(directory) if engine == "ldb" else _scan_with_rocksdict(directory))


def _unpack(package: Path, directory: Path, *, strict: bool) -> None:
    """Extract as 0-fs does, every member as one flat file; strictly, nothing else may be in there."""
    if strict:
        check_gzip_header(package)
    names: list[str] = []
    with tarfile.open(package, "r:gz") as archive:
        for member in archive:
            if strict:
                check_member(member)
            elif member.name in ("", "/", "."):
                continue
            names.append(member.name)
            require("/" not in member.name, f"member {member.name!r} is not at the top level")
            source = archive.extractfile(member)
            require(source, f"member {member.name!r} is not a plain file")
            assert source is not None
            with (directory / member.name).open("xb") as copy:
                shutil.copyfileobj(source, copy)
    if strict:
        _check_names(names, (directory / "CURRENT").read_text() if "CURRENT" in names else "")


def check_gzip_header(package: Path) -> None:
    """Refuse a package that names or dates anything in front of its archive."""
    with package.open("rb") as file:
        header = file.read(10)
    require(header[:3] == b"\x1f\x8b\x08", "the package is not compressed with gzip")
    require(not header[3] & 0x18, "the gzip header holds a file name or a comment")
    require(header[4:8] == bytes(4), "the gzip header holds a time")


def check_member(member: tarfile.TarInfo, names: re.Pattern[str] = _MEMBER) -> None:
    """Refuse a member that readers do not take, or that equal trees would not have equal."""
    about = f"member {member.name!r}"
    require(names.fullmatch(member.name), f"{about} does not belong in a package")
    require(member.type == tarfile.REGTYPE and not member.pax_headers, f"{about} is not a plain file")
    require(member.mode == MEMBER_MODE, f"{about} has mode {member.mode:o}")
    require(member.mtime == MEMBER_TIME, f"{about} has the time {member.mtime}")
    require((member.uid, member.gid) == (0, 0), f"{about} has the owner {member.uid}:{member.gid}")
    require({member.uname, member.gname} <= {"", "root"}, f"{about}: {member.uname}:{member.gname} owns it")


def _check_names(names: list[str], current: str) -> None:
    require(len(set(names)) == len(names), f"a member occurs twice in {names}")
    manifests = [name for name in names if name.startswith("MANIFEST-")]
    require(len(manifests) == 1, f"{len(manifests)} MANIFESTs in {names}")
    require(current == f"{manifests[0]}\n", f"CURRENT holds {current!r}, not the name of {manifests[0]}")
    require(any(name.endswith(".sst") for name in names), f"no table in {names}")


def _scan_with_ldb(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """Read with the distribution's own RocksDB: older than the writer's, and built by others."""
    # ldb says on stderr that an old OPTIONS file names a WAL directory elsewhere: that is no failure.
    scan = subprocess.run(["ldb", f"--db={directory}", "--hex", "scan"], capture_output=True, check=False)
    require(scan.returncode == 0, f"ldb: {scan.stdout[-500:]!r} {scan.stderr[-500:]!r}")
    for line in scan.stdout.splitlines():
        match = _SCANNED.fullmatch(line)
        require(match, f"ldb: {line[:200]!r} {scan.stderr[-500:]!r}")
        assert match is not None
        key, value = match.groups()
        yield bytes.fromhex(key.decode()), bytes.fromhex(value.decode())


def _scan_with_rocksdict(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """Read with the library that the writer uses: quicker, less independent."""
    options = rocksdict.Options(raw_mode=True)
    database = rocksdict.Rdict(str(directory), options, access_type=rocksdict.AccessType.read_only())
    try:
        yield from database.items()
    finally:
        database.close()


# Cap'n Proto: unpacked messages in the standard stream framing


class Message:
    """One framed message; offsets are bytes from its beginning."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        count = self.word(0, "<I") + 1
        start = (4 + 4 * count + 7) // 8 * 8
        self.segments: list[int] = []
        for index in range(count):
            self.segments.append(start)
            start += 8 * self.word(4 + 4 * index, "<I")
        require(start == len(raw), f"a message of {start} bytes is {len(raw)} bytes long")

    def word(self, at: int, layout: str) -> int:
        """The number at an offset."""
        require(
            0 <= at <= len(self.raw) - struct.calcsize(layout), f"a pointer leads out of the message: {at}"
        )
        number: int = struct.unpack_from(layout, self.raw, at)[0]
        return number

    def root(self) -> Struct:
        """The struct that the message is."""
        return self.struct(self.segments[0])

    def follow(self, at: int) -> tuple[int, int]:
        """Where the pointer at an offset leads, and the pointer itself; far pointers are resolved."""
        pointer = self.word(at, "<Q")
        if pointer & 3 != 2:
            return at + 8 + 8 * _signed30(pointer), pointer
        pad = self.segments[pointer >> 32] + 8 * (pointer >> 3 & 0x1FFFFFFF)
        if not pointer & 4:
            return self.follow(pad)
        far = self.word(pad, "<Q")
        return self.segments[far >> 32] + 8 * (far >> 3 & 0x1FFFFFFF), self.word(pad + 8, "<Q")

    def struct(self, at: int) -> Struct:
        """The struct behind the pointer at an offset; an empty one for a null pointer."""
        target, pointer = self.follow(at)
        require(pointer & 3 == 0, "a pointer leads to no struct")
        return self.struct_at(target if pointer else at, pointer)

    def struct_at(self, target: int, pointer: int) -> Struct:
        """The struct at an offset, sized as its pointer or its list's tag says."""
        words, pointers = pointer >> 32 & 0xFFFF, pointer >> 48
        require(target + 8 * (words + pointers) <= len(self.raw), "a struct reaches out of the message")
        return Struct(self, target, 8 * words, pointers)

    def octets(self, at: int) -> bytes:
        """The list of bytes behind the pointer at an offset."""
        target, pointer = self.follow(at)
        if not pointer:
            return b""
        require(pointer & 3 == 1 and pointer >> 32 & 7 == 2, "a pointer leads to no list of bytes")
        end = target + (pointer >> 35)
        require(end <= len(self.raw), "a list of bytes reaches out of the message")
        return self.raw[target:end]

    def structs(self, at: int) -> list[Struct]:
        """The list of structs behind the pointer at an offset."""
        target, pointer = self.follow(at)
        if not pointer:
            return []
        require(pointer & 3 == 1 and pointer >> 32 & 7 == 7, "a pointer leads to no list of structs")
        tag = self.word(target, "<Q")
        count, step = tag >> 2 & 0x3FFFFFFF, 8 * ((tag >> 32 & 0xFFFF) + (tag >> 48))
        require(count * step == 8 * (pointer >> 35), "a list of structs is longer or shorter than it says")
        return [self.struct_at(target + 8 + index * step, tag) for index in range(count)]


def _signed30(pointer: int) -> int:
    offset = pointer >> 2 & 0x3FFFFFFF
    return offset - (1 << 30) if offset & (1 << 29) else offset


@dataclass(frozen=True, slots=True)
class Struct:
    """One struct in a message. Whatever its writer left out is zero or empty."""

    message: Message
    start: int
    data_size: int
    pointer_count: int

    def number(self, at: int, layout: str) -> int:
        """The number at a byte offset of the data section."""
        if at + struct.calcsize(layout) > self.data_size:
            return 0
        return self.message.word(self.start + at, layout)

    def _pointer(self, index: int) -> int | None:
        return self.start + self.data_size + 8 * index if index < self.pointer_count else None

    def data(self, index: int) -> bytes:
        """The Data field in a pointer slot."""
        at = self._pointer(index)
        return b"" if at is None else self.message.octets(at)

    def text(self, index: int) -> bytes:
        """The Text field in a pointer slot, without its closing NUL."""
        octets = self.data(index)
        require(not octets or octets.endswith(b"\0"), f"the text {octets!r} is not closed by a NUL")
        return octets[:-1]

    def struct(self, index: int) -> Struct:
        """The struct in a pointer slot."""
        at = self._pointer(index)
        return Struct(self.message, 0, 0, 0) if at is None else self.message.struct(at)

    def structs(self, index: int) -> list[Struct]:
        """The list of structs in a pointer slot."""
        at = self._pointer(index)
        return [] if at is None else self.message.structs(at)


# Records


@dataclass(frozen=True)
class Entry:
    """One Inode of a directory record, whatever its kind."""

    name: bytes
    kind: str
    size: int
    aclkey: bytes
    mtime: int
    ctime: int
    subdir: bytes = b""
    block_size: int = 0
    blocks: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    data: bytes = b""


@dataclass(frozen=True)
class Directory:
    """One directory record."""

    name: bytes
    location: bytes
    parent: bytes
    size: int
    aclkey: bytes
    mtime: int
    ctime: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Access:
    """One ACI record: mode and owner."""

    uname: bytes
    gname: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Records:
    """The decoded database."""

    directories: dict[bytes, Directory]
    accesses: dict[bytes, Access]


def decode_records(raw: dict[bytes, bytes]) -> Records:
    """Decode every record; the shape of its key says which of the two kinds it is."""
    records = Records({}, {})
    for key, value in raw.items():
        if _DIRECTORY_KEY.fullmatch(key):
            records.directories[key] = decode_directory(Message(value).root())
        else:
            require(_ACI_KEY.fullmatch(key), f"stray record {key!r}")
            records.accesses[key] = decode_access(Message(value).root())
    return records


def decode_directory(record: Struct) -> Directory:
    """Decode a directory's record, of either generation."""
    return Directory(
        name=record.text(0),
        location=record.text(1),
        parent=record.text(3),
        size=record.number(0, "<Q"),
        aclkey=record.text(4),
        mtime=record.number(8, "<I"),
        ctime=record.number(12, "<I"),
        entries=tuple(_decode_entry(inode) for inode in record.structs(2)),
    )


def _decode_entry(inode: Struct) -> Entry:
    which = inode.number(8, "<H")
    attributes = inode.struct(1)
    kinds = ("dir", "file", "link", "special")
    kind = kinds[which] if which < len(kinds) else f"attributes {which}"
    if kind == "special":
        number = attributes.number(0, "<H")
        specials = ("socket", "block", "char", "fifo")
        kind = specials[number] if number < len(specials) else f"special {number}"
    return Entry(
        name=inode.text(0),
        kind=kind,
        size=inode.number(0, "<Q"),
        aclkey=inode.text(2),
        mtime=inode.number(12, "<I"),
        ctime=inode.number(16, "<I"),
        subdir=attributes.text(0) if which == 0 else b"",
        block_size=attributes.number(0, "<H") if which == 1 else 0,
        blocks=_decode_blocks(attributes) if which == 1 else (),
        target=attributes.text(0) if which == 2 else b"",
        data=attributes.data(0) if which == 3 else b"",
    )


def _decode_blocks(file: Struct) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((block.data(0), block.data(1)) for block in file.structs(0))


def decode_access(record: Struct) -> Access:
    """Decode an ACI's record, of either generation."""
    # Both ids default to -1: on the wire a field is the exclusive-or of its value and its default.
    return Access(
        uname=record.text(0),
        gname=record.text(1),
        mode=record.number(0, "<H"),
        uid=record.number(8, "<q") ^ NO_ID,
        gid=record.number(16, "<q") ^ NO_ID,
    )


# The tree


def directory_key(path: bytes) -> bytes:
    """The key of the record of the directory with this path relative to the root."""
    return hashlib.blake2b(path, digest_size=32).hexdigest().encode()


def access_key(access: Access) -> bytes:
    """The key of an ACI record, by the text that it stands for."""
    mode = oct(access.mode)[4:].encode()
    text = b"user:%s\ngroup:%s\nmode:%s\n" % (access.uname, access.gname, mode)
    return hashlib.md5(text).hexdigest().encode()


def read_tree(records: Records, *, strict: bool = True) -> dict[bytes, Node]:
    """Walk from the root as 0-fs does; every record must be met, every directory once."""
    return _Walk(records, strict=strict).run()


class _Walk:
    def __init__(self, records: Records, *, strict: bool) -> None:
        self.records = records
        self.strict = strict
        self.nodes: dict[bytes, Node] = {}
        self.used: set[bytes] = set()

    def run(self) -> dict[bytes, Node]:
        if self.strict:
            for key, access in self.records.accesses.items():
                _check_access(key, access)
        waiting = [(b"", b"")]
        while waiting:
            path, parent = waiting.pop()
            waiting += self._directory(path, parent)
        stray = (self.records.directories.keys() | self.records.accesses.keys()) - self.used
        require(not stray, f"{len(stray)} stray records, among them {sorted(stray)[:3]}")
        return self.nodes

    def _directory(self, path: bytes, parent: bytes) -> list[tuple[bytes, bytes]]:
        """Take one directory's record; answer its sub-directories, as (path, key of parent)."""
        key = directory_key(path)
        directory = self.records.directories.get(key)
        require(directory is not None, f"{path!r}: no record with the key of this directory")
        assert directory is not None
        self.used.add(key)
        _check_directory(path, parent, directory)
        # Old programs called the root after the archive it came from; readers do not look.
        if path or self.strict:
            name = path.rpartition(b"/")[2]
            require(directory.name == name, f"{path!r}: its name says {directory.name!r}")
        self.nodes[path] = self._node(path, "dir", directory, size=directory.size)
        self._check_names(path, [entry.name for entry in directory.entries])
        below = []
        for entry in directory.entries:
            where = path + b"/" + entry.name if path else entry.name
            if entry.kind == "dir":
                self._check_subdirectory(where, entry)
                below.append((where, key))
            else:
                self.nodes[where] = self._leaf(where, entry)
        return below

    def _check_names(self, path: bytes, names: list[bytes]) -> None:
        for name in names:
            require(0 < len(name) <= MAX_NAME, f"{path!r}: a name of {len(name)} bytes")
            require(b"/" not in name and b"\0" not in name, f"{path!r}: {name!r} has a slash or a NUL in it")
            require(name not in (b".", b".."), f"{path!r}: an entry is called {name!r}")
        require(len(set(names)) == len(names), f"{path!r}: names occur twice")
        if self.strict:
            require(names == sorted(names), f"{path!r}: the names are not sorted")

    def _check_subdirectory(self, path: bytes, entry: Entry) -> None:
        require(entry.subdir == directory_key(path), f"{path!r}: {entry.subdir!r} is not this path's key")
        if entry.aclkey:
            self._access(path, entry.aclkey)

    def _access(self, path: bytes, key: bytes) -> Access:
        access = self.records.accesses.get(key)
        require(access is not None, f"{path!r}: no ACI {key!r}")
        assert access is not None
        self.used.add(key)
        return access

    def _node(
        self,
        path: bytes,
        kind: Kind,
        source: Directory | Entry,
        *,
        size: int,
        target: bytes | None = None,
        device: tuple[int, int] | None = None,
        blocks: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Node:
        access = self._access(path, source.aclkey)
        return Node(
            kind=kind,
            mode=access.mode & 0o7777,
            type_mode=access.mode,
            uid=access.uid,
            gid=access.gid,
            uname=access.uname,
            gname=access.gname,
            size=size,
            mtime=source.mtime,
            ctime=source.ctime,
            target=target,
            device=device,
            blocks=blocks,
        )

    def _leaf(self, path: bytes, entry: Entry) -> Node:
        match entry.kind:
            case "file":
                _check_file(path, entry)
                return self._node(path, "file", entry, size=entry.size, blocks=entry.blocks)
            case "link":
                check_link(path, entry)
                return self._node(path, "link", entry, size=entry.size, target=entry.target)
            case "block" | "char":
                device = device_numbers(path, entry)
                kind: Kind = "block" if entry.kind == "block" else "char"
                return self._node(path, kind, entry, size=entry.size, device=device)
            case "fifo" | "socket":
                require(
                    not self.strict or not entry.data, f"{path!r}: a {entry.kind} has the data {entry.data!r}"
                )
                return self._node(path, "fifo" if entry.kind == "fifo" else "socket", entry, size=entry.size)
        raise DefectError(f"{path!r}: no reader knows an entry of the kind {entry.kind!r}")


def _check_access(key: bytes, access: Access) -> None:
    require(access.uname and access.gname, f"ACI {key!r} does not name its owners")
    require(access.uid >= 0 and access.gid >= 0, f"ACI {key!r} has the owner {access.uid}:{access.gid}")
    require(
        stat.S_IFMT(access.mode), f"ACI {key!r} has the mode {access.mode:o}, which is of no kind of file"
    )
    # The text has only the last three digits of a directory's or device's mode, so those that differ in
    # set-id or sticky bits alone would share one key: such a record cannot always have the key of its text.
    if oct(access.mode)[-4] == "0" or len(oct(access.mode)) > 7:
        require(key == access_key(access), f"ACI {key!r} does not have the key of its text: {access}")


def _check_directory(path: bytes, parent: bytes, directory: Directory) -> None:
    require(directory.location == path, f"{path!r}: its location says {directory.location!r}")
    require(directory.parent == parent, f"{path!r}: its parent says {directory.parent!r}, not {parent!r}")


def _check_file(path: bytes, entry: Entry) -> None:
    require(entry.block_size == BLOCK_UNITS, f"{path!r}: the block size is {entry.block_size} times 4 KiB")
    expected = (entry.size + CHUNK - 1) // CHUNK
    require(len(entry.blocks) == expected, f"{path!r}: {entry.size} bytes in {len(entry.blocks)} blocks")
    for block in entry.blocks:
        require(all(map(_BLOCK_NAME.fullmatch, block)), f"{path!r}: {block} is not a hash and a key")


def check_link(path: bytes, entry: Entry) -> None:
    """Refuse a link without a target that a link can have."""
    require(0 < len(entry.target) <= MAX_TARGET, f"{path!r}: a target of {len(entry.target)} bytes")
    require(b"\0" not in entry.target, f"{path!r}: a NUL in the target {entry.target!r}")
    require(
        entry.size == len(entry.target),
        f"{path!r}: {entry.size} bytes, but {len(entry.target)} in its target",
    )


def device_numbers(path: bytes, entry: Entry) -> tuple[int, int]:
    """The numbers of a device."""
    match = _DEVICE.fullmatch(entry.data)
    require(match, f"{path!r}: {entry.data!r} are no device numbers")
    assert match is not None
    return int(match[1]), int(match[2])


# Content


def read_content(node: Node, get: Get, *, fast: bool = False) -> bytes:
    """A file's bytes; `get` answers the stored block of a hash, or None.

    `fast` lets the xxtea and cramjam libraries decode, as flistfs does; without it a block takes 0.5 s.
    """
    content = b"".join(read_block(name, key, get, fast=fast) for name, key in node.blocks)
    require(len(content) == node.size, f"{len(content)} bytes in the blocks of a file of {node.size}")
    return content


def read_block(name: bytes, key: bytes, get: Get, *, fast: bool = False) -> bytes:
    """One chunk; every hash is checked, the stored header is not (nor do readers)."""
    stored = get(name)
    require(stored is not None, f"the store has no block {name!r}")
    assert stored is not None
    secret = stored[HEADER:]
    require(hashlib.sha256(secret).hexdigest().encode() == name, f"block {name!r} has another hash")
    chunk = decode_fast(secret, key) if fast else snappy_decode(xxtea_decode(secret, key[:16]))
    require(
        hashlib.sha256(chunk).hexdigest().encode() == key,
        f"block {name!r}: its key {key!r} is not its chunk's",
    )
    return chunk


def decode_fast(secret: bytes, key: bytes) -> bytes:
    """Decode with the libraries that flistfs uses."""
    packed = xxtea.decrypt(secret, key[:16], padding=xxtea.Padding.LENGTH_WORD_SUFFIX)
    return bytes(cramjam.snappy.decompress_raw(packed))


def xxtea_decode(secret: bytes, key: bytes) -> bytes:
    """Undo XXTEA; the last word of the plain text is its length, in front of it there is zero padding."""
    count = len(secret) // 4
    require(count >= 2 and len(secret) % 4 == 0 and len(key) == 16, f"{len(secret)} bytes are no secret")
    words = list(struct.unpack(f"<{count}I", secret))
    _xxtea_words(words, struct.unpack("<4I", key))
    plain, size = struct.pack(f"<{count - 1}I", *words[:-1]), words[-1]
    require(len(plain) - 4 < size <= len(plain), f"a length of {size} bytes in {len(plain)}: a wrong key")
    require(not any(plain[size:]), "the padding is not zeros")
    return plain[:size]


def _xxtea_words(words: list[int], key: tuple[int, ...]) -> None:
    """Decrypt in place. Bits above the 32nd only ever move up, so one mask at the end of a step will do."""
    delta, mask = 0x9E3779B9, 0xFFFFFFFF
    last = len(words) - 1
    after = words[0]
    for turn in range(6 + 52 // len(words), 0, -1):
        total = turn * delta & mask
        shift = total >> 2 & 3
        keys = [key[index ^ shift] for index in range(4)]
        for index in range(last, -1, -1):
            before = words[index - 1]  # the word before the first is the last
            mix = ((before >> 5 ^ after << 2) + (after >> 3 ^ before << 4)) ^ (
                (total ^ after) + (keys[index & 3] ^ before)
            )
            after = words[index] = (words[index] - mix) & mask


def snappy_decode(packed: bytes) -> bytes:
    """Undo snappy's raw format."""
    size, at = _varint(packed)
    plain = bytearray()
    while at < len(packed):
        tag = packed[at]
        if tag & 3 == 0:
            length, at = _literal_length(packed, at)
            require(at + length <= len(packed), "a literal reaches out of the block")
            plain += packed[at : at + length]
            at += length
        else:
            length, offset, at = _copy_element(packed, at)
            require(0 < offset <= len(plain), "a copy reaches back beyond the beginning")
            piece = plain[-offset:] if offset <= length else plain[-offset : len(plain) - offset + length]
            plain += (piece * (length // len(piece) + 1))[:length]
    require(len(plain) == size, f"{len(plain)} bytes unpacked instead of {size}")
    return bytes(plain)


def _varint(packed: bytes) -> tuple[int, int]:
    size = 0
    for at, octet in enumerate(packed[:5]):
        size |= (octet & 0x7F) << 7 * at
        if octet < 0x80:
            return size, at + 1
    raise DefectError("a block does not begin with its length")


def _literal_length(packed: bytes, at: int) -> tuple[int, int]:
    code = packed[at] >> 2
    extra = max(code - 59, 0)  # codes from 60 on: the length is in 1 to 4 bytes behind the tag
    length = int.from_bytes(packed[at + 1 : at + 1 + extra], "little") if extra else code
    return length + 1, at + 1 + extra


def _copy_element(packed: bytes, at: int) -> tuple[int, int, int]:
    """Length and distance of a copy, and where the next element begins."""
    tag = packed[at]
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, (tag >> 5) << 8 | int.from_bytes(packed[at + 1 : at + 2], "little"), at + 2
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, int.from_bytes(packed[at + 1 : at + 1 + width], "little"), at + 1 + width
