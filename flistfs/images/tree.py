"""The tree of an image, as its layers make it, by the headers of their entries alone.

Nodes are in a temporary database: memory does not grow with them. A node knows which layer has set it, since
a whiteout hides what lower layers have, and never what its own layer adds, wherever that stands.

Sources: OCI image-spec, layer.md; what umoci 0.4.7 makes of the layers in the tests.
"""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from flistfs.sources.archive import joined
from flistfs.sources.tar_headers import MemberError
from flistfs.util.closing import Closing

ROOT: Final = 1

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_AUFS: Final = b".wh..wh."
"""How the names begin of what AUFS leaves in layers: never a part of a tree, but links may lead there."""

_MAX_LINKS: Final = 40  # as the kernel follows
_MAX_CACHED: Final = 10_000

_SCHEMA: Final = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -32768;
    CREATE TABLE nodes (
        id INTEGER PRIMARY KEY,
        parent INTEGER,
        name BLOB NOT NULL,
        touched INTEGER NOT NULL,
        made INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        mtime INTEGER NOT NULL,
        rdev INTEGER NOT NULL,
        target BLOB NOT NULL,
        size INTEGER NOT NULL,
        origin INTEGER NOT NULL,
        xattrs TEXT NOT NULL
    );
    CREATE UNIQUE INDEX names ON nodes (parent, name);
"""

_COLUMNS: Final = "mode, uid, gid, mtime, rdev, target, size, origin, xattrs"
_ASSIGNED: Final = ", ".join(f"{column} = ?" for column in _COLUMNS.split(", "))

_TREE: Final = f"""
    WITH RECURSIVE tree (id, path) AS (
        SELECT id, CAST('' AS BLOB) FROM nodes WHERE parent IS NULL
        UNION ALL
        SELECT nodes.id, CASE WHEN tree.path = x'' THEN nodes.name
            ELSE CAST(tree.path || x'2f' || nodes.name AS BLOB) END
        FROM nodes JOIN tree ON nodes.parent = tree.id
        WHERE substr(nodes.name, 1, 4) <> x'{_WHITEOUT.hex()}'
        ORDER BY 2
    )
    SELECT path, {_COLUMNS} FROM tree JOIN nodes USING (id)
