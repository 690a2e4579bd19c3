"""A session's directory on the disk: its files, its lock, and how sessions are found.

Every session has an entry below the user's state directory, named after its mount point, so that a mount
point finds its session again. With a state directory of the user's choice the entry is a link to it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flistfs.authoring.state.lock import Holder, Lock
from flistfs.authoring.state.settings import PartialAdd, Result, Settings, State
from flistfs.errors import BusyError, JournalError, SessionError
from flistfs.format.base import Format
from flistfs.fuse import mounts
from flistfs.util.durable import sync_directory

SCHEMA = 1
"""Version of what lies in a session directory; another one is refused."""

STANDARD_INPUT = "-"
"""The source that is not read from a place of its own."""

# Seconds that a daemon may have its session without a mount: it opens it, or stores what is left.
_DAEMON_AT_WORK = 20.0

# Who only looks whether a session is locked locks it for a moment, in seconds at most.
_GLANCE = 0.5


@dataclass(frozen=True, slots=True)
class SessionDirectory:
    """The directory of one session."""

    path: Path

    @property
    def journal(self) -> Path:
        """The RocksDB of what must survive."""
        return self.path / "journal"

    @property
    def spool(self) -> Path:
        """The file of chunks that are not stored yet."""
        return self.path / "spool"

    @property
    def scratch(self) -> Path:
        """A directory for a catalog while it is made."""
        return self.path / "scratch"

    @property
    def view(self) -> Path:
        """A directory for the journal as it was when a seal began to read it."""
        return self.path / "view"

    @property
    def _routers(self) -> Path:
        """A directory for what flists say of where their blocks are."""
        return self.path / "routers"

    @property
    def _unfinished(self) -> Path:
        """A file that is there until all that the session starts from is in its journal."""
        return self.path / "unfinished"

    @property
    def _incomplete(self) -> Path:
        """A file that names what was not added whole, if there is anything."""
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
        """A file that says why the last session that was to be here never was; its form is a result's."""
        return self.path / "failed"

    @property
    def _settings(self) -> Path:
        return self.path / "session.json"

    def create(self, settings: Settings, *, unfinished: bool = False) -> None:
        """Start a session in this locked directory.

        What is left of one that ended is removed, save its log and its result, which stay until the new one
        is mounted. An `unfinished` one counts as none until `finish` is called, whatever happens: half of a
        tree must never be taken for the whole.
        """
        self.end()
        _write(self.path / "schema", str(SCHEMA))
        if unfinished:
            _write(self._unfinished, "")
        _write(self._settings, json.dumps(asdict(settings)))

    def finish(self) -> None:
        """Let the session be one from now on, also after a power cut."""
        remove_files(self._unfinished)
        sync_directory(self.path)

    def partial_adds(self) -> list[PartialAdd]:
        """Return what was not added whole: a seal of it would be one of half a tree.

        Raises:
            JournalError: the file that says so is damaged.
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
        """Note, also for after a power cut, that these are not added whole until `finish_adds` says so.

        Returns those of them that were not noted before.
        """
        noted = self.partial_adds()
        new = [add for add in dict.fromkeys(adds) if add not in noted]
        self._keep_partial([*noted, *new])
        return new

    def withdraw_adds(self, adds: Collection[PartialAdd]) -> None:
        """Forget that these were begun, since they were refused before anything was."""
        self._keep_partial(add for add in self.partial_adds() if add not in adds)

    def finish_adds(self, adds: Collection[PartialAdd]) -> None:
        """Note that these are added whole; what comes from standard input stands for all that does."""
        sources = {add.source for add in adds}
        self._keep_partial(
            add
            for add in self.partial_adds()
            if add not in adds and not (add.source == STANDARD_INPUT and STANDARD_INPUT in sources)
        )

    def _keep_partial(self, adds: Iterable[PartialAdd]) -> None:
        if plain := [asdict(add) for add in adds]:
            _write(self._incomplete, json.dumps(plain))
        else:
            remove_files(self._incomplete)
            sync_directory(self.path)

    def change_store(self, url: str) -> None:
        """Let the session go on with another store (a URL without a password)."""
        _write(self._settings, json.dumps(asdict(replace(self.settings(), store=url))))

    def keep_base_stores(self, url: str | None, routers: Iterable[bytes]) -> None:
        """Keep where the base's blocks are: at a URL, and where routers say; without passwords."""
        _write(self._settings, json.dumps(asdict(replace(self.settings(), base_store=url))))
        self._routers.mkdir(exist_ok=True)
        for number, router in enumerate(routers):
            _write(self._routers / f"{number:06}.yaml", router.decode())

    def base_routers(self) -> list[Path]:
        """Return the files of the routers that were kept, in their order."""
        return sorted(self._routers.glob("*.yaml"))

    def settings(self) -> Settings:
        """Read what the session was made with.

        Raises:
            SessionError: this is no session directory.
            JournalError: it is of an unknown version, or damaged.
        """
        try:
            schema = (self.path / "schema").read_text()
            raw = self._settings.read_text()
        except OSError:
            raise SessionError(f"{self.path} holds no session") from None
        if schema != str(SCHEMA):
            raise JournalError(
                f"the session in {self.path} was made by another version of flistfs (schema {schema[:10]!r}, "
                f"this one knows {SCHEMA}); seal it with that one"
            )
        try:
            plain = json.loads(raw)
            if plain.pop("generation", None) == 1:  # as the first versions of flistfs had it
                plain["format"] = "rocksdb"
            return Settings(**plain)
        except (ValueError, TypeError, AttributeError):
            raise JournalError(
                f"the session in {self.path} is damaged: {self._settings} is unreadable"
            ) from None

    def format(self) -> Format:
        """Return the format of what the session seals, and of its blocks; raises as `settings` does.

        Raises:
            FormatError: this version of flistfs does not know it.
        """
        from flistfs.format.opening import format_named  # noqa: PLC0415  most commands need no records

        return format_named(self.settings().format)

    def exists(self) -> bool:
        """Say whether there is a session, or the result of one."""
        return self._settings.exists() and (self.is_open() or self.result() is not None)

    def is_open(self) -> bool:
        """Say whether there is a session that was not sealed."""
        return self.journal.exists() and not self._unfinished.exists()

    def is_being_made(self) -> bool:
        """Say whether a process is about to start a session here."""
        return self._settings.exists() and not self.is_open() and self.is_locked()

    def lock(self, command: str = "") -> Lock:
        """Take the session for this process; the directory is made if need be.

        Args:
            command: What the process is, if it serves no mount: others say that they wait for it.

        Raises:
            SessionError: another process has it.
        """
        try:
            return self._lock(command)
        except OSError as error:
            raise SessionError(f"{self.path} cannot be written: {error.strerror}") from None

    def _lock(self, command: str) -> Lock:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_private()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _GLANCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Lock(descriptor, command)
            except BlockingIOError:
                # One that has died is still named, while somebody else is only looking.
                holder = self.holder()
                if (holder and Path(f"/proc/{holder.pid}").exists()) or time.monotonic() > deadline:
                    os.close(descriptor)
                    raise SessionError(
                        f"the session in {self.path} is in use by {holder or 'an unknown process'}"
                    ) from None
            time.sleep(0.01)

    def _make_private(self) -> None:
        """See that nobody else gets at the daemon's socket and at what was written.

        Raises:
            SessionError: the directory is another user's.
        """
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise SessionError(f"{self.path} belongs to another user; choose a directory of your own")
        if stat.S_IMODE(status.st_mode) & 0o077:
            self.path.chmod(0o700)

    def holder(self) -> Holder | None:
        """Return the process that took the session last and did not end cleanly: it has it, or died."""
        try:
            pid, _, command = (self.path / "lock").read_text().partition("\n")
            return Holder(int(pid), command)
        except (OSError, ValueError):
            return None

    def is_locked(self) -> bool:
        """Say whether a process has the session now."""
        return self._flock(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def wait_unlocked(self) -> None:
        """Wait until no process has the session (blocks)."""
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
        """Say what the session is like."""
        if self.is_locked():
            holder = self.holder()
            return State.BUSY if holder is not None and holder.command else State.MOUNTED
        if not self.is_open():
            return State.SEALED
        return State.UNMOUNTED if self.holder() is None else State.DIED

    def settled_state(self) -> State:
        """Say what the session is like, once a daemon whose mount has ended, or begins, is done with that.

        Blocks for some seconds at most; a process that then still has it is taken for a mounted daemon.

        Raises:
            BusyError: a command has it, or a program, without a mount.
        """
        deadline = time.monotonic() + _DAEMON_AT_WORK
        while (state := self.state()) is State.MOUNTED and time.monotonic() < deadline:
            if mounts.mount_at(Path(self.settings().mountpoint)) is not None:
                break
            time.sleep(0.02)
        if state is State.BUSY:
            raise BusyError(
                f"{self.holder() or 'a command'} is at work in the session of {self.settings().mountpoint}; "
                f"wait for it, or end it"
            )
        return state

    def write_result(self, result: Result) -> None:
        """Keep how a seal ended."""
        _write(self._result, json.dumps(asdict(result)))

    def write_failed_start(self, result: Result) -> None:
        """Keep why a session could not be started."""
        _write(self._failed_start, json.dumps(asdict(result)))

    def result(self) -> Result | None:
        """Read how the last seal ended."""
        return _read_result(self._result)

    def failed_start(self) -> Result | None:
        """Read why the session that was to be here since the last result could not be started."""
        return _read_result(self._failed_start)

    def forget_result(self) -> None:
        """Forget how the last seal ended, as something new has begun."""
        remove_files(self._result)
        remove_files(self._failed_start)

    def end(self) -> None:
        """Remove what a session needs no more that is over; its log and result stay."""
        self._drop_journal()
        files = (self.spool, self.control, self._unfinished, self._incomplete)
        for part in (*files, self.scratch, self.view, self._routers):
            remove_files(part)

    def discard(self) -> None:
        """Remove the session, whole: nothing of it is left to be sealed, or to be seen."""
        self.end()
        self.forget_result()
        remove_files(self._settings)

    def _drop_journal(self) -> None:
        """Let the session be over at once: half a journal must never be taken for one."""
        gone = self.path / "journal.gone"
        remove_files(gone)
        if self.journal.exists():
            self.journal.rename(gone)
            remove_files(gone)


def _read_result(path: Path) -> Result | None:
    try:
        return Result(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_directory(path.parent)


def remove_files(path: Path) -> None:
    """Remove a file or a directory with everything below it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
