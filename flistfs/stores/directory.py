"""A store in a local directory: one file per block.

    a/b/abcd…     a block, named by its hash
    tmp/          files that are being written, renamed into place when they are complete

Two levels of 16 names each, so that a store of millions of blocks has a few thousand files in a directory,
and one of a few thousand does not get a directory for each: with 65,536 directories the first blocks took
1.5 times as long.

Several processes may use one directory. A block is written without being flushed: `sync` flushes all of
them at once, which is many times faster. After a power cut before a `sync` some file systems show such a
block as an empty or a short file: it counts as missing, where its size is known, and `put` replaces it.

The directory itself may be a link. No link in it is followed, whoever created it: one in the place of a
directory is an error, and one in that of a block counts as missing, like anything but a regular file.

What a power cut or a bad disk made of a block of the right size shows only when it is compared with its name,
and while the machine runs it does not come to be. So a block is compared once from one start of the machine
to the next: then its modification time is set to a whole second shortly before, as is that of a block which
was just written, and its change time says when that was. Whoever else writes into the file makes both times
the same, and setting the modification time, as `cp -p` and rsync do, moves the change time away from it.
Only within seconds of the comparison that goes unseen.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError
from flistfs.stores.base import MAX_BLOCK_SIZE, check_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flistfs.format.base import Block, Codec

_NAME: Final = re.compile(r"[0-9a-f]{8,255}")
_LEFTOVER_AGE: Final = 24 * 3600.0  # seconds; writing a block never takes a day
_IOV_MAX: Final = 1024  # UIO_MAXIOV in Linux

# Seconds from the modification time to the change time of a block that was compared: as marked, and the
# accepted bounds. Times may be whole seconds, and the rename of a new block may take a while.
_MARK: Final = 3
_LEAST_MARK, _LARGEST_MARK = 2, 10

_REFUSALS: Final = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "part of the path is not a directory",
    errno.EEXIST: "part of the path is not a directory",
}


class DirectoryStore:
    """A `Store` in a directory, which is created (mode 0700) when it is first needed."""

    def __init__(self, path: Path, codec: Codec) -> None:
        if not path.is_absolute():
            raise ValueError("the path of a directory store must be absolute")
        self._path = path
        self._codec = codec
        self._root = os.fspath(path)
        self._tmp = path / "tmp"
        self._tmp_root = os.fspath(self._tmp)
        self._sweep()

    @property
    def codec(self) -> Codec:
        """The codec of its blocks."""
        return self._codec

    @property
    def url(self) -> str:
        """The directory as a `dir://` URL."""
        return f"dir://{quote(self._path.as_posix(), errors='surrogateescape')}"

    @property
    def readers_router(self) -> None:
        """None: readers fetch from servers."""

    @property
    def unreadable(self) -> str:
        """Readers can use none of it."""
        return f"readers fetch from servers, not from {self.url}"

    @property
    def trouble(self) -> None:
        """None: a directory works or it does not."""

    def check(self) -> None:
        """Create the directory if it does not exist, and check that it can be read."""
        with self._errors_translated("open"):
            self._make_directory()
            os.close(os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Check for each block's file."""
        known = sizes or {}
        checked: set[str] = set()
        with self._errors_translated("look into"):
            return {hash_ for hash_ in hashes if not self._is_whole(hash_, known.get(hash_), checked)}

    def put(self, blocks: Sequence[Block]) -> None:
        """Write the blocks that are missing or corrupt, each to a temporary file renamed into place."""
        for block in blocks:
            check_size(block, self._codec, self.url)
            file = self._file(block.hash)
            with self._errors_translated("write to"):
                if not self._is_stored(file, block):
                    self._write(file, block.parts)

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002, ARG002  the protocol's
        """Read one block's file; refuse one that is larger than any block."""
        values = self.copies(hash)
        if not values:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash)}")
        (value,) = values
        if len(value) > MAX_BLOCK_SIZE:
            raise StoreError(
                f"{self.url}: the file of block {self._codec.show(hash)} is too large to be a block"
            )
        return value

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Read the block's file; only the beginning of one that is too large to be a block."""
        with self._errors_translated("read"):
            try:
                value = _read(self._file(hash))
            except FileNotFoundError:
                value = b""
        return [value] if value else []

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Compare the blocks' files with their names, and record when that was done."""
        booted = _booted()
        with self._errors_translated("read"):
            return {hash_ for hash_ in hashes if self._is_wrong(hash_, thorough=thorough, booted=booted)}

    def sync(self) -> None:
        """Flush the file system that holds the directory."""
        with self._errors_translated("flush"):
            try:
                directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # nothing was ever stored
            try:
                _syncfs(directory)
            finally:
                os.close(directory)

    def close(self) -> None:
        """Do nothing: no files are kept open."""

    def _file(self, hash_: bytes, checked: set[str] | None = None) -> str:
        """Return a block's path; the directories in `checked` were just found not to be links."""
        # The only guard between a hash from an untrusted flist and a path.
        name = self._codec.show(hash_)
        if not _NAME.fullmatch(name):
            raise StoreRefusedError(f"{self.url} names blocks in lower-case hex; {hash_!r:.40} is not")
        directory = f"{self._root}/{name[0]}/{name[1]}"
        if checked is None or directory not in checked:
            self._refuse_link(f"{self._root}/{name[0]}")
            self._refuse_link(directory)
            if checked is not None:
                checked.add(directory)
        return f"{directory}/{name}"

    def _refuse_link(self, directory: str) -> None:
        """Raise StoreRefusedError if a directory of the store is a symbolic link."""
        if os.path.islink(directory):
            raise StoreRefusedError(f"{directory} is a symbolic link instead of a directory: remove it")

    def _is_whole(self, hash_: bytes, wanted: int | None, checked: set[str]) -> bool:
        found = self._stored_size(self._file(hash_, checked))
        return found > 0 and (wanted is None or found == wanted)

    def _is_wrong(self, hash_: bytes, *, thorough: bool, booted: float) -> bool:
        file = self._file(hash_)
        try:
            if not thorough and _was_compared(os.lstat(file), booted):
                return False
            value = _read(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.EIO:  # the disk has lost it
                return True
            raise
        if not value:
            return False  # missing
        if not self._codec.has_hash(value, hash_):
            return True
        with contextlib.suppress(OSError):  # owned by another user: it is compared again next time
            _note_compared(file)
        return False

    def _is_stored(self, file: str, block: Block) -> bool:
        if self._stored_size(file) != block.size:
            return False
        try:
            return _read(file) == block.stored
        except OSError:  # an unreadable file is rewritten
            return False

    def _stored_size(self, file: str) -> int:
        try:
            status = os.lstat(file)
        except FileNotFoundError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def _write(self, file: str, parts: Sequence[bytes]) -> None:
        aside = f"{self._tmp_root}/{os.path.basename(file)}.{secrets.token_hex(8)}"
        try:
            descriptor = self._create(aside)
            try:
                _write_all(descriptor, parts)
                _note_compared(descriptor)
            finally:
                os.close(descriptor)  # some network file systems report a full disk only here
            self._rename(aside, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def _create(self, aside: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._refuse_link(self._tmp_root)
        try:
            return os.open(aside, flags, 0o666)
        except FileNotFoundError:
            self._make_directory()
            self._tmp.mkdir(exist_ok=True)
            return os.open(aside, flags, 0o666)

    def _rename(self, aside: str, file: str) -> None:
        try:
            os.rename(aside, file)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            os.rename(aside, file)

    def _make_directory(self) -> None:
        # Only the store's own directory is private: mode 0700 on its parents would be surprising.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self._path.mkdir(mode=0o700)

    def _sweep(self) -> None:
        """Remove temporary files left behind by writers that died; never fails."""
        oldest = time.time() - _LEFTOVER_AGE
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError), _opened(self._tmp_root, flags) as tmp, os.scandir(tmp) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.name, dir_fd=tmp)

    @contextlib.contextmanager
    def _errors_translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = _REFUSALS.get(error.errno or 0)
            if reason is not None:
                raise StoreRefusedError(f"cannot {what} {self.url}: {reason}") from error
            raise StoreError(f"cannot {what} {self.url}: {error.strerror or error}") from error


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _booted() -> float:
    """Return when the machine booted, by the clock of file times."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _was_compared(status: os.stat_result, booted: float) -> bool:
    if status.st_mtime_ns % 10**9:
        return False
    mark = (status.st_ctime_ns - status.st_mtime_ns) / 10**9
    return _LEAST_MARK <= mark < _LARGEST_MARK and booted <= status.st_ctime_ns / 10**9 <= time.time()


def _note_compared(file: str | int) -> None:
    marked = int(time.time()) - _MARK
    os.utime(file, (marked, marked))


def _read(file: str) -> bytes:
    """Read at most one byte more than a block can have; what is not a regular file has none."""
    try:
        with _opened(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return b""
            with open(descriptor, "rb", buffering=0, closefd=False) as opened:
                return opened.read(min(status.st_size, MAX_BLOCK_SIZE) + 1) or b""
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link; a socket
            return b""
        raise


def _write_all(descriptor: int, parts: Sequence[bytes]) -> None:
    views = [memoryview(part) for part in parts if part]
    while views:
        written = os.writev(descriptor, views[:_IOV_MAX])
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _syncfs(directory: int) -> None:
    """Flush one file system and report failed writes; Python has no function for it."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except AttributeError:  # a C library without it
        os.sync()
        return
    if syncfs(ctypes.c_int(directory)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