"""  # noqa: S608  of constants


class Attributes(NamedTuple):
    """What an entry says of what it makes; `origin` numbers the member with its content."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    rdev: int = 0
    target: bytes = b""
    size: int = 0
    origin: int = 0
    xattrs: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it makes a directory."""
        return stat.S_ISDIR(self.mode)


_MADE: Final = Attributes(stat.S_IFDIR | 0o755, 0, 0, 0)
"""What a directory has that no entry of its own makes."""


@dataclass(frozen=True, slots=True)
class Found:
    """A node of the tree: its path, without a slash at either end, and what it has."""

    path: bytes
    attributes: Attributes


class _Node(NamedTuple):
    id: int
    touched: int
    mode: int
    target: bytes


class LayeredTree(Closing):
    """The tree that layers make, one entry after the other."""

    def __init__(self) -> None:
        # One thread at a time uses it, but not always the same.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        self._layer = 0
        self._database.execute("BEGIN")
        self._insert(None, b"", _MADE, ROOT)
        self._touched: set[int] = set()
        self._directories: dict[bytes, int] = {}

    def close(self) -> None:
        """Throw it away."""
        self._database.close()

    def begin_layer(self) -> None:
        """Take entries of the next layer from now on."""
        self._layer += 1
        self._touched.clear()

    # Entries

    def put(self, path: bytes, attributes: Attributes) -> None:
        """Take an entry, at a path as `cleaned` returns it.

        Raises:
            MemberError: it is invalid where it is.
        """
        above, _, name = path.rpartition(b"/")
        if name == _OPAQUE:
            self._hide_below(self._directory(above))
        elif name.startswith(_WHITEOUT) and not name.startswith(_AUFS):
            self._white_out(above, name.removeprefix(_WHITEOUT))
        elif not path:
            if not attributes.is_directory:
                raise MemberError("it has no name")
            self._update(ROOT, attributes)
        else:
            self._put(self._directory(above), name, attributes)

    def link(self, path: bytes, target: bytes) -> None:
        """Take an entry that is a hard link to a path, which may be of any layer so far.

        Raises:
            MemberError: there is nothing there, or a directory.
        """
        above, _, name = target.rpartition(b"/")
        parent = self._find(above)
        node = None if parent is None or not name else self._child(parent, name)
        if node is None:
            raise MemberError("it is a hard link to what is not there")
        if stat.S_ISDIR(node.mode):
            raise MemberError("it is a hard link to a directory")
        row = self._database.execute(f"SELECT {_COLUMNS} FROM nodes WHERE id = ?", [node.id]).fetchone()  # noqa: S608
        above, _, name = path.rpartition(b"/")
        if name.startswith(_WHITEOUT) and not name.startswith(_AUFS):
            self.put(path, Attributes(*row))
        else:
            self._put(self._directory(above), name, Attributes(*row), keep=node.id)

    def _put(self, parent: int, name: bytes, attributes: Attributes, keep: int | None = None) -> None:
        there = self._child(parent, name)
        if there is not None and there.id == keep:
            return  # a link to itself
        if there is not None and stat.S_ISDIR(there.mode) and attributes.is_directory:
            self._update(there.id, attributes)
            return
        if there is not None:
            self._remove(there)
        if stat.S_ISLNK(attributes.mode):
            self._directories.clear()
        self._insert(parent, name, attributes)

    def _white_out(self, above: bytes, name: bytes) -> None:
        if name in {b"", b".", b".."}:
            raise MemberError("it is a whiteout of nothing")
        parent = self._find(above)
        node = None if parent is None else self._child(parent, name)
        if node is None:
            return
        if node.touched < self._layer:
            self._remove(node)
        elif stat.S_ISDIR(node.mode):
            self._make_anew(node.id)

    def _make_anew(self, directory: int) -> None:
        """Let a directory of this layer have nothing of lower ones, not even what it is itself."""
        self._hide_below(directory)
        self._database.execute(
            f"UPDATE nodes SET {_ASSIGNED} WHERE id = ? AND made < ?",  # noqa: S608
            [*_MADE, directory, self._layer],
        )

    def _hide_below(self, directory: int) -> None:
        for node in self._children(directory):
            if node.touched < self._layer:
                self._remove(node)
            elif stat.S_ISDIR(node.mode):
                self._make_anew(node.id)

    # Looking

    def _directory(self, path: bytes) -> int:
        """Return the directory at a path, through links of the image; made where there is none."""
        found = self._directories.get(path)
        if found is None:
            found = self._walk(path, make=True)
            assert found is not None  # noqa: S101  the type checker's
            if len(self._directories) >= _MAX_CACHED:
                self._directories.clear()
            self._directories[path] = found
        self._touch(found)
        return found

    def _find(self, path: bytes) -> int | None:
        """Return the directory at a path, through links of the image; None if there is none."""
        return self._walk(path, make=False)

    def _walk(self, path: bytes, *, make: bool) -> int | None:
        waiting = [part for part in reversed(path.split(b"/")) if part]
        above, links = [ROOT], 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                above = above[:-1] if len(above) > 1 else above
                continue
            node = self._child(above[-1], name)
            if node is None:
                if not make:
                    return None
                above.append(self._insert(above[-1], name, _MADE, made=False))
            elif stat.S_ISDIR(node.mode):
                above.append(node.id)
            elif stat.S_ISLNK(node.mode):
                links += 1
                if links > _MAX_LINKS:
                    raise MemberError("its parent leads through too many symbolic links")
                above = [ROOT] if node.target.startswith(b"/") else above
                waiting += [part for part in reversed(node.target.split(b"/")) if part not in {b"", b"."}]
            elif make:
                raise MemberError("its parent is no directory")
            else:
                return None
        return above[-1]

    def _touch(self, directory: int) -> None:
        """Note that a directory, and what it is in, is of this layer, too."""
        node: int | None = directory
        while node is not None and node not in self._touched:
            self._touched.add(node)
            row = self._database.execute(
                "UPDATE nodes SET touched = ? WHERE id = ? RETURNING parent", [self._layer, node]
            ).fetchone()
            node = row[0]

    def _child(self, parent: int, name: bytes) -> _Node | None:
        row = self._database.execute(
            "SELECT id, touched, mode, target FROM nodes WHERE parent = ? AND name = ?", [parent, name]
        ).fetchone()
        return None if row is None else _Node(*row)

    def _children(self, directory: int) -> list[_Node]:
        rows = self._database.execute(
            "SELECT id, touched, mode, target FROM nodes WHERE parent = ?", [directory]
        ).fetchall()
        return [_Node(*row) for row in rows]

    # Changing

    def _insert(
        self,
        parent: int | None,
        name: bytes,
        attributes: Attributes,
        number: int | None = None,
        *,
        made: bool = True,
    ) -> int:
        cursor = self._database.execute(
            f"INSERT INTO nodes (id, parent, name, touched, made, {_COLUMNS}) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, parent, name, self._layer, self._layer if made else 0, *attributes],
        )
        assert cursor.lastrowid is not None  # noqa: S101  the type checker's
        return cursor.lastrowid

    def _update(self, node: int, attributes: Attributes) -> None:
        self._database.execute(
            f"UPDATE nodes SET touched = ?, made = ?, {_ASSIGNED} WHERE id = ?",  # noqa: S608
            [self._layer, self._layer, *attributes, node],
        )

    def _remove(self, node: _Node) -> None:
        if not stat.S_ISDIR(node.mode):
            self._database.execute("DELETE FROM nodes WHERE id = ?", [node.id])
            if stat.S_ISLNK(node.mode):
                self._directories.clear()
            return
        self._directories.clear()
        rows = self._database.execute(
            "WITH RECURSIVE below (id) AS (VALUES (?) UNION ALL "
            "SELECT nodes.id FROM nodes JOIN below ON nodes.parent = below.id) "
            "DELETE FROM nodes WHERE id IN (SELECT id FROM below) RETURNING id",
            [node.id],
        ).fetchall()
        self._touched.difference_update(number for (number,) in rows)

    # The result

    def nodes(self) -> Iterator[Found]:
        """Yield what is there, each directory before what is in it."""
        rows = self._database.execute(_TREE)
        for path, *attributes in rows:
            yield Found(path, Attributes(*attributes))

    def has(self, path: bytes) -> bool:
        """Return whether something is at a path, links not followed."""
        above, _, name = path.rpartition(b"/")
        parent = self._find(above)
        return parent is not None and self._child(parent, name) is not None


def cleaned(name: bytes) -> bytes:
    """Return the path of an entry: none leads out of the tree.

    Raises:
        MemberError: it is invalid.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in {b"", b"."}:
            parts.append(part)
    return joined(parts)


def encoded_xattrs(xattrs: Mapping[bytes, bytes]) -> str:
    """Return extended attributes as the tree keeps them."""
    if not xattrs:
        return ""
    return json.dumps({name.hex(): value.hex() for name, value in xattrs.items()})


def decoded_xattrs(text: str) -> dict[bytes, bytes]:
    """Return what `encoded_xattrs` returned."""
    return {bytes.fromhex(name): bytes.fromhex(value) for name, value in json.loads(text or "{}").items()}
