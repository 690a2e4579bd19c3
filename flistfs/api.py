"""What a Python program may use of flistfs: what the commands do, with the same engine.

    with flistfs.Session("/tmp/state", store="ardb://host:16379") as session:
        session.add("/opt", "/etc/hosts")
        session.seal("out.flist")
    with flistfs.open("out.flist") as flist, flist.open_file("hosts") as file:
        print(file.read())

- Nothing prints, and the environment is not asked: what commands take from it is an argument here.
- Whatever goes wrong for a reason that a user can understand raises an error of `flistfs.errors`, all of
  which are `FlistfsError`. Its text is one line that says what is wrong and what to do; an option of a
  command that it names (`--force`) is the argument of that name here.
- Calls block until they are done, in threads of any kind, whether an event loop runs there or not. Progress
  is told from other threads.
- Paths of this machine are texts, bytes or `os.PathLike`. Paths in an flist are bytes where they are given
  back, and may be written as any of those.
- A store is a URL or the path of a router.yaml; without one it is the directory of blocks of the user. Its
  password goes into no file, log or error.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from flistfs.authoring import offline
from flistfs.authoring.importing.opening import absolute_source, normal_target
from flistfs.authoring.request import (
    PATIENCE,
    USUAL_FORMAT,
    AddRequest,
    BaseRequest,
    Passwords,
    SealOptions,
    SealRequest,
)
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import directory_for
from flistfs.authoring.state.settings import Settings
from flistfs.authoring.summaries import AddSummary, Losses, SealSummary
from flistfs.errors import FlistfsError, FormatError, SessionError, UsageError
from flistfs.fuse import mounts
from flistfs.reading import flist as sealed
from flistfs.reading import merge as merging
from flistfs.reading.content import store_of
from flistfs.reading.file import Content
from flistfs.reading.merge import Merged, PathsClashError
from flistfs.sources.excludes import excluding
from flistfs.stores import Store, default_store_url
from flistfs.stores.readers import router_for_readers
from flistfs.stores.url import named_store, parse_store_url
from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node
from flistfs.tree.rules import Prefer
from flistfs.util.closing import Closing
from flistfs.util.logs import with_format
from flistfs.util.output_file import check_output
from flistfs.util.progress import Progress, Report, quiet

__all__ = [
    "AddSummary",
    "Flist",
    "FlistfsError",
    "Kind",
    "Merged",
    "Node",
    "Packed",
    "PathsClashError",
    "Progress",
    "Report",
    "SealSummary",
    "Session",
    "merge",
    "open",
    "pack",
]

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path, as the functions of `os` take it."""

# Ids are unsigned 32-bit numbers, of which the last means none.
_MAX_ID = 2**32 - 2

# A program that has set up no logging is to see nothing on standard error.
logging.getLogger("flistfs").addHandler(logging.NullHandler())


# Authoring


