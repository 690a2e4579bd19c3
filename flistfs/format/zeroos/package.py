"""The package, the file of a sealed flist: a gzip-compressed tar of a catalog's files.

Readers open every member as a plain file in one directory, so a package has plain files at the top level and
nothing else: no directory, not even `./`. Which files those are is a matter of the format: see `Members`.

A package is not trusted. Unpacking uses only a member's content and its validated name.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from flistfs.errors import FormatError, OutputError
from flistfs.util.tarstream import TarStream

MAX_UNPACKED: Final = 4 << 30
"""The maximum unpacked bytes of a package: records of some ten million files."""

FREE_UNPACKED: Final = 256 << 20
"""Unpacked bytes that are allowed for even the smallest package."""

MAX_RATIO: Final = 50
"""The maximum compression ratio beyond that; the records of equal files reach 20."""

MAX_MEMBERS: Final = 10_000
"""The maximum number of members; RocksDB splits tables at 2 MB or more."""

ROUTER_FILE: Final = "router.yaml"
"""The member of a package that says where its blocks are."""

_DOT_FAULT: Final = (
    "the package has a member `./`, which readers fail to open: pack its files, not their directory"
)
_GZIP: Final = b"\x1f\x8b"
_LEVEL: Final = 6  # 36 MB/s on the catalog of a real flist; level 9 reaches 7 MB/s, for 1.3 % less
_COPY_SIZE: Final = 1 << 20
_MAX_PEEK: Final = 128 << 20  # a router has at most some 10 MB
_PLAIN_TYPES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


@dataclass(frozen=True, slots=True)
class Members:
    """The files that packages of a format consist of, as patterns of their names.

    Attributes:
        needed: The name of the file without which there is no catalog.
        packed: What is written.
        taken: What is unpacked; anything else is skipped.
        pending: What holds records that are not in a table yet, and must be empty where a package is written.
    """

    needed: str
    packed: re.Pattern[str]
    taken: re.Pattern[str]
    pending: re.Pattern[str]


def write_package(directory: Path, members: Members, out: BinaryIO) -> None:
    """Write the catalog in `directory`, and the router.yaml beside it if there is one, to `out` as a package.

    Members are sorted by name, with fixed times, owners and modes, and the gzip header has no name: equal
    files give equal bytes. Memory use is constant.

    Raises:
        FormatError: the directory holds no catalog, or one with records in a log, which would be left out.
        OSError: the directory cannot be read, or `out` cannot be written.
    """
    files = _files(directory, members)
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member in files:
            with member.open("rb") as content:
                archive.addfile(_header(member), content)


def unpack_package(
    package: Path, directory: Path, members: Members, *, limit: int | None = None
) -> list[str]:
    """Unpack what belongs to the catalog in the file `package` into `directory`, which is made if need be.

    Returns the package's faults for readers, though it can be unpacked. Members that are not needed for
    reading are skipped, as is one for the top directory itself, which old packages have, named `/`. `limit`
    bounds the bytes of all members in the archive, skipped or not; by default it is `FREE_UNPACKED`, or
    `MAX_RATIO` times the size of `package`, and never more than `MAX_UNPACKED`. Files unpacked before an
    error are left in `directory`.

    Raises:
        FormatError: `package` cannot be read; is not a gzip-compressed tar, or is damaged; holds a member
            that is not a plain file at the top level, or one twice; holds more than `limit` bytes or
            `MAX_MEMBERS` members; or lacks the file that is needed.
        OutputError: `directory` cannot be written.
    """
    try:
        raw = package.open("rb")
    except FileNotFoundError:
        raise FormatError(f"there is no file {package}") from None
    except OSError as error:
        raise FormatError(f"cannot read {package}: {error.strerror}") from error
    with raw:
        if limit is None:
            limit = min(max(FREE_UNPACKED, MAX_RATIO * os.fstat(raw.fileno()).st_size), MAX_UNPACKED)
        try:
            stream = TarStream(gzip.GzipFile(fileobj=raw, mode="rb"), "gzip file", limit)
            return _unpack(stream, directory, members)
        except FormatError as error:
            raise FormatError(f"{package} is not a readable flist: {error}") from error


def is_gzipped(path: Path) -> bool:
    """Return whether a file begins as a gzip file does, as every package."""
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def holds(package: Path, members: Members) -> bool:
    """Return whether the first file of a package, but for its router, is the one that the members need.

    Only as much is read as that takes. What is damaged before that is no package of any format.
    """
    with package.open("rb") as raw:
        stream = TarStream(gzip.GzipFile(fileobj=raw, mode="rb"), "gzip file", _MAX_PEEK)
        try:
            with stream.open() as archive:
                names = (
                    member.name.removeprefix("./") for member in stream.members(archive) if member.isfile()
                )
                return next((name for name in names if name != ROUTER_FILE), None) == members.needed
        except (tarfile.TarError, ValueError, OverflowError, FormatError):
            return False


def link_package(unpacked: Path, directory: Path, members: Members) -> None:
    """Put links to what belongs to the catalog in the directory `unpacked` into `directory`.

    Opening a catalog leaves files next to it: with links the user's directory stays unchanged, and large
    tables are not copied.

    Raises:
        FormatError: `unpacked` cannot be read, or lacks the file that is needed.
        OutputError: `directory` cannot be written.
    """
    try:
        files = [path for path in unpacked.iterdir() if members.taken.fullmatch(path.name) and path.is_file()]
    except OSError as error:
        raise FormatError(f"cannot read {unpacked}: {error.strerror}") from error
    if not any(file.name == members.needed for file in files):
        raise FormatError(f"{unpacked} is not an unpacked flist: there is no {members.needed} in it")
    try:
        for member in files:
            (directory / member.name).symlink_to(member.resolve())
    except OSError as error:
        raise OutputError(f"cannot write into {directory}: {error.strerror}") from error


def _files(directory: Path, members: Members) -> list[Path]:
    files = sorted(path for path in directory.iterdir() if path.is_file())
    for path in files:
        if members.pending.fullmatch(path.name) and path.stat().st_size > 0:
            raise FormatError(f"the catalog in {directory} has records in {path.name}, not all in tables")
    if not (directory / members.needed).is_file():
        raise FormatError(f"there is no catalog in {directory}")
    return [path for path in files if members.packed.fullmatch(path.name)]


def _header(member: Path) -> tarfile.TarInfo:
    header = tarfile.TarInfo(member.name)
    header.size = member.stat().st_size
    header.mode = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH
    return header  # TarInfo's defaults: time 0, owner and group 0 without names


def _unpack(source: TarStream, directory: Path, members: Members) -> list[str]:
    seen: set[str] = set()
    faults: list[str] = []
    try:
        with source.open() as archive:
            directory.mkdir(parents=True, exist_ok=True)
            for count, member in enumerate(source.members(archive), 1):
                if count > MAX_MEMBERS:
                    raise FormatError(f"it has more than {MAX_MEMBERS} members")
                name = _checked_name(member)
                if name is None:
                    if member.name == ".":
                        faults.append(_DOT_FAULT)
                    continue
                if name in seen:
                    raise FormatError(f"member {name!r} occurs twice")
                seen.add(name)
                _copy(archive, member, directory / name if members.taken.fullmatch(name) else None)
        source.drain()
    except (tarfile.TarError, ValueError, OverflowError) as error:
        # tarfile raises ValueError for an invalid number or text in an extended header.
        raise FormatError(f"it is not a tar archive, or is damaged ({error})") from error
    except OSError as error:
        raise OutputError(f"cannot unpack into {directory}: {error.strerror}") from error
    if members.needed not in seen:
        raise FormatError(f"it has no member {members.needed}")
    return faults


def _checked_name(member: tarfile.TarInfo) -> str | None:
    """Return the name of a plain file at the top level, or None for the top directory itself."""
    if member.isdir() and member.name in ("", ".", "/"):
        return None
    if member.type not in _PLAIN_TYPES or member.issparse():
        raise FormatError(f"member {member.name!r} is not a plain file")
    name = member.name.removeprefix("./")
    if "/" in name or name in ("", ".", "..") or not name.isprintable():
        raise FormatError(f"member {member.name!r} is not at the top level, or has an invalid name")
    return name


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path | None) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise FormatError(f"member {member.name!r} has no content")
    if target is None:
        while content.read(_COPY_SIZE):
            pass
        return
    # "x": an existing file, or a link to elsewhere, is not written to.
    with target.open("xb") as file:
        while data := content.read(_COPY_SIZE):
            file.write(data)
