"""Verify: each defect that hangs or kills a reader, made on purpose, is found at its path."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from flistfs import stores
from flistfs.errors import StoreError
from flistfs.format.zeroos import faults as faults_module
from flistfs.format.zeroos.records import (
    Aci,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    encode_aci,
)
from flistfs.reading.flist import Flist
from flistfs.reading.verify import Verified, verify
from flistfs.stores import Store
from flistfs.stores.directory import DirectoryStore
from flistfs.tree.chunks import CHUNK_SIZE
from tests.generation1 import CODEC, encode_block, open_store
from tests.reading.making import (
    DIR,
    Item,
    Records,
    Records2,
    add_entry,
    change_blocks,
    change_directory,
    change_entry,
    packed,
    records_of,
    trees,
    unpacked,
)

FILE = b"d/file"
NO_ACI = b"1" * 32
TREE = {
    b"d": DIR,
    FILE: Item(what=b"content" * 100_000),
    b"d/empty": Item(),
    b"d/link": Item("link", b"file"),
    b"d/null": Item("char", b"1,3"),
    b"same": Item(what=b"content" * 100_000),
}

Change = Callable[[Records], object]


def _file(**fields: object) -> Change:
    def change(entry: Entry) -> Entry:
        assert isinstance(entry.attributes, File)
        return replace(entry, attributes=replace(entry.attributes, **fields))  # type: ignore[arg-type]

    return lambda records: change_entry(records, FILE, change)


def _entry(path: bytes, **fields: object) -> Change:
    return lambda records: change_entry(records, path, lambda entry: replace(entry, **fields))  # type: ignore[arg-type]


def _directory(**fields: object) -> Change:
    return lambda records: change_directory(records, b"d", lambda found: replace(found, **fields))  # type: ignore[arg-type]


def _owned(**fields: int) -> Change:
    def change(records: Records) -> None:
        records[NO_ACI] = encode_aci(replace(Aci(b"", b"", 0o644, uid=0, gid=0), **fields))  # type: ignore[arg-type]
        change_entry(records, FILE, lambda entry: replace(entry, aclkey=NO_ACI))

    return change


def _drop(path: bytes) -> Change:
    return lambda records: records.pop(_key(records, path))


def _key(records: Records, path: bytes) -> bytes:
    return records.generation.directory_key(path)


def _linked(path: bytes) -> Change:
    """Let the entry of a directory lead to the record of another path."""

    def change(records: Records) -> None:
        attributes = SubDirectory(_key(records, path))
        change_entry(records, b"d", lambda entry: replace(entry, attributes=attributes))

    return change


def _without_name(records: Records) -> None:
    entry = Entry(b"", 0, SubDirectory(_key(records, b"d")), _aci_of(records, b"d"), 0, 0)
    change_directory(records, b"d", lambda found: replace(found, entries=[entry, *found.entries]))


def _other_parent(records: Records) -> None:
    change_directory(records, b"d", lambda found: replace(found, parent=_key(records, b"d")))


def _again(path: bytes, entry: Entry) -> Change:
    return lambda records: add_entry(records, path, entry)


def _named(name: bytes) -> Change:
    """Add a file, before all others: special files are last."""

    def change(records: Records) -> None:
        entry = Entry(name, 0, File(()), _aci_of(records, b"d/empty"), 0, 0)
        change_directory(records, b"d", lambda found: replace(found, entries=[entry, *found.entries]))

    return change


def _aci_of(records: Records, path: bytes) -> bytes:
    generation = records.generation
    return generation.dialect.keys.aci(generation.aci(TREE[path]))


DEFECTS: dict[str, tuple[Change, bytes, str]] = {
    "size without blocks": (_file(blocks=()), FILE, "no blocks"),
    "block size 0": (_file(block_size=0), FILE, "block size is 0"),
    "another block size": (_file(block_size=64), FILE, "2 blocks instead of the 3"),
    "too few blocks": (_entry(FILE, size=CHUNK_SIZE * 2 + 1), FILE, "2 blocks instead of the 3"),
    "blocks without size": (_entry(FILE, size=0), FILE, "2 blocks instead of the 0"),
    "an empty hash": (
        lambda records: change_blocks(records, FILE, lambda block: replace(block, hash=b"")),
        FILE,
        "empty hash",
    ),
    "a hash that is none": (
        lambda records: change_blocks(records, FILE, lambda block: replace(block, hash=b"../" * 21 + b"x")),
        FILE,
        "hash or key is invalid",
    ),
    "an empty key": (
        lambda records: change_blocks(records, FILE, lambda block: replace(block, key=b"")),
        FILE,
        "hash or key is invalid",
    ),
    "a user that no account can be": (_owned(uid=2**32 - 1), FILE, "which no account can have"),
    "a user beyond 32 bits": (_owned(uid=2**32), FILE, "which no account can have"),
    "a group below none": (_owned(gid=-2), FILE, "which no account can have"),
    "a directory without a name": (_without_name, b"d/", "no name"),
    "a sub-directory that is not there": (_drop(b"d"), b"d", "not in the flist"),
    "a sub-directory without a key": (_entry(b"d", attributes=SubDirectory(b"")), b"d", "not in the flist"),
    "a key of another directory": (_linked(b""), b"d", "another path"),
    "no root": (_drop(b""), b"", "no root"),
    "a record that is none": (
        lambda records: records.update({_key(records, b"d"): b"x" * 9}),
        b"d",
        "malformed",
    ),
    "no attributes": (_entry(b"d/empty", attributes=None), b"d/empty", "no attributes"),
    "a slash in a name": (_named(b"a/b"), b"d/a/b", "its name is not a valid file name"),
    "a name that leads up": (_named(b".."), b"d/..", "its name is not a valid file name"),
    "a NUL in a name": (_named(b"a\0b"), b"d/a\0b", "its name is not a valid file name"),
    "no name": (_named(b""), b"d/", "no name"),
    "a long name": (_named(b"n" * 256), b"d/" + b"n" * 256, "256 bytes"),
    "a name twice": (_named(b"link"), b"d/link", "twice"),
    "another name in the record": (_directory(name=b"e"), b"d", "another name"),
    "another place in the record": (_directory(location=b"e/d"), b"d", "another path"),
    "another parent in the record": (_other_parent, b"d", "another parent"),
    "no ACI of a file": (_entry(b"d/empty", aclkey=b"0" * 32), b"d/empty", "not in the flist"),
    "no ACI of a directory": (_directory(aclkey=b""), b"d", "not in the flist"),
    "an ACI that is none": (
        lambda records: records.update({_aci_of(records, b"d/empty"): b"junk"}),
        b"d/empty",
        "cannot be read",
    ),
    "a device without numbers": (
        _entry(b"d/null", attributes=Special(SpecialKind.CHAR)),
        b"d/null",
        "without valid numbers",
    ),
    "a device with senseless numbers": (
        _entry(b"d/null", attributes=Special(SpecialKind.BLOCK, b"1;3")),
        b"d/null",
        "without valid numbers",
    ),
    "a special file of no kind": (
        _entry(b"d/null", attributes=Special(SpecialKind.UNKNOWN)),
        b"d/null",
        "an unknown kind",
    ),
    "a long target": (_entry(b"d/link", attributes=Link(b"t" * 4096)), b"d/link", "4096 bytes"),
    "no target": (_entry(b"d/link", attributes=Link(b"")), b"d/link", "target"),
}


def _verified(
    directory: Path, records: Records, store: Store | None = None, *, deep: bool = False
) -> Verified:
    with Flist.open(unpacked(directory, records)) as flist:
        return verify(flist, store, deep=deep)


# What readers make of them, of generation 1 and of generation 2; where it differs or matters.
CONSEQUENCES = {
    "size without blocks": ("reading it never ends", "0-fs cannot read it"),
    "block size 0": ("reading it never ends", "0-fs cannot read it"),
    "too few blocks": ("", "0-fs reads what there is, and shows the full size"),
    "blocks without size": ("", "0-fs reads no more than its size"),
    "an empty hash": ("the whole flist cannot be mounted", "opening it crashes 0-fs"),
    "a hash that is none": ("reading it never ends", "0-fs cannot read it, and rfs 1.x never answers"),
    "an empty key": ("reading it never ends", "0-fs cannot read it, and rfs 1.x never answers"),
    "a sub-directory that is not there": (
        "the whole flist cannot be mounted",
        "listing its parent crashes 0-fs",
    ),
    "no attributes": ("the whole flist cannot be mounted", "listing its parent crashes 0-fs"),
    "a slash in a name": ("its parent cannot be listed", "0-fs cannot list its parent"),
    "another name in the record": ("its parent cannot be listed", "0-fs lists it by that name"),
    "no ACI of a file": ("readers show mode 0400", "0-fs shows mode 0400, and zflist crashes"),
    "a special file behind which are others": ("", "rfs 1.x reads each of them as its neighbour"),
}

# Only where the entry of a directory says more than its key.
DEFECTS_2: dict[str, tuple[Change, bytes, str]] = {
    "an entry of a directory without owner": (_entry(b"d", aclkey=b""), b"d", "zflist crashes"),
    "an entry with another mode": (
        lambda records: change_entry(
            records, b"d", lambda entry: replace(entry, aclkey=_aci_of(records, b"d/empty"))
        ),
        b"d",
        "its entry and record differ in owner or mode: 0-fs shows those of the record",
    ),
    "a device as a socket": (
        _entry(b"d/null", attributes=Special(SpecialKind.SOCKET, b"1,3")),
        b"d/null",
        "it is a device that is stored as a socket: readers show a socket, or nothing",
    ),
    "a special file behind which are others": (
        lambda records: add_entry(
            records, b"d", Entry(b"z", 0, File(()), _aci_of(records, b"d/empty"), 0, 0)
        ),
        b"d",
        "of its entries 1 come after a special file",
    ),
    "another parent of the root": (
        lambda records: change_directory(records, b"", lambda found: replace(found, parent=b"")),
        b"",
        "another parent",
    ),
}

_ALL = [(Records, name) for name in DEFECTS] + [(Records2, name) for name in (*DEFECTS, *DEFECTS_2)]


@pytest.mark.parametrize(("of", "name"), _ALL)
def test_defects_are_found_at_their_path(tmp_path: Path, of: type[Records], name: str) -> None:
    change, path, said = {**DEFECTS, **DEFECTS_2}[name]
    consequence = CONSEQUENCES.get(name, ("", ""))[of is Records2]
    store = stores.open_store(f"dir://{tmp_path / 'blocks'}", of.generation.codec)
    records = records_of(TREE, store, of)
    change(records)
    for blocks in (None, store):
        faults = _verified(tmp_path / f"{blocks is None}", records, blocks).faults
        found = [fault.what for fault in faults if fault.path == path and said in fault.what]
        assert found, faults
        assert found[0].endswith(consequence)
        assert all(fault.path == path for fault in faults if path not in {b"d/empty", b""}), faults


@pytest.mark.parametrize(("of", "consequence"), [(Records, "crashes the mount"), (Records2, "crashes 0-fs")])
def test_a_record_that_readers_cannot_decode(
    tmp_path: Path, of: type[Records], consequence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = records_of(TREE, of=of)
    size = len(records[_key(records, b"d")])
    monkeypatch.setattr(faults_module, "READERS_LIMIT", size)
    assert _verified(tmp_path / "readable", records).faults == []
    monkeypatch.setattr(faults_module, "READERS_LIMIT", size - 1)
    (fault,) = _verified(tmp_path / "not", records).faults
    assert (fault.path, fault.what) == (
        b"d",
        f"its record has {size:,} bytes, over {size - 1:,}: listing its parent {consequence}",
    )


def test_what_is_right_has_no_faults(tmp_path: Path, store: Store) -> None:
    records = records_of(TREE, store)
    assert _verified(tmp_path / "records", records) == Verified(2, 3, 0, [])
    assert _verified(tmp_path / "shallow", records, store) == Verified(2, 3, 2, [])
    assert _verified(tmp_path / "deep", records, store, deep=True) == Verified(2, 3, 2, [])


@settings(max_examples=20)
@given(trees())
def test_no_sound_tree_has_faults(tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, Item]) -> None:
    directory = tmp_path_factory.mktemp("sound")
    store = open_store(f"dir://{directory / 'blocks'}")
    assert _verified(directory / "a", records_of(tree, store), store, deep=True).faults == []


def _block_files(store: Store) -> list[Path]:
    return sorted(path for path in Path(store.url.removeprefix("dir://")).rglob("*") if path.is_file())


@pytest.mark.parametrize("deep", [False, True])
def test_a_missing_block_is_named_for_each_file(tmp_path: Path, store: Store, deep: bool) -> None:  # noqa: FBT001
    records = records_of(TREE, store)
    gone = _block_files(store)[0]
    gone.unlink()
    faults = _verified(tmp_path / "a", records, store, deep=deep).faults
    assert [fault.path for fault in faults] == [b"same", FILE] or [f.path for f in faults] == [FILE, b"same"]
    assert all(fault.what == f"block {gone.name} is not in the store" for fault in faults)


def test_only_a_deep_look_sees_bytes_that_are_not_right(tmp_path: Path, store: Store) -> None:
    records = records_of(TREE, store)
    damaged = _block_files(store)[0]
    raw = bytearray(damaged.read_bytes())
    raw[100] ^= 1
    damaged.write_bytes(raw)
    assert _verified(tmp_path / "shallow", records, store).faults == []
    faults = _verified(tmp_path / "deep", records, store, deep=True).faults
    assert {fault.path for fault in faults} == {FILE, b"same"}
    assert all("is corrupt" in fault.what for fault in faults)


class _BadSector(DirectoryStore):
    """On a disk that cannot read the file of the block `bad`, and nothing at all once `is_gone`."""

    bad = b""
    is_gone = False

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002  the store's signature
        if hash == self.bad:
            raise StoreError(f"cannot read {self.url}: Input/output error")
        return super().copies(hash)

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        if self.is_gone:
            raise StoreError(f"cannot look into {self.url}: Input/output error")
        return super().missing(hashes, sizes)


def test_a_deep_look_goes_on_behind_a_block_that_cannot_be_read(tmp_path: Path) -> None:
    store = _BadSector(tmp_path / "blocks", CODEC)
    records = records_of({**TREE, b"z": Item(what=b"another")}, store)
    unreadable, corrupt = _block_files(store)[:2]
    store.bad = unreadable.name.encode()
    corrupt.write_bytes(bytes(100))
    faults = _verified(tmp_path / "deep", records, store, deep=True).faults
    assert {fault.what.split(":")[0] for fault in faults} == {
        f"block {unreadable.name} cannot be read",
        f"block {corrupt.name} is corrupt",
    }
    assert len({fault.path for fault in faults}) > 1
    store.is_gone = True
    with pytest.raises(StoreError, match="look into"):
        _verified(tmp_path / "again", records, store, deep=True)


def test_only_a_deep_look_sees_a_wrong_key(tmp_path: Path, store: Store) -> None:
    records = records_of(TREE, store)
    change_blocks(records, FILE, lambda block: replace(block, key=b"0" * 64))
    assert _verified(tmp_path / "shallow", records, store).faults == []
    faults = _verified(tmp_path / "deep", records, store, deep=True).faults
    assert [fault.path for fault in faults] == [FILE, FILE]


def test_only_a_deep_look_sees_a_chunk_of_another_length(tmp_path: Path, store: Store) -> None:
    records = records_of(TREE, store)
    short = encode_block(b"short")
    store.put([short])
    change_blocks(records, FILE, lambda _: short.ref)
    assert _verified(tmp_path / "shallow", records, store).faults == []
    faults = _verified(tmp_path / "deep", records, store, deep=True).faults
    assert [fault.path for fault in faults] == [FILE, FILE]
    assert f"has 5 bytes instead of {CHUNK_SIZE}" in faults[0].what


@pytest.mark.parametrize("router", [b"", b"pools: {a: {00: 'http://x'}}\nlookup: [a]\n"])
def test_a_router_that_readers_refuse_is_a_fault(tmp_path: Path, router: bytes) -> None:
    with Flist.open(packed(tmp_path / "a.flist", records_of(TREE), router)) as flist:
        (fault,) = verify(flist, None).faults
    assert fault.path == b"router.yaml"


def test_a_package_that_readers_fail_to_open_is_a_fault(tmp_path: Path) -> None:
    directory = unpacked(tmp_path / "unpacked", records_of(TREE))
    for name, arcname, count in (("dot", "./", 1), ("top", "/", 0)):
        with tarfile.open(tmp_path / name, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
            top = tarfile.TarInfo(arcname)
            top.type = tarfile.DIRTYPE
            archive.addfile(top)
            for path in directory.iterdir():
                archive.add(path, path.name)
        with Flist.open(tmp_path / name) as flist:
            faults = verify(flist, None).faults
        assert [fault.path for fault in faults] == [b""] * count
    with Flist.open(directory) as flist:
        assert verify(flist, None).faults == []


def test_a_damaged_table_is_faults_and_no_end(tmp_path: Path) -> None:
    tree = {b"dir-%03d" % number: DIR for number in range(300)}
    directory = unpacked(tmp_path / "a", records_of(tree))
    table = directory / "000009.sst"
    raw = bytearray(table.read_bytes())
    raw[60_000] ^= 1
    table.write_bytes(raw)
    with Flist.open(directory) as flist:
        faults = verify(flist, None).faults
    assert 0 < len(faults) < 300
    assert all("checksum" in fault.what for fault in faults)


def test_a_store_that_fails_is_no_fault(tmp_path: Path) -> None:
    store = open_store("redis://127.0.0.1:1")
    with pytest.raises(StoreError, match="cannot reach"):
        _verified(tmp_path / "a", records_of(TREE), store)


def test_the_real_flist_has_no_faults_but_its_blocks_elsewhere(real_flist: Path, store: Store) -> None:
    with Flist.open(real_flist) as flist:
        assert verify(flist, None).faults == []
        report = verify(flist, store)
    assert (len(report.faults), report.blocks) == (9109, 8857)
