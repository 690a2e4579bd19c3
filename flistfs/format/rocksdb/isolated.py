"""Convert databases of any kind to a catalog, by RocksDB in a process of its own.

Old packages have records in a log, several tables, or tables of other kinds. RocksDB reads them all, but
crashes on damaged ones: so it runs in a process whose crash is an error like any other. That process has
bounded memory, time and output, cannot gain privileges, only reads the one and writes the other, and is
killed when its parent ends. Its output is read like any catalog.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from flistfs.errors import FlistfsError, FormatError, OutputError

# Bytes of address space: RocksDB uses some 200 MiB of it for the real flist of 2017, most of it untouched.
_MEMORY: Final = 2 << 30
# Seconds of CPU time: a million records take 5.
_CPU_TIME: Final = 60
_WAIT: Final = 10 * _CPU_TIME
# RocksDB keeps as many tables open as it may; a package has at most 10,000 members.
_OPEN_FILES: Final = 256
# Bytes written for each byte read: snappy's largest ratio is 21.
_OUTPUT_RATIO: Final = 32
_SPARE_OUTPUT: Final = 64 << 20

# prctl(2)
_SET_DEATH_SIGNAL: Final = 1
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVILEGES: Final = 38


def rewrite_catalog(source: Path, target: Path) -> None:
    """Write the records of the database in the directory `source` as a catalog into `target` (blocks).

    RocksDB leaves its own files in `source`.

    Raises:
        FormatError: RocksDB cannot open it, rejects its content, crashes on it, or takes too long.
        OutputError: the disk for temporary files is full.
    """
    # -P: the user's current directory must not be searched for modules.
    command = [sys.executable, "-P", "-m", __name__, str(source), str(target)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_environment(),
    ) as process:
        try:
            said, _ = process.communicate(timeout=_WAIT)
        except subprocess.TimeoutExpired:
            raise FormatError(f"RocksDB did not finish within {_WAIT} seconds") from None
        finally:
            process.kill()
    code = process.returncode
    message = said.decode(errors="replace").strip() or f"RocksDB failed with code {code}"
    if code < 0:
        raise FormatError(f"RocksDB crashed on it ({_signal_name(-code)})")
    if code == OutputError.exit_code:
        raise OutputError(message)
    if code:
        raise FormatError(message)


def main() -> NoReturn:
    """Run the process: its arguments are two directories; it reports errors on standard output."""
    source, target = map(Path, sys.argv[1:])
    _confine(_size(source))
    try:
        _rewrite(source, target)
    except FlistfsError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end(f"temporary files cannot be written: {error.strerror}", OutputError.exit_code)
    except MemoryError:
        _end("reading it requires too much memory", FormatError.exit_code)
    _end("", 0)


def _rewrite(source: Path, target: Path) -> None:
    from flistfs.format.rocksdb.catalog import write_catalog  # noqa: PLC0415  RocksDB is loaded once it is confined

    write_catalog(target, _records(source))


def _records(source: Path) -> Iterator[tuple[bytes, bytes]]:
    from rocksdict import AccessType, Options, Rdict  # noqa: PLC0415  the same

    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.set_max_open_files(_OPEN_FILES // 2)
    try:
        database = Rdict(str(source), options=options, access_type=AccessType.read_only())
        cursor = database.iter()
        cursor.seek_to_first()
        while cursor.valid():
            yield cursor.key(), cursor.value()
            cursor.next()
        cursor.status()
    except Exception as error:
        # rocksdict has no class for RocksDB's errors: it raises plain Exception.
        raise FormatError(" ".join(str(error).split())) from error


def _confine(size: int) -> None:
    """Drop all rights that reading `size` bytes does not need."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for who waits for this process, and kills it then
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_SET_DEATH_SIGNAL, signal.SIGKILL),
        (_SET_DUMPABLE, 0),
        (_SET_NO_NEW_PRIVILEGES, 1),
    ):
        libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)
    for limit, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _CPU_TIME + (size >> 20)),
        (resource.RLIMIT_FSIZE, _OUTPUT_RATIO * size + _SPARE_OUTPUT),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, allowed = resource.getrlimit(limit)
        bound = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(limit, (bound, bound))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())


def _end(message: str, code: int) -> NoReturn:
    os.write(1, message.encode(errors="replace"))
    os._exit(code)  # runs no exit handlers of RocksDB


def _environment() -> dict[str, str]:
    """Return the environment that Python needs to start: no password, and none of Python's own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FLISTFS_")}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    main()
