import base64
import gzip
import hashlib
import io
import json
import struct
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import capnp
import cramjam
import pytest
import rocksdict
import xxtea

from tests import independent_reader as reader
from tests.independent_reader import Access, DefectError, Directory, Entry, Message, Node, Records
from tests.needs import needs_old_flist, needs_vectors

# The flist that a Zero-OS Hub made in 2017


@pytest.fixture(scope="module")
def old_records() -> dict[bytes, bytes]:
    return reader.read_records(needs_old_flist(), strict=False)


@pytest.fixture(scope="module")
def old_tree(old_records: dict[bytes, bytes]) -> dict[bytes, Node]:
    return reader.read_tree(reader.decode_records(old_records), strict=False)


def test_old_flist_has_the_known_counts(old_records: dict[bytes, bytes], old_tree: dict[bytes, Node]) -> None:
    counts = Counter(node.kind for node in old_tree.values())
    assert counts["dir"] == 1083 + 1  # and the root
    assert counts["file"] == 8970
    assert counts["link"] == 1811
    assert counts["block"] + counts["char"] == 79
    assert sum(len(key) == 32 for key in old_records) == 32


def test_old_flist_tells_what_a_minimal_ubuntu_has(old_tree: dict[bytes, Node]) -> None:
    shell = old_tree[b"bin/bash"]
    assert (shell.kind, shell.type_mode, shell.uname, shell.uid) == ("file", 0o100755, b"root", reader.NO_ID)
    assert len(shell.blocks) == 2
    assert shell.size == 1_037_464
    assert old_tree[b"bin/sh"].target == b"dash"
    assert old_tree[b"dev/null"].device == (1, 3)
    assert old_tree[b"dev/loop0"].kind == "block"
    assert old_tree[b"tmp"].mode == 0o1777
    assert old_tree[b""].kind == "dir"
    assert time.gmtime(shell.mtime).tm_year in {2015, 2016}


def test_every_aci_of_the_old_flist_has_the_key_of_its_text(old_records: dict[bytes, bytes]) -> None:
    accesses = reader.decode_records(old_records).accesses
    assert [key for key, access in accesses.items() if reader.access_key(access) != key] == []


def test_rocksdict_and_ldb_read_the_same(old_records: dict[bytes, bytes]) -> None:
    assert reader.read_records(needs_old_flist(), strict=False, engine="rocksdict") == old_records


def test_the_old_package_is_not_what_we_would_write() -> None:
    old = needs_old_flist()
    with pytest.raises(DefectError, match=r"does not belong|gzip header"):
        reader.read_flist(old)


# Packages


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def package_of(directory: Path, *members: tuple[tarfile.TarInfo, bytes], gzip_time: int = 0) -> Path:
    package = directory / "made-up.flist"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    package.write_bytes(gzip.compress(tar.getvalue(), mtime=gzip_time))
    return package


CURRENT = member("CURRENT", b"MANIFEST-000004\n")
MANIFEST = member("MANIFEST-000004")
TABLE = member("000009.sst")


def test_a_proper_package_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    package = package_of(tmp_path, CURRENT, MANIFEST, TABLE, member("router.yaml", b"lookup: []"))
    reader._unpack(package, tmp_path / "out", strict=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"CURRENT", "MANIFEST-000004", "000009.sst", "router.yaml"}


@pytest.mark.parametrize(
    ("extra", "defect"),
    [
        (member("./"), "does not belong"),
        (member("LOG"), "does not belong"),
        (member("000010.log"), "does not belong"),
        (member("db/000010.sst"), "does not belong"),
        (member("000010.sst", type=tarfile.DIRTYPE), "not a plain file"),
        (member("000010.sst", type=tarfile.SYMTYPE, linkname="CURRENT"), "not a plain file"),
        (member("000010.sst", mode=0o600), "mode 600"),
        (member("000010.sst", mtime=1), "time 1"),
        (member("000010.sst", uid=1000), "owner 1000:0"),
        (member("000010.sst", uname="builder"), "builder"),
        (member("MANIFEST-000005"), "2 MANIFESTs"),
    ],
)
def test_a_member_that_does_not_belong(
    tmp_path: Path, extra: tuple[tarfile.TarInfo, bytes], defect: str
) -> None:
    package = package_of(tmp_path, CURRENT, MANIFEST, TABLE, extra)
    (tmp_path / "out").mkdir()
    with pytest.raises(DefectError, match=defect):
        reader._unpack(package, tmp_path / "out", strict=True)


