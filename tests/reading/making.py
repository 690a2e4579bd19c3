"""Flists from descriptions, right or wrong on purpose, without a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hypothesis import strategies as st

from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.package import write_package
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
from tests.generation1 import aci_key, directory_key, distinct_aci_key, encode_block

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
Records = dict[bytes, bytes]


def records_of(tree: Tree, store: Store | None = None) -> Records:
    """The records of a tree, by path; the root is b"". Blocks go to the store, if there is one."""
    tree = {b"": DIR, **tree}
    keys = _aci_keys(tree)
    records = {keys[item.aci]: encode_aci(item.aci) for item in reversed(tree.values())}
    for path, item in tree.items():
        if item.kind == "dir":
            records[directory_key(path)] = encode_directory(_directory(tree, path, item, keys, store))
    return records


def _aci_keys(tree: Tree) -> dict[Aci, bytes]:
    """A key for each ACI: one that differs from others in more than the file type gets one of its own."""
    keys: dict[Aci, bytes] = {}
    taken: dict[bytes, Aci] = {}
    for item in tree.values():
        key = aci_key(item.aci)
        other = taken.setdefault(key, item.aci)
        if (other.uid, other.gid, other.mode & 0o7777) != (item.uid, item.gid, item.mode):
            key = distinct_aci_key(item.aci)
        keys[item.aci] = key
    return keys


def _directory(tree: Tree, path: bytes, item: Item, keys: dict[Aci, bytes], store: Store | None) -> Directory:
    parent, _, name = path.rpartition(b"/")
    inside = [
        (below.rpartition(b"/")[2], below, found)
        for below, found in tree.items()
        if below and below.rpartition(b"/")[0] == path
    ]
    return Directory(
        name=name,
        location=path,
        entries=[_entry(name, below, found, keys, store) for name, below, found in inside],
        parent=directory_key(parent) if path else b"",
        size=item.size,
        aclkey=keys[item.aci],
        modification_time=item.mtime,
        creation_time=1_100_000_000,
    )


def _entry(name: bytes, path: bytes, item: Item, keys: dict[Aci, bytes], store: Store | None) -> Entry:
    if item.kind == "dir":
        return Entry(name, 0, SubDirectory(directory_key(path)), b"", 0, 0)
    size = len(item.what) if item.kind in {"file", "link"} else 0
    return Entry(name, size, _attributes(item, store), keys[item.aci], item.mtime, 1_100_000_000)


def _attributes(item: Item, store: Store | None) -> Attributes:
    match item.kind:
        case "file":
            chunks = [item.what[start : start + CHUNK_SIZE] for start in range(0, len(item.what), CHUNK_SIZE)]
            blocks = [encode_block(chunk) for chunk in chunks]
            if store is not None:
                store.put(blocks)
            return File(tuple(block.ref for block in blocks))
        case "link":
            return Link(item.what)
        case "char":
            return Special(SpecialKind.CHAR, item.what)
        case _:
            return Special(SpecialKind.FIFO)


def unpacked(directory: Path, records: Records) -> Path:
    """Write records as the directory that a package is unpacked into."""
    write_catalog(directory, sorted(records.items()))
    return directory


def packed(package: Path, records: Records, router: bytes | None = None) -> Path:
    """Write records as a package."""
    directory = package.with_suffix(".unpacked")
    unpacked(directory, records)
    if router is not None:
        (directory / "router.yaml").write_bytes(router)
    with OutputFile(package, force=True) as output:
        output.write(partial(write_package, directory))
        output.publish()
    return package


def change_directory(records: Records, path: bytes, change: Callable[[Directory], Directory]) -> None:
    """Change the record of a directory."""
    key = directory_key(path)
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
    return {other: raw for other, raw in records.items() if other != key}


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
        return dict(catalog.items())


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
