"""A session's directory on disk: its files and its lock.

Every session has an entry below the user's state directory, named after its mount point, so that the session
can be found by mount point. If the user chose another state directory, the entry is a symbolic link to it.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flistfs.authoring.state.lock import Holder, Lock
from flistfs.authoring.state.settings import PartialAdd, Settings, State
from flistfs.authoring.summaries import Result
from flistfs.errors import BusyError, JournalError, SessionError
from flistfs.fuse import mounts
from flistfs.util.durable import remove_files, sync_directory, write_text

if TYPE_CHECKING:
    from flistfs.format.base import Format

SCHEMA = 1
"""Version of the layout of a session directory; any other version is refused."""

STANDARD_INPUT = "-"
"""The source name for standard input, which has no path."""

# Seconds a daemon may hold its session without a mount, while it opens it or stores the remaining chunks.
_DAEMON_AT_WORK = 20.0

# Testing whether a session is locked takes the lock for a moment, at most this long (seconds).
_LOCK_TEST_TIME = 0.5


@dataclass(frozen=True, slots=True)
class SessionDirectory:
    """The directory of one session."""

    path: Path

    @property
    def journal(self) -> Path:
        """The RocksDB database of everything that must survive."""
        return self.path / "journal"

    @property
    def spool(self) -> Path:
        """The file of chunks that are not stored yet."""
        return self.path / "spool"

    @property
    def scratch(self) -> Path:
        """A directory for the catalog while it is being written."""
        return self.path / "scratch"

    @property
    def view(self) -> Path:
        """A directory for the checkpoint of the journal that a seal reads."""
        return self.path / "view"

    @property
    def _routers(self) -> Path:
        """A directory for the routers of base flists, which name the servers of their blocks."""
        return self.path / "routers"

    @property
    def _base_metadata(self) -> Path:
        """A file with the metadata of base flists; absent if they have none."""
        return self.path / "base-metadata.json"

    @property
    def _unfinished(self) -> Path:
        """A file that exists until the session's initial content is completely in its journal."""
        return self.path / "unfinished"

    @property
    def _incomplete(self) -> Path:
        """A file that lists incomplete adds; absent if there are none."""
        return self.path / "incomplete"

    @property
    def control(self) -> Path:
        """The daemon's socket."""
        return self.path / "control"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.path / "log"

    @property
    def _result(self) -> Path:
        return self.path / "result"

    @property
    def _failed_start(self) -> Path:
        """A file with the reason why the last session here could not be started, in the form of a result."""
        return self.path / "failed"

    @property
    def _settings(self) -> Path:
        return self.path / "session.json"

    def create(self, settings: Settings, *, unfinished: bool = False) -> None:
        """Start a session in this locked directory.

        Files of an ended session are removed, except its log and result, which stay until the new one is
        mounted. An `unfinished` session does not exist for other processes until `finish` is called: half
        a tree must never be mistaken for the whole.
        """
        self.end()
        write_text(self.path / "schema", str(SCHEMA))
        if unfinished:
            write_text(self._unfinished, "")
        write_text(self._settings, json.dumps(asdict(settings)))

    def finish(self) -> None:
        """Mark the session as complete, durably: it exists for other processes from now on."""
        remove_files(self._unfinished)
        sync_directory(self.path)

    def partial_adds(self) -> list[PartialAdd]:
        """Return the incomplete adds; sealing now would seal half a tree.

        Raises:
            JournalError: the file that lists them is damaged.
        """
        try:
            return [PartialAdd(**each) for each in json.loads(self._incomplete.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError):
            raise JournalError(
                f"the session in {self.path} is damaged: {self._incomplete} is unreadable"
            ) from None

    def begin_adds(self, adds: Iterable[PartialAdd]) -> list[PartialAdd]:
        """Record durably that these adds are incomplete until `finish_adds` is called.

        Returns those that were not recorded before.
        """
        noted = self.partial_adds()
        new = [add for add in dict.fromkeys(adds) if add not in noted]
        self._keep_partial([*noted, *new])
        return new

    def withdraw_adds(self, adds: Collection[PartialAdd]) -> None:
        """Forget adds that were refused before they changed anything."""
        self._keep_partial(add for add in self.partial_adds() if add not in adds)

    def finish_adds(self, adds: Collection[PartialAdd]) -> None:
        """Record that these adds are complete; one add from standard input completes all such adds."""
        sources = {add.source for add in adds}
        self._keep_partial(
            add
            for add in self.partial_adds()
            if add not in adds and not (add.source == STANDARD_INPUT and STANDARD_INPUT in sources)
        )

    def _keep_partial(self, adds: Iterable[PartialAdd]) -> None:
        if plain := [asdict(add) for add in adds]:
            write_text(self._incomplete, json.dumps(plain))
        else:
            remove_files(self._incomplete)
            sync_directory(self.path)

    def change_store(self, url: str) -> None:
        """Continue the session with another store (a URL without a password)."""
        write_text(self._settings, json.dumps(asdict(replace(self.settings(), store=url))))

    def keep_base_stores(self, url: str | None, routers: Iterable[bytes]) -> None:
        """Record where the base's blocks are: a store URL and routers, both without passwords."""
        write_text(self._settings, json.dumps(asdict(replace(self.settings(), base_store=url))))
        self._routers.mkdir(exist_ok=True)
        for number, router in enumerate(routers):
            write_text(self._routers / f"{number:06}.yaml", router.decode())

    def keep_base_metadata(self, metadata: Mapping[str, bytes]) -> None:
        """Record the metadata that the flist has of its base."""
        if metadata:
            texts = {key: os.fsdecode(value) for key, value in metadata.items()}
            write_text(self._base_metadata, json.dumps(texts))

    def base_metadata(self) -> dict[str, bytes]:
        """Return what `keep_base_metadata` recorded.

        Raises:
            JournalError: it is damaged.
        """
        try:
            texts = json.loads(self._base_metadata.read_text())
            return {key: os.fsencode(text) for key, text in texts.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError):
            raise JournalError(
                f"the session in {self.path} is damaged: {self._base_metadata} is unreadable"
            ) from None

    def base_routers(self) -> list[Path]:
        """Return the files of the recorded routers, in order."""
        return sorted(self._routers.glob("*.yaml"))

    def settings(self) -> Settings:
        """Read the settings the session was created with.

        Raises:
            SessionError: this is not a session directory.
            JournalError: its version is unknown, or it is damaged.
        """
        try:
            schema = (self.path / "schema").read_text()
            raw = self._settings.read_text()
        except OSError:
            raise SessionError(f"{self.path} does not contain a session") from None
        if schema != str(SCHEMA):
            raise JournalError(
                f"the session in {self.path} was made by another version of flistfs (schema {schema[:10]!r}, "
                f"this one knows {SCHEMA}); seal it with that one"
            )
        try:
            plain = json.loads(raw)
            if plain.pop("generation", None) == 1:  # as the first versions of flistfs wrote it
                plain["format"] = "rocksdb"
            return Settings(**plain)
        except (ValueError, TypeError, AttributeError):
            raise JournalError(
                f"the session in {self.path} is damaged: {self._settings} is unreadable"
            ) from None

    def format(self) -> Format:
        """Return the format of the session's flist and blocks; raises what `settings` raises.

        Raises:
            FormatError: this version of flistfs does not know the format.
        """
        from flistfs.format.opening import format_named  # noqa: PLC0415  most commands do not need records

        return format_named(self.settings().format)

    def exists(self) -> bool:
        """Return whether there is a session or the result of one."""
        return self._settings.exists() and (self.is_open() or self.result() is not None)

    def is_open(self) -> bool:
        """Return whether there is a session that is not sealed yet."""
        return self.journal.exists() and not self._unfinished.exists()

    def is_being_made(self) -> bool:
        """Return whether a process is about to start a session here."""
        return self._settings.exists() and not self.is_open() and self.is_locked()

    def lock(self, command: str = "") -> Lock:
        """Lock the session for this process, creating the directory if necessary.

        Args:
            command: Name of the command, if the process serves no mount; shown to those that wait for it.

        Raises:
            SessionError: another process holds the lock.
        """
        try:
            return self._lock(command)
        except OSError as error:
            raise SessionError(f"{self.path} cannot be written: {error.strerror}") from None

    def _lock(self, command: str) -> Lock:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_private()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_TEST_TIME
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Lock(descriptor, command)
            except BlockingIOError:
                # The file still names a process that died, while another process only tests the lock.
                holder = self.holder()
                if (holder and Path(f"/proc/{holder.pid}").exists()) or time.monotonic() > deadline:
                    os.close(descriptor)
                    raise SessionError(
                        f"the session in {self.path} is in use by {holder or 'an unknown process'}"
                    ) from None
            time.sleep(0.01)

    def _make_private(self) -> None:
        """Deny other users access to the daemon's socket and to the files.

        Raises:
            SessionError: the directory belongs to another user.
        """
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise SessionError(f"{self.path} belongs to another user; choose a directory of your own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            self.path.chmod(0o700)

    def holder(self) -> Holder | None:
        """Return the process that locked the session last and did not release it: it holds it, or died."""
        try:
            pid, _, command = (self.path / "lock").read_text().partition("\n")
            return Holder(int(pid), command)
        except (OSError, ValueError):
            return None

    def is_locked(self) -> bool:
        """Return whether a process holds the session's lock now."""
        return self._flock(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def wait_unlocked(self) -> None:
        """Wait until no process holds the session's lock (blocks)."""
        self._flock(fcntl.LOCK_SH)

    def _flock(self, how: int) -> bool:
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def state(self) -> State:
        """Return the session's state."""
        if self.is_locked():
            holder = self.holder()
            return State.BUSY if holder is not None and holder.command else State.MOUNTED
        if not self.is_open():
            return State.SEALED
        return State.UNMOUNTED if self.holder() is None else State.DIED

    def settled_state(self) -> State:
        """Return the session's state, after waiting for a daemon that is mounting or unmounting.

        Blocks for a few seconds at most; a process that still holds it then is taken for a mounted daemon.

        Raises:
            BusyError: a command or program without a mount holds it.
        """
        deadline = time.monotonic() + _DAEMON_AT_WORK
        while (state := self.state()) is State.MOUNTED and time.monotonic() < deadline:
            if mounts.mount_at(Path(self.settings().mountpoint)) is not None:
                break
            time.sleep(0.02)
        if state is State.BUSY:
            raise BusyError(
                f"{self.holder() or 'a command'} is working on the session of {self.settings().mountpoint}; "
                f"wait for it, or stop it"
            )
        return state

    def write_result(self, result: Result) -> None:
        """Write the result of a seal."""
        write_text(self._result, json.dumps(result.as_dict()))

    def write_failed_start(self, result: Result) -> None:
        """Write the reason why a session could not be started."""
        write_text(self._failed_start, json.dumps(result.as_dict()))

    def result(self) -> Result | None:
        """Read the result of the last seal."""
        return _read_result(self._result)

    def failed_start(self) -> Result | None:
        """Read why a session here could not be started, if that was after the last result."""
        return _read_result(self._failed_start)

    def forget_result(self) -> None:
        """Remove the result of the last seal, because a new session has begun."""
        remove_files(self._result)
        remove_files(self._failed_start)

    def end(self) -> None:
        """Remove the files an ended session no longer needs; its log and result stay."""
        self._drop_journal()
        files = (self.spool, self.control, self._unfinished, self._incomplete, self._base_metadata)
        for part in (*files, self.scratch, self.view, self._routers):
            remove_files(part)

    def discard(self) -> None:
        """Remove the session completely, including its log and result."""
        self.end()
        self.forget_result()
        remove_files(self._settings)

    def _drop_journal(self) -> None:
        """End the session atomically: half a journal must never be mistaken for a whole one."""
        gone = self.path / "journal.gone"
        remove_files(gone)
        if self.journal.exists():
            self.journal.rename(gone)
            remove_files(gone)


def _read_result(path: Path) -> Result | None:
    try:
        return Result.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
