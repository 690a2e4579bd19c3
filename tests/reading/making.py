"""Flists from descriptions, right or wrong on purpose, without a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hypothesis import strategies as st

from flistfs.format.base import Codec
from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.format.rocksdb.package import MEMBERS as MEMBERS_1
from flistfs.format.sqlite.catalog import CatalogWriter
from flistfs.format.sqlite.generation2 import SQLITE
from flistfs.format.sqlite.members import MEMBERS as MEMBERS_2
from flistfs.format.zeroos.dialect import GENERATION_1, GENERATION_2, Dialect
from flistfs.format.zeroos.package import Members, write_package
from flistfs.format.zeroos.records import (
    Aci,
    Attributes,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    decode_directory,
    encode_aci,
    encode_directory,
)
from flistfs.reading.flist import Flist
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from flistfs.tree.node import Kind, Node
from flistfs.util.output_file import OutputFile

TYPES = {"dir": 0o040000, "file": 0o100000, "link": 0o120000, "char": 0o020000, "fifo": 0o010000}


@dataclass(frozen=True)
class Item:
    """One entry. `what` is a file's content, a link's target or a device's numbers."""

    kind: str = "file"
    what: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000_000
    size: int = 0  # a directory's; the others' follows from what they are

    @property
    def aci(self) -> Aci:
        name = b"root" if self.uid == 0 else b"%d" % self.uid
        group = b"root" if self.gid == 0 else b"%d" % self.gid
        return Aci(name, group, TYPES[self.kind] | self.mode, uid=self.uid, gid=self.gid)


DIR = Item("dir", mode=0o755, size=4096)

Tree = Mapping[bytes, Item]


@dataclass(frozen=True)
class Generation:
    """What differs between the flists of 2017 and those of 2018."""

    dialect: Dialect
    codec: Codec
    members: Members

    def directory_key(self, path: bytes) -> bytes:
        return self.dialect.keys.directory(path)

    def aci(self, item: Item) -> Aci:
        return item.aci if self.dialect.keys.typed else replace(item.aci, mode=item.mode)


ONE = Generation(GENERATION_1, ROCKSDB.codec, MEMBERS_1)
TWO = Generation(GENERATION_2, SQLITE.codec, MEMBERS_2)


class Records(dict[bytes, bytes]):
    """Records by their keys."""

    generation = ONE


class Records2(Records):
    generation = TWO


def records_of(tree: Tree, store: Store | None = None, of: type[Records] = Records) -> Records:
    """The records of a tree, by path; the root is b"". Blocks go to the store, if there is one."""
    tree = {b"": DIR, **tree}
    making = _Making(tree, store, of.generation)
    records = of()
    if of.generation.dialect.root_first:
        records[of.generation.directory_key(b"")] = b""
    acis = {making.keys[item]: encode_aci(of.generation.aci(item)) for item in reversed(tree.values())}
    records |= acis
    for path, item in tree.items():
        if item.kind == "dir":
            records[of.generation.directory_key(path)] = encode_directory(making.directory(path, item))
    return records


def _aci_keys(tree: Tree, generation: Generation) -> dict[Item, bytes]:
    """A key for each ACI: one that differs from others in more than the file type gets one of its own."""
    keys: dict[Item, bytes] = {}
    taken: dict[bytes, Item] = {}
    for item in tree.values():
        aci = generation.aci(item)
        key = generation.dialect.keys.aci(aci)
        other = taken.setdefault(key, item)
        if (other.uid, other.gid, other.mode & 0o7777) != (item.uid, item.gid, item.mode):
            key = generation.dialect.keys.distinct_aci(aci)
        keys[item] = key
    return keys


class _Making:
    """Makes the records of a tree."""

    def __init__(self, tree: Tree, store: Store | None, generation: Generation) -> None:
        self.keys = _aci_keys(tree, generation)
        self._tree = tree
        self._store = store
        self._generation = generation

    def directory(self, path: bytes, item: Item) -> Directory:
        dialect = self._generation.dialect
        parent, _, name = path.rpartition(b"/")
        inside = [
            (below, found)
            for below, found in self._tree.items()
            if below and below.rpartition(b"/")[0] == path
        ]
        if dialect.specials_last:
            inside.sort(key=lambda each: each[1].kind in {"char", "fifo"})
        return Directory(
            name=name,
            location=path,
            entries=[self._entry(below, found) for below, found in inside],
            parent=self._generation.directory_key(parent) if path or dialect.root_first else b"",
            size=item.size,
            aclkey=self.keys[item],
            modification_time=item.mtime,
            creation_time=1_100_000_000,
        )

    def _entry(self, path: bytes, item: Item) -> Entry:
        name = path.rpartition(b"/")[2]
        if item.kind == "dir":
            attributes = SubDirectory(self._generation.directory_key(path))
            if not self._generation.dialect.complete_entries:
                return Entry(name, 0, attributes, b"", 0, 0)
            return Entry(name, item.size, attributes, self.keys[item], item.mtime, 1_100_000_000)
        size = len(item.what) if item.kind in {"file", "link"} else 0
        return Entry(name, size, self._attributes(item), self.keys[item], item.mtime, 1_100_000_000)

    def _attributes(self, item: Item) -> Attributes:
        match item.kind:
            case "file":
                starts = range(0, len(item.what), CHUNK_SIZE)
                encode = self._generation.codec.encode
                blocks = [encode(item.what[start : start + CHUNK_SIZE]) for start in starts]
                if self._store is not None:
                    self._store.put(blocks)
                return File(tuple(block.ref for block in blocks))
            case "link":
                return Link(item.what)
            case "char":
                return Special(SpecialKind.CHAR, item.what)
            case _:
                return Special(SpecialKind.FIFO)