@pytest.mark.parametrize(
    ("members", "defect"),
    [
        ([CURRENT, TABLE], "0 MANIFESTs"),
        ([CURRENT, MANIFEST], "no table"),
        ([MANIFEST, TABLE], "CURRENT holds"),
        ([member("CURRENT", b"MANIFEST-000005\n"), MANIFEST, TABLE], "CURRENT holds"),
    ],
)
def test_a_member_that_is_missing(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], defect: str
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DefectError, match=defect):
        reader._unpack(package_of(tmp_path, *members), tmp_path / "out", strict=True)


def test_a_package_with_a_time_in_its_gzip_header(tmp_path: Path) -> None:
    package = package_of(tmp_path, CURRENT, MANIFEST, TABLE, gzip_time=1)
    with pytest.raises(DefectError, match="holds a time"):
        reader._unpack(package, tmp_path, strict=True)


def test_a_database_that_ldb_refuses(tmp_path: Path) -> None:
    with pytest.raises(DefectError, match="ldb"):
        reader.read_flist(package_of(tmp_path, CURRENT, MANIFEST, TABLE))


# Messages

SCHEMA = """
@0xb5d0a4d1a6a2c3f7;
struct Dir { name@0: Text; location@1: Text; contents@2: List(Inode); parent@3: Text; size@4: UInt64;
  aclkey@5: Text; modificationTime@6: UInt32; creationTime@7: UInt32; }
struct Inode { name@0: Text; size@1: UInt64;
  attributes: union { dir@2: SubDir; file@3: File; link@4: Link; special@5: Special; }
  aclkey@6: Text; modificationTime@7: UInt32; creationTime@8: UInt32; }
struct SubDir { key@0: Text; }
struct File { blockSize@0: UInt16; blocks@1: List(FileBlock); }
struct FileBlock { hash@0: Data; key@1: Data; }
struct Link { target@0: Text; }
struct Special { type@0: Type; data@1: Data;
  enum Type { socket @0; block @1; chardev @2; fifopipe @3; unknown @4; } }
struct Right { right@0: Text; usergroupid@1: UInt16; }
struct Aci { uname@0: Text; gname@1: Text; mode@2: UInt16; rights@3: List(Right); id@4: UInt32;
  uid@5: Int64 = -1; gid@6: Int64 = -1; }
"""


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    path = tmp_path_factory.mktemp("schema") / "records.capnp"
    path.write_text(SCHEMA)
    return capnp.load(str(path))


ENTRY_KINDS = ("dir", "file", "link", "socket", "block", "char", "fifo")


def wanted_entry(number: int) -> Entry:
    entry = Entry(
        b"%05d" % number, ENTRY_KINDS[number % 7], 3 * number, b"acl%d" % number, number, 2**32 - 1 - number
    )
    details: dict[str, dict[str, Any]] = {
        "dir": {"subdir": b"key of %d" % number},
        "file": {"block_size": 128, "blocks": tuple((b"h%d" % at, b"k%d" % at) for at in range(number % 5))},
        "link": {"target": b"target \xff %d" % number},
    }
    return replace(entry, **details.get(entry.kind, {"data": b"8,%d" % number}))


def fill_inode(inode: Any, entry: Entry) -> None:  # noqa: ANN401
    inode.name, inode.size, inode.aclkey = entry.name, entry.size, entry.aclkey
    inode.modificationTime, inode.creationTime = entry.mtime, entry.ctime
    if entry.kind == "dir":
        inode.attributes.init("dir").key = entry.subdir
    elif entry.kind == "file":
        file = inode.attributes.init("file")
        file.blockSize = entry.block_size
        blocks = file.init("blocks", len(entry.blocks))
        for block, (name, key) in zip(blocks, entry.blocks, strict=True):
            block.hash, block.key = name, key
    elif entry.kind == "link":
        inode.attributes.init("link").target = entry.target
    else:
        special = inode.attributes.init("special")
        special.type = {"char": "chardev", "fifo": "fifopipe"}.get(entry.kind, entry.kind)
        special.data = entry.data


