"""Sealed flists: looking into them, and reading, extracting, checking, comparing them.

What only some of that needs is imported when it is called: `flistfs ls` and a program that only looks need
not wait for it.
"""

# ruff: noqa: PLC0414, PLC0415  see above; and types that belong to this room's answers are named here

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flistfs.api.arguments import AnyPath, StoreName, chosen_store, flist_path, typed_path
from flistfs.errors import FaultsError, FormatError, UsageError
from flistfs.reading import flist as sealed
from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node
from flistfs.util.closing import Closing
from flistfs.util.progress import Progress, quiet

if TYPE_CHECKING:
    from flistfs.format.base import Fault as Fault
    from flistfs.format.router import Router as Router
    from flistfs.reading.diff import Difference
    from flistfs.reading.extract import Extracted
    from flistfs.reading.repair import Supply
    from flistfs.reading.survey import Owner as Owner
    from flistfs.reading.survey import Survey as Survey
    from flistfs.reading.verify import Verified
    from flistfs.stores import Store


class Flist(Closing):
    """An open flist; a context manager. Made by `open`."""

    def __init__(
        self, flist: sealed.Flist, store: str | None, password: str | None, fallback_store: str | None
    ) -> None:
        self._flist = flist
        self._url = store
        self._password = password
        self._fallback = fallback_store
        self._blocks: Store | None = None
        self._is_writable = False
        self._opened = ExitStack()
        self._opened.callback(flist.close)

    def close(self) -> None:
        """Close it. Files that are open cannot be read any further."""
        self._opened.close()

    @property
    def format(self) -> str:
        """The name of its format."""
        return self._flist.format.name

    @property
    def faults(self) -> Sequence[Fault]:
        """What of the flist reading went past so far, up to 10,000 of it: see `open`."""
        return self._flist.faults_met

    @property
    def fault_count(self) -> int:
        """How many `faults` there are so far."""
        return self._flist.accepted_faults

    @property
    def router(self) -> Router | None:
        """Where it says that its blocks are, without passwords; None if it says nothing.

        Raises:
            FormatError: what it says is invalid.
        """
        from flistfs.format.router import without_passwords

        router = self._flist.router()
        return router and without_passwords(router)

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """Its metadata besides the tree, by name, without secrets; only the format sqlite has any."""
        return self._flist.metadata

    @property
    def store_url(self) -> str:
        """The URL of the store that its blocks are read from, without a password."""
        return self._store().url

    @property
    def store_trouble(self) -> str | None:
        """What was wrong with a server that others stood in for while blocks were read, if anything was."""
        return None if self._blocks is None else self._blocks.trouble

    def complain(self, name: str, *, at: Sequence[bytes] | None = None, content_only: bool = False) -> None:
        """Raise what reading went past so far as an error, if there is anything.

        Args:
            name: What the flist is called.
            at: Paths of nodes that are asked about, with all below them; None for all that was read.
            content_only: Whether owners and modes are not asked about, of which a directory tells for all its
                entries together.

        Raises:
            FaultsError: there is something; it says where, and what readers make of it.
        """
        found = [
            fault
            for fault in self.faults
            if at is None or any(_concerns(fault, path, parents=not content_only) for path in at)
        ]
        is_cut_off = self.fault_count > len(self.faults)  # one of the others may be asked about
        if found or is_cut_off:
            count = self.fault_count if at is None or is_cut_off else len(found)
            raise read_past(name, found, count)

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

    def names(self, path: AnyPath | Node = "") -> Iterator[Node]:
        """Walk the entries of a directory quicker than `children` does: of directories only names are known.

        Raises:
            FormatError: there is no such directory.
        """
        return iter(self._flist.entries(self._directory(path).path))

    def walk(self, path: AnyPath | Node = "", *, depth: int | None = None) -> Iterator[Node]:
        """Walk all that is below a directory, parents first, by name; at most `depth` levels down.

        Raises:
            FormatError: there is no such directory.
        """
        return self._flist.walk(self._directory(path), depth=depth)

    def search(
        self,
        path: AnyPath | Node = "",
        *,
        name: str | None = None,
        kinds: Iterable[Kind] | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> Iterator[Node]:
        """Walk what matches all that is asked for, at a path and below it.

        Args:
            path: Where to look.
            name: A shell pattern for the last part of the path.
            kinds: The kinds that match.
            min_size: Files match that have at least so many bytes.
            max_size: Files match that have at most so many bytes.

        Raises:
            FormatError: there is nothing of that name.
        """
        from flistfs.reading.search import Search, search

        start = path if isinstance(path, Node) else self.find(path)
        wanted = Search(name, None if kinds is None else frozenset(kinds), min_size, max_size)
        return search(self._flist, start, wanted)

    def survey(self, *, largest: int = 10, progress: Progress | None = None) -> Survey:
        """Sum up what is in it: entries by kind, bytes, blocks, owners, and the largest files.

        Raises:
            FormatError: it is damaged.
        """
        from flistfs.reading.survey import take_survey

        return take_survey(self._flist, largest=largest, progress=progress or quiet)

    def diff(self, after: Flist) -> Iterator[Difference]:
        """Walk what is different in `after`, parents first, without fetching a block.

        Raises:
            FormatError: one of them is damaged.
        """
        from flistfs.reading.diff import diff

        return diff(self._flist, after._flist)

    def extract(
        self,
        target: AnyPath,
        *,
        only: str | Iterable[str] = (),
        devices: bool = True,
        progress: Progress | None = None,
    ) -> Extracted:
        """Make its files in a new or empty directory, with owners, modes and times.

        Only root can give files to others, or make devices: the result says what is not as in the flist.

        Args:
            target: The directory. After an error, what has been made so far stays.
            only: Patterns as in a .gitignore of what is extracted, with what is below it.
            devices: Whether devices are made.
            progress: Called with a `Report` of the bytes written.

        Raises:
            FormatError: it has an entry that cannot be made, or none that is selected.
            OutputError: `target` is not empty, or cannot be written.
            StoreError: the store cannot be reached, or lacks a block.
            UsageError: a pattern is invalid.
        """
        from flistfs.reading.extract import extract
        from flistfs.reading.search import Selection

        patterns = (only,) if isinstance(only, str) else tuple(only)
        return extract(
            self._flist,
            self._store(),
            typed_path(target),
            only=Selection(patterns) if patterns else None,
            devices=devices,
            progress=progress or quiet,
        )

    def verify(
        self,
        *,
        deep: bool = False,
        blocks: bool = True,
        source: StoreName | Path | None = None,
        source_password: str | None = None,
        progress: Progress | None = None,
    ) -> Verified:
        """Look for all that is wrong with it: what readers hang or die of, and blocks that the store lacks.

        Args:
            deep: Fetch, decrypt and check every block.
            blocks: Whether the store is asked for blocks; without it only records are checked.
            source: Where right blocks are: a store, or a directory with files of the same content. Every
                block is checked, and right ones are put where the store has wrong ones, or none.
            source_password: The password of `source`, if it is a store whose URL has none.
            progress: Called with a `Report` as the work goes on.

        Raises:
            FormatError: its records cannot be read at all.
            StoreError: a store cannot be reached.
            UsageError: `source` is neither, or arguments exclude each other.
        """
        from flistfs.reading.verify import verify

        if not blocks and (deep or source is not None):
            raise UsageError("`deep` and `source` fetch blocks, and `blocks` says to ask for none: omit one")
        with ExitStack() as opened:
            supply = None if source is None else opened.enter_context(self._supply(source, source_password))
            store = self._store(reading=supply is None) if blocks else None
            return verify(self._flist.as_it_is(), store, deep=deep, supply=supply, progress=progress or quiet)

    @contextmanager
    def _supply(self, source: StoreName | Path, password: str | None) -> Iterator[Supply]:
        """Open what right blocks are to come from."""
        from flistfs.reading.repair import DirectorySupply, StoreSupply
        from flistfs.stores import open_store
        from flistfs.stores.url import FROM_PASSWORD_VARIABLE

        place = os.fspath(source)
        if "://" not in place and os.path.isdir(place):  # noqa: PTH112  it takes names of any length
            yield DirectorySupply(Path(place), self._flist.codec)
            return
        url, secret = chosen_store(source, password)
        assert url is not None  # noqa: S101  the type checker's
        codec, variable = self._flist.codec, FROM_PASSWORD_VARIABLE
        with closing(open_store(url, codec, secret, reading=True, password_variable=variable)) as store:
            store.missing([codec.no_block])  # it can be asked: unlike `check`, this makes no directory
            yield StoreSupply(store)

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
            FormatError: there is no such file, or its record or the flist's router is invalid.
        """
        from flistfs.reading.file import Content

        return io.BufferedReader(Content(self._store(), self._file(path)))

    def read(self, path: AnyPath | Node) -> Iterator[bytes]:
        """Walk the content of a file from its beginning to its end; see `open_file`."""
        from flistfs.reading.content import read

        return read(self._store(), self._file(path))

    def block_name(self, key: bytes) -> str:
        """Return the hash or the key of a block as people write it."""
        return self._flist.codec.show(key)

    def _file(self, path: AnyPath | Node) -> Node:
        node = path if isinstance(path, Node) else self.find(path, follow=True)
        return self._flist.follow(node.path) if node.kind is Kind.LINK else node

    def _directory(self, path: AnyPath | Node) -> Node:
        node = path if isinstance(path, Node) else self.find(path)
        if node.kind is not Kind.DIRECTORY:
            raise FormatError(f"{printable(node.path)} is a {node.kind}, not a directory")
        return node

    def _store(self, *, reading: bool = True) -> Store:
        """Return the store of its blocks; one that was opened for writing serves readers as well."""
        from flistfs.reading.content import store_of

        if self._blocks is None or not (reading or self._is_writable):
            self._blocks = store_of(self._flist, self._url, self._password, self._fallback, reading=reading)
            self._is_writable = not reading
            self._opened.callback(self._blocks.close)
        return self._blocks


def read_past(name: str, found: Sequence[Fault], count: int) -> FaultsError:
    """Return what reading an flist went past as an error: of `count` faults those that are kept."""
    things = "one thing" if count == 1 else f"{count:,} things"
    return FaultsError(
        f"the program that wrote {name} lost or mixed up {things} in it; the rest was read",
        [(os.fsdecode(fault.path), fault.what) for fault in found],
        count,
    )


def _concerns(fault: Fault, path: bytes, *, parents: bool) -> bool:
    """Return whether a fault is at a path, below it, or of all entries of its parent together."""
    is_below = not path or fault.path == path or fault.path.startswith(path + b"/")
    return is_below or (parents and fault.path == path.rpartition(b"/")[0])


def open(  # noqa: A001  flistfs.open, like gzip.open
    package: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    fallback_store: StoreName | None = None,
) -> Flist:
    """Open an flist: a package, or the directory that one was unpacked into.

    Other programs are known to have written flists of the format sqlite that lack the records of large
    directories, the ends of large files, kinds of devices or modes. Reading goes on with what is there: such
    a directory is empty, and such a file ends early. `Flist.faults` says where, of all that was read.

    Args:
        package: The flist, by its path or by a URL (https://…); nothing is written beside it.
        store: Where blocks are read from, once one is. Default: where the flist says that they are.
        password: The password of `store`, if its URL has none. Servers that only the flist names get none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.

    Raises:
        FormatError: it is not there, damaged, or not an flist.
        UsageError: a store is invalid.
    """
    url, secret = chosen_store(store, password)
    fallback, _ = chosen_store(fallback_store, None)
    return Flist(sealed.Flist.open(flist_path(package), sealed.Faults.READ_PAST), url, secret, fallback)
