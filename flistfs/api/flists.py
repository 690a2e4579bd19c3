"""Open flists."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack

from flistfs.api.arguments import AnyPath, StoreName, absolute_path, chosen_store
from flistfs.errors import FormatError
from flistfs.reading import flist as sealed
from flistfs.reading.content import store_of
from flistfs.reading.file import Content
from flistfs.stores import Store
from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node
from flistfs.util.closing import Closing


class Flist(Closing):
    """An open flist; a context manager. Made by `open`."""

    def __init__(self, flist: sealed.Flist, store: str | None, password: str | None) -> None:
        self._flist = flist
        self._url = store
        self._password = password
        self._blocks: Store | None = None
        self._opened = ExitStack()
        self._opened.callback(flist.close)

    def close(self) -> None:
        """Close it. Files that are open cannot be read any further."""
        self._opened.close()

    def find(self, path: AnyPath = "", *, follow: bool = False) -> Node:
        """Look a path up; `follow` links as a program in the tree would, none of which leads out of it.

        Raises:
            FormatError: there is nothing of that name, or links lead in circles.
        """
        raw = os.fsencode(path)
        return self._flist.follow(raw) if follow else self._flist.find(raw)

    def children(self, path: AnyPath | Node = "") -> Iterator[Node]:
        """Walk the entries of a directory, by name.

        Raises:
            FormatError: there is no such directory.
        """
        return self._flist.children(self._directory(path).path)

    def walk(self, path: AnyPath | Node = "", *, depth: int | None = None) -> Iterator[Node]:
        """Walk all that is below a directory, parents first, by name; at most `depth` levels down.

        Raises:
            FormatError: there is no such directory.
        """
        return self._flist.walk(self._directory(path), depth=depth)

    def mode(self, node: Node) -> int:
        """Return the mode of an entry, its type included."""
        return node.mode

    def access(self, node: Node) -> Access | None:
        """Return who owns an entry, by names and numbers; None if the flist does not say."""
        return node.access

    def open_file(self, path: AnyPath | Node) -> io.BufferedReader:
        """Open a file to be read, at any place: blocks are fetched as they are read, and checked.

        Links are followed, within the flist. Reading raises BlockMissingError, BlockCorruptError or another
        StoreError for what cannot be had.

        Raises:
            FormatError: there is no such file, or its record or the flist's router makes no sense.
        """
        node = path if isinstance(path, Node) else self.find(path, follow=True)
        if node.kind is Kind.LINK:
            node = self._flist.follow(node.path)
        return io.BufferedReader(Content(self._store(), node))

    def _directory(self, path: AnyPath | Node) -> Node:
        node = path if isinstance(path, Node) else self.find(path)
        if node.kind is not Kind.DIRECTORY:
            raise FormatError(f"{printable(node.path)} is a {node.kind}, not a directory")
        return node

    def _store(self) -> Store:
        if self._blocks is None:
            self._blocks = store_of(self._flist, self._url, self._password)
            self._opened.callback(self._blocks.close)
        return self._blocks


def open(  # noqa: A001  flistfs.open, like gzip.open
    package: AnyPath, *, store: StoreName | None = None, password: str | None = None
) -> Flist:
    """Open an flist: a package, or the directory that one was unpacked into.

    Args:
        package: The flist; nothing is written beside it.
        store: Where blocks are read from, once one is. Without it that is where the flist says that they are;
            if it says nothing, it is the directory of blocks of the user.
        password: The password of `store`, if its URL has none. Servers that only the flist names get none.

    Raises:
        FormatError: it is not there, damaged, or not an flist.
        UsageError: the store makes no sense.
    """
    url, secret = chosen_store(store, password)
    return Flist(sealed.Flist.open(absolute_path(package)), url, secret)