def unpacked(directory: Path, records: Records) -> Path:
    """Write records as the directory that a package is unpacked into."""
    if records.generation is ONE:
        write_catalog(directory, sorted(records.items()))
        return directory
    with CatalogWriter(directory) as writer:
        for key, record in records.items():
            writer.add(key, record)
        writer.finish()
    return directory


def packed(package: Path, records: Records, router: bytes | None = None) -> Path:
    """Write records as a package."""
    directory = package.with_suffix(".unpacked")
    unpacked(directory, records)
    if router is not None:
        (directory / "router.yaml").write_bytes(router)
    with OutputFile(package, force=True) as output:
        output.write(partial(write_package, directory, records.generation.members))
        output.publish()
    return package


def change_directory(records: Records, path: bytes, change: Callable[[Directory], Directory]) -> None:
    """Change the record of a directory."""
    key = records.generation.directory_key(path)
    records[key] = encode_directory(change(decode_directory(records[key])))


def change_entry(records: Records, path: bytes, change: Callable[[Entry], Entry]) -> None:
    """Change the entry of a path in its parent's record."""
    parent, _, name = path.rpartition(b"/")
    change_directory(
        records,
        parent,
        lambda found: replace(
            found, entries=[change(entry) if entry.name == name else entry for entry in found.entries]
        ),
    )


def change_blocks(records: Records, path: bytes, change: Callable[[BlockRef], BlockRef]) -> None:
    """Change each block of a file."""

    def changed(entry: Entry) -> Entry:
        assert isinstance(entry.attributes, File)
        return replace(
            entry, attributes=replace(entry.attributes, blocks=tuple(map(change, entry.attributes.blocks)))
        )

    change_entry(records, path, changed)


def add_entry(records: Records, parent: bytes, entry: Entry) -> None:
    """Put one more entry into the record of a directory."""
    change_directory(records, parent, lambda found: replace(found, entries=[*found.entries, entry]))


def without(records: Records, key: bytes) -> Records:
    """The records without that of a key."""
    left = type(records)(records)
    del left[key]
    return left


@dataclass(frozen=True)
class Look:
    """An entry as an flist tells it, whatever its records look like."""

    kind: str
    mode: int
    owner: tuple[bytes, bytes, int | None, int | None] | None
    mtime: int
    content: object


def look(node: Node) -> Look:
    access = node.access
    content: object = (node.target, node.device)
    if node.kind is Kind.FILE:
        content = (node.size, tuple(block.key for block in node.blocks))
    return Look(
        node.kind,
        node.mode,
        None if access is None else (access.user, access.group, access.uid, access.gid),
        node.mtime,
        content,
    )


def looks(flist: Flist) -> dict[bytes, Look]:
    """All entries of an flist, the root as b""."""
    return {node.path: look(node) for node in _all_nodes(flist)}


def _all_nodes(flist: Flist) -> Iterator[Node]:
    root = flist.find(b"")
    yield root
    yield from flist.walk(root)


def catalog_of(directory: Path) -> Records:
    """The records of an unpacked flist."""
    with Catalog.open(directory) as catalog:
        return Records(catalog.items())


# Trees for hypothesis

_names = st.sampled_from([b"a", b"b", b"c", b"d.conf", b"\xff\n", "ü".encode()])
_leaves = st.builds(
    Item,
    kind=st.sampled_from(["file", "file", "link", "char", "fifo"]),
    what=st.just(b""),
    mode=st.sampled_from([0o644, 0o755, 0o4755, 0o1777]),
    uid=st.sampled_from([0, 1000]),
    gid=st.sampled_from([0, 7]),
    mtime=st.integers(1, 3),
)
_whats = {
    "file": st.sampled_from([b"", b"one", b"other"]),
    "link": st.sampled_from([b"a", b"../b"]),
    "char": st.sampled_from([b"1,3", b"5,1"]),
    "fifo": st.just(b""),
}


@st.composite
def trees(draw: st.DrawFn, names: st.SearchStrategy[bytes] = _names) -> dict[bytes, Item]:
    """A few levels of entries, with the root among them."""
    tree = {b"": _drawn_directory(draw)}
    _fill(draw, tree, b"", 3, names)
    return tree


def _drawn_directory(draw: st.DrawFn) -> Item:
    return replace(DIR, mode=draw(st.sampled_from([0o755, 0o1777])), mtime=draw(st.integers(1, 3)))


def _fill(
    draw: st.DrawFn, tree: dict[bytes, Item], path: bytes, depth: int, names: st.SearchStrategy[bytes]
) -> None:
    for name in draw(st.lists(names, unique=True, max_size=4)):
        below = path + b"/" + name if path else name
        if depth and draw(st.booleans()):
            tree[below] = _drawn_directory(draw)
            _fill(draw, tree, below, depth - 1, names)
        else:
            leaf = draw(_leaves)
            tree[below] = replace(leaf, what=draw(_whats[leaf.kind]))