def test_messages_of_pycapnp_in_many_segments(schema: Any) -> None:  # noqa: ANN401
    entries = tuple(wanted_entry(number) for number in range(700))
    wanted = Directory(b"name", b"the/name", b"parent", 4096, b"acl", 1, 2, entries)
    record = schema.Dir.new_message()
    record.name, record.location, record.parent, record.aclkey = b"name", b"the/name", b"parent", b"acl"
    record.size, record.modificationTime, record.creationTime = 4096, 1, 2
    for inode, entry in zip(record.init("contents", len(entries)), entries, strict=True):
        fill_inode(inode, entry)
    raw = record.to_bytes()
    assert struct.unpack_from("<I", raw)[0] > 0  # that is, far pointers are in there
    key = reader.directory_key(b"the/name")
    assert reader.decode_records({key: raw}).directories == {key: wanted}


def test_an_aci_of_pycapnp_with_and_without_owners(schema: Any) -> None:  # noqa: ANN401
    record = schema.Aci.new_message(uname="builder", gname="makers", mode=0o104755, uid=1000, gid=0)
    assert reader._decode_access(Message(record.to_bytes()).root()) == Access(
        b"builder", b"makers", 0o104755, 1000, 0
    )
    record = schema.Aci.new_message(uname="root", gname="root", mode=0o40755)
    assert reader._decode_access(Message(record.to_bytes()).root()).uid == reader.NO_ID


@pytest.fixture
def proper_package(tmp_path: Path, schema: Any) -> Path:  # noqa: ANN401
    """A package of an empty root, its database written by rocksdict."""
    root = schema.Dir.new_message(
        size=4096, aclkey=DIRECTORY_KEY.decode(), modificationTime=1, creationTime=2
    )
    aci = schema.Aci.new_message(uname="root", gname="root", mode=DIRECTORY.mode, uid=0, gid=0)
    options, tables = rocksdict.Options(raw_mode=True), rocksdict.BlockBasedOptions()
    tables.set_format_version(2)
    options.set_block_based_table_factory(tables)
    options.create_if_missing(True)
    database = rocksdict.Rdict(str(tmp_path / "database"), options)
    database[ROOT] = root.to_bytes()
    database[DIRECTORY_KEY] = aci.to_bytes()
    database.flush()
    database.close()
    files = sorted((tmp_path / "database").iterdir())
    wanted = [
        path for path in files if path.name.startswith(("CURRENT", "MANIFEST")) or path.suffix == ".sst"
    ]
    return package_of(tmp_path, *(member(path.name, path.read_bytes()) for path in wanted))


@pytest.mark.parametrize("engine", ["ldb", "rocksdict"])
def test_a_proper_package_is_read(proper_package: Path, engine: reader.Engine) -> None:
    nodes = reader.read_flist(proper_package, engine=engine)
    assert nodes == {b"": Node("dir", 0o755, 0o40755, 0, 0, b"root", b"root", 4096, 1, 2)}


def framed(*segments: list[int]) -> bytes:
    head = struct.pack(f"<I{len(segments)}I", len(segments) - 1, *map(len, segments))
    return (
        head + bytes(-len(head) % 8) + b"".join(struct.pack(f"<{len(words)}Q", *words) for words in segments)
    )


STRUCT = 1 << 48  # no data, one pointer, right behind
TEXT = 1 | 2 << 32 | 3 << 35  # a list of three bytes, right behind
HI = int.from_bytes(b"hi\0", "little")


def far(segment: int, word: int, double: int = 0) -> int:
    return segment << 32 | word << 3 | double << 2 | 2


@pytest.mark.parametrize(
    "segments",
    [
        [[STRUCT, TEXT, HI]],
        [[STRUCT, far(1, 0)], [TEXT, HI]],
        [[far(1, 1)], [0, STRUCT, TEXT, HI]],
        [[STRUCT, far(1, 0, 1)], [far(2, 1), TEXT], [0, HI]],
        [[STRUCT | 1 << 2, 0, 1 | 0x3FFFFFFE << 2 | 2 << 32 | 3 << 35]],  # backwards, to what is no text
    ],
)
def test_pointers_of_every_kind(segments: list[list[int]]) -> None:
    wanted = b"hi" if len(segments) > 1 or HI in segments[0] else b"\0\0"
    assert Message(framed(*segments)).root().text(0) == wanted


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        (b"", "out of the message"),
        (framed([STRUCT, TEXT, HI])[:-8], "bytes long"),
        (framed([STRUCT]), "out of the message"),
        (framed([STRUCT, TEXT | 9 << 35, HI]), "list of bytes reaches out"),
        (framed([STRUCT, STRUCT]), "no list of bytes"),
        (framed([TEXT, HI]), "no struct"),
        (framed([STRUCT, TEXT, int.from_bytes(b"hi!", "little")]), "not closed"),
    ],
)
def test_broken_messages(raw: bytes, defect: str) -> None:
    with pytest.raises(DefectError, match=defect):
        Message(raw).root().text(0)