class Session(Closing):
    """A session without a mount: files are added to it, then it is sealed. A context manager.

    It lies in a state directory and outlives the program: what was added stays until it is sealed or aborted,
    and `flistfs status` shows it. One program has it at a time; threads may share it.
    """

    def __init__(
        self,
        state: AnyPath,
        *,
        store: str | os.PathLike[str] | None = None,
        password: str | None = None,
        base: AnyPath | Iterable[AnyPath] = (),
        base_store: str | os.PathLike[str] | None = None,
        base_password: str | None = None,
        replace_links: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Make the session of a state directory, or go on with the one that is there.

        Args:
            state: The directory: one that is new, empty, or has held a session.
            store: Where blocks go. A session that goes on has its store.
            password: The store's, if its URL has none. It is not kept: a session that goes on needs it again.
            base: Sealed flists whose tree a new session starts with, later ones on top; no block is fetched.
            base_store: Where their blocks are, if not where they say, nor in `store`.
            base_password: The password of `base_store`, which is not kept either.
            replace_links: Whether a directory of a base hides a link of one below it, instead of going to the
                directory that the link leads to.
            progress: Is told how far it is with a base.

        Raises:
            SessionError: another program has the session, it has another store or is damaged, or the
                directory cannot hold one; or it is to go on and has a base.
            StoreError: a store cannot be reached.
            FormatError: a base is damaged, or holds what a session cannot.
            ClashError: in one base is a link where another has a directory that it does not lead to.
            UsageError: a store makes no sense.
        """
        wanted = None if store is None else _named_store(store)
        url, secret = _store(wanted, password)
        request, base_secret = _base(base, base_store, base_password, replace_links=replace_links)
        self._passwords = Passwords(secret, base_secret)
        self._directory = _directory(_path(state).resolve())
        if not self._directory.is_open():
            settings = Settings(str(self._directory.path), url, format=USUAL_FORMAT, created=time.time())
            offline.create(
                self._directory, self._passwords, settings, progress or quiet, offline=False, base=request
            )
        elif request is not None:
            raise SessionError(
                f"{self._directory.path} has an open session already; only a new one can start from an flist"
            )
        self._busy = threading.Lock()
        with ExitStack() as held:
            held.enter_context(offline.taken(self._directory, "a Python program"))
            self._go_on(None if wanted is None else url)
            held.enter_context(_logged(self._directory.log))
            self._held = held.pop_all()
        self._is_open = True

    def _go_on(self, wanted: str | None) -> None:
        """See that the session is one that this program can use.

        Raises:
            SessionError: it has another store.
        """
        settings = self._directory.settings()
        if wanted not in {None, settings.store}:
            raise SessionError(
                f"the open session in {self._directory.path} stores its blocks in {settings.store}, not in "
                f"{wanted}; seal it first, or leave the store out"
            )
        mounts.detach_if_dead(Path(settings.mountpoint))

    def add(
        self,
        *sources: AnyPath,
        to: AnyPath = "",
        exclude: str | Iterable[str] = (),
        keep_going: bool = False,
        replace_links: bool = False,
        timeout: float = PATIENCE,
        check_content: bool = False,
        progress: Progress | None = None,
    ) -> AddSummary:
        """Put directories and files of this machine into the tree; returns when their blocks are stored.

        `/opt` becomes `opt`; what is in it goes to the top if the source is the text `/opt/.` (a `Path` drops
        the dot). Directories unite, also through links to directories; anything else is replaced. Owners,
        modes, times, links and devices are kept. A call takes some 0.3 s before it begins: many sources in
        one are quicker than many calls.

        Args:
            sources: What to add.
            to: The directory of the tree that they go to; made if need be.
            exclude: Patterns as in a .gitignore of what is left out.
            keep_going: Leave out what cannot be read or has no place, and name it in the summary.
            replace_links: Whether a directory takes the place of a link, instead of going where that leads.
            timeout: Seconds to wait while the store takes nothing.
            check_content: Fetch every block that is there already, and put right ones over wrong ones.
            progress: Is told how far it is.

        Raises:
            NoPlaceError: something has no place in the tree (a file where a directory is), and nothing was
                put there; it lists what.
            SourceError: `to` leads to no directory; or something cannot be read, and what was put before
                stays.
            StoreError: the store takes nothing.
            SessionError: the session has ended, or cannot be written.
            UsageError: there is no source, or a pattern makes no sense.
        """
        if not sources:
            raise UsageError("there is nothing to add; name a directory or a file")
        request = AddRequest(
            sources=tuple(absolute_source(os.fsdecode(source)) for source in sources),
            to=normal_target(os.fsdecode(to)),
            exclude=_patterns(exclude),
            keep_going=keep_going,
            timeout=timeout,
            measure=progress is not None,
            replace_links=replace_links,
            typed=tuple(map(os.fsdecode, sources)),
            check_content=check_content,
        )
        with self._used():
            return offline.add(self._directory, self._passwords, request, progress or quiet)

    def seal(
        self,
        out: AnyPath,
        *,
        force: bool = False,
        owner: tuple[int, int] | None = None,
        epoch: int | None = None,
        exclude: str | Iterable[str] = (),
        public_url: str | None = None,
        router: AnyPath | None = None,
        incomplete: bool = False,
        timeout: float = PATIENCE,
        check_content: bool = False,
        progress: Progress | None = None,
    ) -> SealSummary:
        """Check that the store has every block, make the flist, and end the session.

        After an error the session is kept, and can be sealed again.

        Args:
            out: The flist; it exists whole or not at all.
            force: Replace it if it exists.
            owner: (uid, gid) that everything is to belong to.
            epoch: Times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
            exclude: Patterns as in a .gitignore of what is left out.
            public_url: Where readers reach the store, if not at its URL.
            router: A router.yaml to be put into the flist.
            incomplete: Seal even if something was not added whole: a call of `add` failed, and was not made
                again.
            timeout: Seconds to wait while the store takes nothing.
            check_content: Fetch every block that the tree needs, and put right ones over wrong ones.
            progress: Is told how far it is.

        Raises:
            OutputError: the output exists or cannot be written.
            BlockMissingError: the store has lost blocks; the message names the files.
            StoreError: the store cannot be asked.
            SessionError: the session has ended, or something was not added whole.
            UsageError: an argument makes no sense.
        """
        options = SealOptions(_owner(owner), _epoch(epoch), _patterns(exclude))
        route = _router(router, public_url)
        request = SealRequest(_path(out), force, timeout, options, route, incomplete, check_content)
        with self._used():
            summary = offline.seal(self._directory, self._passwords, request, progress or quiet)
            self._end()
        return _seal_summary(summary)

    def abort(self) -> None:
        """Throw the session away. What the store has stays there.

        Raises:
            SessionError: the session has ended.
        """
        with self._used():
            self._directory.discard()
            self._end()

    def close(self) -> None:
        """Let go of the session; one that was not sealed is kept, and `Session` goes on with it."""
        with self._busy:
            self._end()

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Have the session for one call: others wait."""
        with self._busy:
            if not self._is_open:
                raise SessionError(f"the session in {self._directory.path} has ended, or was closed")
            yield

    def _end(self) -> None:
        self._is_open = False
        self._held.close()


@dataclass(frozen=True, slots=True)
class Packed:
    """What `pack` read, and what it made of it."""

    added: AddSummary
    sealed: SealSummary


def pack(
    source: AnyPath,
    out: AnyPath,
    *,
    store: str | os.PathLike[str] | None = None,
    password: str | None = None,
    force: bool = False,
    owner: tuple[int, int] | None = None,
    epoch: int | None = None,
    exclude: str | Iterable[str] = (),
    keep_going: bool = False,
    public_url: str | None = None,
    router: AnyPath | None = None,
    timeout: float = PATIENCE,
    check_content: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Make an flist of a directory or a tar archive, in one go; no session is left, whatever happens.

    Args:
        source: A directory, whose content goes to the top, or a tar archive.
        out: The flist; it exists whole or not at all.
        store: Where blocks go.
        password: The store's, if its URL has none.
        force: Replace the output if it exists.
        owner: (uid, gid) that everything is to belong to.
        epoch: Times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
        exclude: Patterns as in a .gitignore of what is left out.
        keep_going: Leave out what cannot be read, and name it in the summary.
        public_url: Where readers reach the store, if not at its URL.
        router: A router.yaml to be put into the flist.
        timeout: Seconds to wait while the store takes nothing.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        progress: Is told how far it is.

    Raises:
        SourceError: something cannot be read, or the archive is no good.
        OutputError: the output exists or cannot be written.
        StoreError: the store cannot be reached, or takes nothing.
        UsageError: an argument makes no sense.
    """
    url, secret = _store(None if store is None else _named_store(store), password)
    patterns = _patterns(exclude)
    options = SealOptions(_owner(owner), _epoch(epoch))
    request = SealRequest(
        _path(out), force, timeout, options, _router(router, public_url), check_content=check_content
    )
    check_output(request.out, force=force)  # before the hours that reading may take
    reading = AddRequest((), "", patterns, keep_going, timeout, measure=progress is not None)
    added, summary = offline.pack(
        str(_path(source)), url, USUAL_FORMAT, Passwords(secret, None), request, reading, progress or quiet
    )
    return Packed(added, _seal_summary(summary))


# Reading


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
    package: AnyPath, *, store: str | os.PathLike[str] | None = None, password: str | None = None
) -> Flist:
    """Open an flist: a package, or the directory that one was unpacked into.

    Args:
        package: The flist; nothing is written beside it.
        store: Where blocks are read from, once one is. Without it that is where the flist says that they are;
            if it says nothing, it is the directory of blocks of the user.
        password: The password of `store`, if its URL has none. Servers that only the flist names get none.

    Raises:
        FormatError: it is not there, damaged, or no flist.
        UsageError: the store makes no sense.
    """
    url, secret = (None, None) if store is None else _store(_named_store(store), password)
    return Flist(sealed.Flist.open(_path(package)), url, secret)


def merge(
    out: AnyPath,
    flists: Iterable[AnyPath],
    *,
    prefer: Literal["first", "last", "newer"] | None = None,
    replace_links: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Merge flists into one, without fetching a block. Directories unite, also through links to directories.

    Args:
        out: The result; it exists whole or not at all.
        flists: The flists, in the order that `prefer` speaks of.
        prefer: Which wins any other path that several have; `hidden` of the result names what is missing.
        replace_links: Whether a directory and a link are like any two things that differ.
        force: Replace the output if it exists.
        progress: Is told how far it is.

    Raises:
        PathsClashError: several have the same path, and none is preferred, or a link is where another has a
            directory that it does not lead to; its `clashes` says which.
        FormatError: one is not there, damaged, or has faults.
        OutputError: the output exists or cannot be written.
        UsageError: an argument makes no sense.
    """
    paths = _paths(flists)
    if not paths:
        raise UsageError("there is nothing to merge; name an flist")
    if prefer is not None and prefer not in set(Prefer):
        raise UsageError(f"prefer is {prefer!r}; it must be first, last or newer")
    with ExitStack() as opened:
        sources = [merging.Source(str(path), opened.enter_context(sealed.Flist.open(path))) for path in paths]
        wanted = None if prefer is None else Prefer(prefer)
        return merging.merge(
            sources,
            _path(out),
            prefer=wanted,
            replace_links=replace_links,
            force=force,
            progress=progress or quiet,
        )


# Arguments


def _path(path: AnyPath) -> Path:
    """Make a path absolute, so that a change of the working directory makes no difference."""
    return Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100  absolute() would keep `..`


def _paths(paths: AnyPath | Iterable[AnyPath]) -> list[Path]:
    return [_path(path) for path in ([paths] if isinstance(paths, str | bytes | os.PathLike) else paths)]


def _directory(state: Path) -> SessionDirectory:
    """Return the session directory; `flistfs status` finds one that is new by its own path.

    Raises:
        SessionError: it holds something else, or the user's state cannot be written.
    """
    directory = SessionDirectory(state)
    if directory.is_open():
        directory.settings()  # it is a session, of a version that we know: else nothing there may be touched
        return directory
    try:
        return directory_for(state, state)
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be written: {error.strerror}") from error


def _named_store(store: str | os.PathLike[str]) -> str:
    return named_store(os.fspath(store))


def _store(url: str | None, password: str | None) -> tuple[str, str | None]:
    """Take a store's password out of its URL."""
    parsed = parse_store_url(url or default_store_url(), password)
    return str(parsed), parsed.password or password


def _base(
    base: AnyPath | Iterable[AnyPath],
    store: str | os.PathLike[str] | None,
    password: str | None,
    *,
    replace_links: bool,
) -> tuple[BaseRequest | None, str | None]:
    """Say what a new session starts from, and the password of the store that its blocks are in."""
    named, secret = (None, password) if store is None else _store(_named_store(store), password)
    packages = tuple(str(path) for path in _paths(base))
    if not packages:
        if named is not None:
            raise UsageError("base_store belongs to base: it says where the blocks of that flist are")
        return None, secret
    return BaseRequest(packages, named, default_store_url(), replace_links), secret


def _patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    """Gather patterns; a text is one.

    Raises:
        UsageError: one makes no sense.
    """
    gathered = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    excluding(gathered)
    return gathered


def _owner(owner: tuple[int, int] | None) -> tuple[int, int] | None:
    if owner is not None and not all(0 <= number <= _MAX_ID for number in owner):
        raise UsageError(f"the owner is {owner}; it must be two numbers from 0 to {_MAX_ID}")
    return owner


def _epoch(epoch: int | None) -> int | None:
    if epoch is not None and epoch < 0:
        raise UsageError(f"the epoch is {epoch}; it must be whole seconds since 1970")
    return epoch


def _router(router: AnyPath | None, public_url: str | None) -> str | None:
    return router_for_readers(None if router is None else _path(router), public_url)


def _seal_summary(plain: dict[str, Any]) -> SealSummary:
    """Give what a session keeps of a seal its types back."""
    return SealSummary(**{**plain, "losses": Losses(**plain["losses"])})


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write what is logged of flistfs into a session's log as well; the program's logging stays as it is."""
    handler = with_format(logging.FileHandler(path, errors="backslashreplace"))
    logger = logging.getLogger("flistfs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
