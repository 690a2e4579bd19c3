"""Atomic output: write an flist to a temporary file, flush it, and publish it whole or not at all.

The temporary file has no name (O_TMPFILE): no other process can open it, and it disappears with its process.
If the file system lacks O_TMPFILE, it is a new file beside the output with an unguessable name; one left by a
killed process is removed by the next process (see `scratch`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from flistfs.errors import OutputError
from flistfs.util.closing import Closing
from flistfs.util.durable import sync_directory
from flistfs.util.scratch import Scratch

_KINDS: Final = {
    stat.S_IFDIR: "a directory; name a file in it",
    stat.S_IFLNK: "a symbolic link; name a regular file",
    stat.S_IFCHR: "a device; name a file",
    stat.S_IFBLK: "a device; name a file",
    stat.S_IFIFO: "a pipe; name a file",
    stat.S_IFSOCK: "a socket; name a file",
}

# Errors of open(2) for O_TMPFILE if the file system or the kernel lacks it.
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})

# renameat2(2): refuse to replace anything.
_RENAME_NOREPLACE: Final = 1


class OutputFile(Closing):
    """A package being written. A context manager: the file is discarded unless it was published."""

    def __init__(self, out: Path, *, force: bool) -> None:
        """Open the temporary file of `out`, with the mode that the umask gives a new file.

        Raises:
            OutputError: as `check_output`.
        """
        self._out = out
        self._force = force
        self._name: str | None = None  # in the output's directory, if it has one
        refuse_existing(out, force=force)
        with ExitStack() as held, _explained(out):
            self._directory = os.open(out.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, self._directory)
            self._descriptor = self._open(held)
            held.callback(os.close, self._descriptor)
            self._held = held.pop_all()

    @property
    def size(self) -> int:
        """The number of bytes written."""
        return os.fstat(self._descriptor).st_size

    @property
    def readable(self) -> Path:
        """A path at which this process can read the content, while this is open."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def write(self, work: Callable[[BinaryIO], object]) -> None:
        """Call `work` to write the content, replacing earlier content, and flush it to disk.

        Raises:
            OSError: writing failed, such as on a full disk.
        """
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with open(self._descriptor, "wb", closefd=False) as file:
            work(file)
        os.fsync(self._descriptor)

    def publish(self) -> None:
        """Move the finished package into place atomically.

        Raises:
            OutputError: the output was created meanwhile, or its directory cannot be written.
        """
        with _explained(self._out):
            if self._force:
                refuse_existing(self._out, force=True)
                self._replace()
            else:
                self._link()
        with suppress(OSError):  # already published; a write-only directory cannot be opened for this
            sync_directory(self._out.parent)

    def close(self) -> None:
        """Close the file, and remove it unless it was published."""
        self._held.close()

    def _open(self, held: ExitStack) -> int:
        if Path("/proc/self/fd").is_dir():
            try:
                return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._directory)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
        scratch = held.enter_context(Scratch())
        self._name = _random_name()
        held.callback(self._forget_name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._name, flags, 0o666, dir_fd=self._directory)
        scratch.note(self._out.with_name(self._name), descriptor)
        return descriptor

    def _replace(self) -> None:
        """Rename the file to the output's name, replacing any file."""
        name = self._name or _random_name()
        try:
            if self._name is None:
                # There is a temporary name for a moment, which a kill would leave behind.
                self._held.enter_context(Scratch()).note(self._out.with_name(name), self._descriptor)
                self._link_as(name)
            os.rename(name, self._out.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
            raise

    def _link(self) -> None:
        """Link the file under the output's name, unless that exists."""
        try:
            self._link_as(self._out.name)
        except FileExistsError:
            raise
        except OSError:
            if self._name is None:
                raise
            _rename_exclusively(
                self._directory, self._name, self._out.name
            )  # a file system without hard links

    def _link_as(self, name: str) -> None:
        if self._name is None:
            # With a directory descriptor this is linkat(2), which follows the link in /proc.
            os.link(f"/proc/self/fd/{self._descriptor}", name, dst_dir_fd=self._directory)
        else:
            os.link(
                self._name,
                name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
                follow_symlinks=False,
            )

    def _forget_name(self) -> None:
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)


def check_output(out: Path, *, force: bool) -> None:
    """Reject an output that exists (unless `force`), is not a regular file, or cannot be written.

    Raises:
        OutputError: one of these holds.
    """
    refuse_existing(out, force=force)
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OutputError(f"{out.parent} cannot be written: {error.strerror}") from error


def refuse_existing(out: Path, *, force: bool) -> None:
    """Reject an existing output; with `force` only if it is not a regular file.

    A dangling link is replaced. A link with a target is rejected, since it may be /dev/stdout.

    Raises:
        OutputError: the output exists or is not a regular file.
    """
    with _explained(out):
        try:
            mode = out.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode) and (out.exists() or not stat.S_ISLNK(mode)):
            raise OutputError(f"{out} is {_KINDS.get(stat.S_IFMT(mode), 'not a regular file; name one')}")
        if not force:
            raise OutputError(f"{out} exists; `force` replaces it")


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise OutputError(f"{out} was created meanwhile; `force` replaces it") from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error


def _random_name() -> str:
    return f".flistfs-{secrets.token_hex(16)}.part"


def _rename_exclusively(directory: int, name: str, new_name: str) -> None:
    """Rename a file in a directory, unless the new name exists: renameat2(2), which Python lacks.

    Raises:
        OSError: the rename failed; FileExistsError if the new name exists.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without it
        code = errno.ENOSYS
    else:
        if rename(directory, os.fsencode(name), directory, os.fsencode(new_name), _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code))
    # The file system supports neither: the name may still be created between these two lines.
    with suppress(FileNotFoundError):
        os.stat(new_name, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError
    os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=directory)