# The tree

NAME = b"0f" * 32
PLAIN = Access(b"root", b"root", 0o100644, 0, 0)
DIRECTORY = Access(b"root", b"root", 0o40755, 0, 0)
PLAIN_KEY = reader.access_key(PLAIN)
DIRECTORY_KEY = reader.access_key(DIRECTORY)
ROOT = reader.directory_key(b"")
SUB = reader.directory_key(b"sub")
LEAF = reader.directory_key(b"sub/leaf")

EMPTY = Entry(b"empty", "file", 0, PLAIN_KEY, 1, 2, block_size=128)
FILE = Entry(b"file", "file", 524_289, PLAIN_KEY, 1, 2, block_size=128, blocks=((NAME, NAME),) * 2)
LINK = Entry(b"link", "link", 4, PLAIN_KEY, 1, 2, target=b"file")
NULL = Entry(b"null", "char", 0, PLAIN_KEY, 1, 2, data=b"1,3")
PIPE = Entry(b"pipe", "fifo", 0, PLAIN_KEY, 1, 2)
SUB_ENTRY = Entry(b"sub", "dir", 0, b"", 0, 0, subdir=SUB)


def good_records() -> Records:
    leaf = Entry(b"leaf", "dir", 0, b"", 0, 0, subdir=LEAF)
    return Records(
        {
            ROOT: Directory(
                b"", b"", b"", 4096, DIRECTORY_KEY, 1, 2, (EMPTY, FILE, LINK, NULL, PIPE, SUB_ENTRY)
            ),
            SUB: Directory(b"sub", b"sub", ROOT, 4096, DIRECTORY_KEY, 1, 2, (leaf,)),
            LEAF: Directory(b"leaf", b"sub/leaf", SUB, 4096, DIRECTORY_KEY, 1, 2, ()),
        },
        {PLAIN_KEY: PLAIN, DIRECTORY_KEY: DIRECTORY},
    )


def test_a_good_tree() -> None:
    nodes = reader.read_tree(good_records())
    assert {path: node.kind for path, node in nodes.items()} == {
        b"": "dir",
        b"empty": "file",
        b"file": "file",
        b"link": "link",
        b"null": "char",
        b"pipe": "fifo",
        b"sub": "dir",
        b"sub/leaf": "dir",
    }
    assert nodes[b"file"].blocks == ((NAME, NAME),) * 2
    assert nodes[b"null"].device == (1, 3)
    assert nodes[b"link"].target == b"file"
    assert nodes[b"file"].mode == 0o644
    assert nodes[b"sub/leaf"].type_mode == 0o40755


