import gzip
import io
import struct
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import capnp
import pytest
import rocksdict

from tests import independent_reader as reader
from tests.independent_reader import Access, DefectError, Directory, Entry, Message, Node
from tests.needs import needs_old_flist
from tests.test_independent_tree import DIRECTORY, DIRECTORY_KEY, ROOT

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
    assert reader.decode_access(Message(record.to_bytes()).root()) == Access(
        b"builder", b"makers", 0o104755, 1000, 0
    )
    record = schema.Aci.new_message(uname="root", gname="root", mode=0o40755)
    assert reader.decode_access(Message(record.to_bytes()).root()).uid == reader.NO_ID


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
