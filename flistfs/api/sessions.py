"""Sessions that a Python program has to itself, without a mount."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flistfs.api.arguments import AnyPath, StoreName, absolute_path, target_store
from flistfs.api.format_names import FormatName
from flistfs.api.process import logged_into
from flistfs.api.requests import add_request, base_request, checked_format, seal_request
from flistfs.authoring import offline
from flistfs.authoring.new_session import check_format, chosen_format, new_settings, session_directory
from flistfs.authoring.request import Passwords
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.summaries import AddSummary, SealSummary
from flistfs.errors import SessionError
from flistfs.format.metadata import MetadataChange
from flistfs.fuse import mounts
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.util.closing import Closing
from flistfs.util.progress import Progress, quiet


class Session(Closing):
    """A session without a mount: files are added to it, then it is sealed. A context manager.

    It lies in a state directory and outlives the program: what was added stays until it is sealed or aborted,
    and `flistfs status` shows it. One program has it at a time; threads may share it.
    """

    def __init__(
        self,
        state: AnyPath,
        *,
        store: StoreName | None = None,
        password: str | None = None,
        format: FormatName | None = None,  # noqa: A002  as the option is called
        min_replicas: int | None = None,
        base: AnyPath | Iterable[AnyPath] = (),
        base_store: StoreName | None = None,
        base_password: str | None = None,
        replace_links: bool = False,
        accept_faults: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Create the session of a state directory, or resume the one that is there.

        Args:
            state: The directory: one that is new, empty, or has held a session.
            store: Where blocks go. A session that is resumed has its store.
            password: The store's, if its URL has none. It is not kept: resuming needs it again.
            format: The format of the flist. A session that is resumed has its own. Default: that of `base`,
                else "rocksdb".
            min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
            base: Sealed flists whose tree a new session starts with, later ones on top; no block is fetched.
            base_store: Where their blocks are, if not where they say, nor in `store`.
            base_password: The password of `base_store`, which is not kept either.
            replace_links: Whether a directory of a base hides a link of one below it, instead of going to the
                directory that the link leads to.
            accept_faults: Take what is there of flists that have faults.
            progress: Called with a `Report` while a base is read.

        Raises:
            SessionError: another program has the session, it has another store or format, it is damaged, or
                the directory cannot hold one; or there is one to resume, and `base` is given.
            StoreError: a store cannot be reached.
            FormatError: a base is damaged, or holds what a session cannot.
            ClashError: in one base is a link where another has a directory that it does not lead to.
            UsageError: a store is invalid.
        """
        url, secret = target_store(store, password, min_replicas)
        request, base_secret = base_request(
            base, base_store, base_password, replace_links=replace_links, accept_faults=accept_faults
        )
        self._passwords = Passwords(secret, base_secret)
        self._directory = _directory_at(absolute_path(state).resolve())
        if not self._directory.is_open():
            offline.create(
                self._directory,
                self._passwords,
                new_settings(self._directory.path, url, chosen_format(checked_format(format), request)),
                progress or quiet,
                offline=False,
                base=request,
            )
        elif request is not None:
            raise SessionError(
                f"{self._directory.path} already has an open session; only a new one can start from an flist"
            )
        self._busy = threading.Lock()
        with ExitStack() as held:
            held.enter_context(offline.taken(self._directory, "a Python program"))
            self._resume(None if store is None else url, checked_format(format))
            held.enter_context(logged_into(self._directory))
            self._held = held.pop_all()
        self._is_open = True

    def _resume(self, wanted: str | None, format_: str | None) -> None:
        """Check that this program can use the session.

        Raises:
            SessionError: it has another store or format.
        """
        check_format(self._directory, format_)
        settings = self._directory.settings()
        if wanted not in {None, settings.store}:
            raise SessionError(
                f"the open session in {self._directory.path} stores its blocks in {settings.store}, not in "
                f"{wanted}; seal it first, or omit `store`"
            )
        mounts.detach_if_dead(Path(settings.mountpoint))

    def add(
        self,
        *sources: AnyPath,
        to: AnyPath = "",
        exclude: str | Iterable[str] = (),
        keep_going: bool = False,
        replace_links: bool = False,
        timeout: float = STORE_TIMEOUT,
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
            progress: Called with a `Report` as the work goes on.

        Raises:
            NoPlaceError: something has no place in the tree (a file where a directory is), and nothing was
                put there; it lists what.
            SourceError: `to` leads to no directory; or something cannot be read, and what was put before
                stays.
            StoreError: the store takes nothing.
            SessionError: the session has ended, or cannot be written.
            UsageError: there is no source, or a pattern is invalid.
        """
        request = add_request(
            sources,
            to=to,
            exclude=exclude,
            keep_going=keep_going,
            replace_links=replace_links,
            timeout=timeout,
            check_content=check_content,
            measure=progress is not None,
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
        metadata: MetadataChange | None = None,
        startup: bool = False,
        incomplete: bool = False,
        timeout: float = STORE_TIMEOUT,
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
            metadata: What the flist says besides its tree, beside what its base says.
            startup: Put a .startup.toml into the tree, which says how it is started.
            incomplete: Seal even if something was not added whole: a call of `add` failed, and was not made
                again.
            timeout: Seconds to wait while the store takes nothing.
            check_content: Fetch every block that the tree needs, and put right ones over wrong ones.
            progress: Called with a `Report` as the work goes on.

        Raises:
            OutputError: the output exists or cannot be written.
            BlockMissingError: the store has lost blocks; the message names the files.
            StoreError: the store cannot be asked.
            SessionError: the session has ended, or something was not added whole.
            UsageError: an argument is invalid.
        """
        request = seal_request(
            out,
            force=force,
            timeout=timeout,
            owner=owner,
            epoch=epoch,
            exclude=exclude,
            router=router,
            public_url=public_url,
            incomplete=incomplete,
            check_content=check_content,
            metadata=metadata,
            startup=startup,
        )
        with self._used():
            summary = offline.seal(self._directory, self._passwords, request, progress or quiet)
            self._end()
        return summary

    def abort(self) -> None:
        """Throw the session away. What the store has stays there.

        Raises:
            SessionError: the session has ended.
        """
        with self._used():
            self._directory.discard()
            self._end()

    def close(self) -> None:
        """Close the session; one that was not sealed is kept, and `Session` resumes it."""
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


def _directory_at(state: Path) -> SessionDirectory:
    """Return the session of a state directory; `flistfs status` finds one that is new by its own path.

    Raises:
        SessionError: it holds something else, or the user's state cannot be written.
    """
    directory = SessionDirectory(state)
    if directory.is_open():
        directory.settings()  # it is a session, of a version that we know: else nothing there may be touched
        return directory
    return session_directory(state, state)