@pytest.mark.parametrize(
    ("entry", "defect"),
    [
        (replace(FILE, blocks=()), "in 0 blocks"),
        (replace(FILE, blocks=((NAME, NAME),)), "in 1 blocks"),
        (replace(EMPTY, name=b"file", blocks=((NAME, NAME),)), "0 bytes in 1 blocks"),
        (replace(FILE, block_size=0), "block size is 0"),
        (replace(FILE, blocks=((b"", NAME),) * 2), "not a hash and a key"),
        (replace(FILE, blocks=((NAME, NAME.upper()),) * 2), "not a hash and a key"),
        (replace(FILE, aclkey=b""), "no ACI"),
        (replace(FILE, aclkey=b"0" * 32), "no ACI"),
        (replace(FILE, name=b"a/b"), "a slash or a NUL"),
        (replace(FILE, name=b"a\0b"), "a slash or a NUL"),
        (replace(FILE, name=b".."), "is called"),
        (replace(FILE, name=b""), "a name of 0 bytes"),
        (replace(FILE, name=b"n" * 256), "a name of 256 bytes"),
        (replace(FILE, name=b"empty"), "twice"),
        (replace(FILE, name=b"zzz"), "not sorted"),
        (replace(LINK, name=b"file", target=b""), "target of 0 bytes"),
        (replace(LINK, name=b"file", target=b"x" * 4096, size=4096), "target of 4096 bytes"),
        (replace(LINK, name=b"file", target=b"a\0bc"), "a NUL in the target"),
        (replace(LINK, name=b"file", size=5), "5 bytes, but 4"),
        (replace(NULL, name=b"file", data=b""), "no device numbers"),
        (replace(NULL, name=b"file", data=b"1,3\n"), "no device numbers"),
        (replace(NULL, name=b"file", data=b"1, 3"), "no device numbers"),
        (replace(PIPE, name=b"file", data=b"0,0"), "has the data"),
        (replace(PIPE, name=b"file", kind="special 4"), "no reader knows"),
        (replace(FILE, kind="dir"), "not this path's key"),
        (replace(FILE, kind="dir", subdir=SUB), "not this path's key"),
        (replace(FILE, kind="dir", subdir=reader.directory_key(b"file")), "no record"),
    ],
)
def test_a_bad_entry(entry: Entry, defect: str) -> None:
    records = good_records()
    root = records.directories[ROOT]
    records.directories[ROOT] = replace(root, entries=(EMPTY, entry, LINK, NULL, PIPE, SUB_ENTRY))
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"name": b"x"}, "its name says"),
        ({"name": b"sub/leaf"}, "its name says"),
        ({"location": b"leaf"}, "its location says"),
        ({"location": b"/sub/leaf"}, "its location says"),
        ({"parent": ROOT}, "its parent says"),
        ({"aclkey": b""}, "no ACI"),
    ],
)
def test_a_bad_directory(change: dict[str, Any], defect: str) -> None:
    records = good_records()
    records.directories[LEAF] = replace(records.directories[LEAF], **change)
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


@pytest.mark.parametrize(
    ("access", "defect"),
    [
        (replace(PLAIN, uid=-1), "has the owner"),
        (replace(PLAIN, gid=-1), "has the owner"),
        (replace(PLAIN, uname=b""), "does not name"),
        (replace(PLAIN, mode=0o644), "no kind of file"),
        (replace(PLAIN, mode=0o100755), "key of its text"),
        (replace(PLAIN, gname=b"0"), "key of its text"),
    ],
)
def test_a_bad_aci(access: Access, defect: str) -> None:
    records = good_records()
    records.accesses[PLAIN_KEY] = access
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


def test_a_sticky_directory_may_have_another_key_than_its_text() -> None:
    records = good_records()
    key = b"5" * 32
    records.accesses[key] = replace(DIRECTORY, mode=0o41755)
    records.directories[LEAF] = replace(records.directories[LEAF], aclkey=key)
    assert reader.read_tree(records)[b"sub/leaf"].mode == 0o1755


def test_records_that_nothing_leads_to() -> None:
    records = good_records()
    other = replace(PLAIN, mode=0o100600)
    records.accesses[reader.access_key(other)] = other
    with pytest.raises(DefectError, match="1 stray record"):
        reader.read_tree(records)
    records = good_records()
    records.directories[b"0" * 64] = records.directories[LEAF]
    with pytest.raises(DefectError, match="1 stray record"):
        reader.read_tree(records)
    with pytest.raises(DefectError, match="stray record"):
        reader.decode_records({b"metadata": b""})


# Blocks


def mod251(size: int) -> bytes:
    return bytes(index % 251 for index in range(size))


def sha256ctr(size: int) -> bytes:
    words = (hashlib.sha256(index.to_bytes(8, "little")).digest() for index in range((size + 31) // 32))
    return b"".join(words)[:size]


def lines(size: int) -> bytes:
    text = bytearray()
    index = 0
    while len(text) < size:
        tail = hashlib.md5(str(index).encode()).hexdigest()[:8].encode()
        mixed = index * 2654435761 % 4294967296
        text += b"%d: the quick brown fox %x jumps over the lazy dog %s\n" % (index, mixed, tail)
        index += 1
    return bytes(text[:size])


GENERATORS: dict[str, Callable[[int], bytes]] = {
    "mod251": mod251,
    "zeros": bytes,
    "a": lambda size: b"a" * size,
    "sha256ctr": sha256ctr,
    "lines": lines,
}


def packed_block(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    """A block made by the libraries: hash, key, and what is stored."""
    key = hashlib.sha256(chunk).hexdigest().encode()
    packed = bytes(cramjam.snappy.compress_raw(chunk))
    secret = xxtea.encrypt(packed, key[:16], padding=xxtea.Padding.LENGTH_WORD_SUFFIX)
    return hashlib.sha256(secret).hexdigest().encode(), key, b"1000000000000000" + secret


def small_vectors() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for vector in json.loads(needs_vectors().read_text())["vectors"]:
        for block in vector["blocks"]:
            if "stored_base64" in block:
                yield vector["generator"], vector["size"], block


def test_the_reference_librarys_blocks_decode() -> None:
    seen = 0
    for generator, size, block in small_vectors():
        stored = base64.b64decode(block["stored_base64"])
        name, key = block["hash"].encode(), block["key"].encode()
        node = Node("file", 0, 0, 0, 0, b"", b"", size, 0, 0, blocks=((name, key),))
        wanted = GENERATORS[generator](size)
        assert reader.read_content(node, {name: stored}.get) == wanted
        assert reader.read_content(node, {name: stored}.get, fast=True) == wanted
        seen += 1
    assert seen >= 50


@pytest.mark.parametrize("generator", ["lines", "zeros", "sha256ctr"])
def test_slow_and_fast_decoding_agree_on_a_full_chunk(generator: str) -> None:
    chunk = GENERATORS[generator](reader.CHUNK)
    name, key, stored = packed_block(chunk)
    assert reader.read_block(name, key, {name: stored}.get) == chunk
    assert reader.read_block(name, key, {name: stored}.get, fast=True) == chunk


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 4095, 65_535, 65_536, 65_537])
def test_slow_decoding_of_small_blocks(size: int) -> None:
    for chunk in (sha256ctr(size), b"abc" * size, lines(size)):
        name, key, stored = packed_block(chunk)
        assert reader.read_block(name, key, {name: stored}.get) == chunk


def test_the_header_is_not_looked_at() -> None:
    name, key, stored = packed_block(b"content")
    assert reader.read_block(name, key, {name: b"anything at all?" + stored[16:]}.get) == b"content"


def test_bad_blocks() -> None:
    name, key, stored = packed_block(b"content")
    other, other_key, other_stored = packed_block(b"tnetnoc")
    with pytest.raises(DefectError, match="has no block"):
        reader.read_block(name, key, lambda _name: None)
    with pytest.raises(DefectError, match="has another hash"):
        reader.read_block(name, key, {name: other_stored}.get)
    with pytest.raises(DefectError, match="wrong key"):
        reader.read_block(name, other_key, {name: stored}.get)
    with pytest.raises(DefectError, match="is not its chunk's"):
        reader.read_block(other, other_key[:16] + b"0" * 48, {other: other_stored}.get)
    node = Node("file", 0, 0, 0, 0, b"", b"", 8, 0, 0, blocks=((name, key),))
    with pytest.raises(DefectError, match="7 bytes in the blocks of a file of 8"):
        reader.read_content(node, {name: stored}.get)


@pytest.mark.parametrize(
    ("packed", "defect"),
    [
        (b"", "begin with its length"),
        (b"\xff\xff\xff\xff\xff\x01", "begin with its length"),
        (b"\x02\x00a", "1 bytes unpacked instead of 2"),
        (b"\x02\x04a", "literal reaches out"),
        (b"\x05\x00a\x01\x02", "back beyond the beginning"),
        (b"\x05\x00a\x01\x00", "back beyond the beginning"),
    ],
)
def test_bad_snappy(packed: bytes, defect: str) -> None:
    with pytest.raises(DefectError, match=defect):
        reader.snappy_decode(packed)


def test_snappy_elements_of_every_width() -> None:
    assert reader.snappy_decode(b"\x06\x04ab\x01\x02") == b"ababab"  # one byte of distance
    assert reader.snappy_decode(b"\x05\x04ab\x0a\x02\x00") == b"ababa"  # two
    assert reader.snappy_decode(b"\x05\x04ab\x0b\x01\x00\x00\x00") == b"abbbb"  # four
    for extra in (1, 2, 3, 4):
        literal = bytes([59 + extra << 2]) + (99).to_bytes(extra, "little")
        assert reader.snappy_decode(b"\x64" + literal + b"x" * 100) == b"x" * 100
