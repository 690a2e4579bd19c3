"""Bringing an flist, a directory or an archive to a hub, in the way that costs least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from flistfs.errors import FormatError, HubRefusedError, StoreError
from flistfs.hub import archives
from flistfs.hub.checksums import md5_of
from flistfs.hub.client import HubClient, parts_of
from flistfs.hub.names import SUFFIX
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist
from flistfs.reading.push import push
from flistfs.stores import Store, open_store
from flistfs.util.progress import Progress, Report

Way: TypeAlias = Literal["flist", "archive"]

_TAKEN: Final = "sqlite"
"""The format that hubs take."""

_ARCHIVE_SENT: Final = (
    f"hubs take flists of the format {_TAKEN} only, so an archive was sent; what flistfs convert makes with "
    f"`format` {_TAKEN} is kept as it is"
)

_BLOCKS_PORT: Final = 9980
"""Where the public hub takes blocks from who has a token."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a hub has now.

    Attributes:
        repository: Where it is.
        name: What it is called there.
        url: Where it is downloaded.
        md5: That of the package.
        way: What was sent: an flist, which was kept as it is, or an archive, of which the hub made one.
        new_blocks: How many blocks were sent before; none with an archive.
        notes: What else a user may want to know.
    """

    repository: str
    name: str
    url: str
    md5: str
    way: Way
    new_blocks: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the blocks of an flist are: a URL without a password, if the user named one."""

    store: str | None = None
    password: str | None = None
    usual: str | None = None


def publish(
    client: HubClient,
    source: Path,
    name: str,
    origin: Origin,
    token: str | None,
    progress: Progress,
    *,
    blocks: str | None = None,
    as_archive: bool = False,
) -> Published:
    """Bring a source to a hub, in the repository that the client's token acts for.

    Args:
        client: Asks the hub.
        source: A sealed flist, a directory, or an archive.
        name: What it is called there.
        origin: Where the blocks of an flist are.
        token: What the hub's server of blocks knows the user by.
        progress: Called with a `Report` as it goes.
        blocks: The URL of that server. Default: where the hub tells, or the public one has it.
        as_archive: Whether to send an archive where an flist would do.

    Raises:
        HubClientError: the hub cannot be asked, refuses, or made something else of it.
        FormatError: the flist is damaged.
        SourceError: the source cannot be read.
        StoreError: the blocks of an flist cannot be had.
    """
    repository = client.whoami()
    if source.is_dir() or not _is_flist(source):
        if not source.is_dir():
            return _send_archive(client, repository, name, archives.of_archive(source), None, progress)
        tally = archives.Tally()
        parts = archives.of_directory(source, tally)
        return _send_archive(client, repository, name, parts, tally, progress)
    with Flist.open(source) as flist:
        notes: tuple[str, ...] = ()
        if flist.format.name != _TAKEN:
            as_archive = True
            notes = (_ARCHIVE_SENT,)
        if not as_archive:
            try:
                return _send_flist(client, repository, name, source, flist, origin, token, blocks, progress)
            except StoreError as error:
                notes = (f"the hub's blocks cannot be written ({error}), so an archive was sent",)
        with closing(_opened(flist, origin)) as store:
            tally = archives.Tally()
            parts = archives.of_flist(flist, store, tally)
            done = _send_archive(client, repository, name, parts, tally, progress)
    return Published(done.repository, done.name, done.url, done.md5, done.way, notes=notes)


def _is_flist(source: Path) -> bool:
    """Return whether a file is an flist: by its name, which counts for damaged ones too, or by what it is."""
    if source.name.endswith(SUFFIX):
        return True
    try:
        Flist.open(source).close()
    except FormatError:
        return False
    return True


def _opened(flist: Flist, origin: Origin) -> Store:
    return store_of(flist, origin.store, origin.password, origin.usual)


def _send_archive(
    client: HubClient,
    repository: str,
    name: str,
    parts: Iterator[bytes],
    tally: archives.Tally | None,
    progress: Progress,
) -> Published:
    """Send an archive, and see that the hub made as many files and links of it, if that is known."""
    payload = client.upload(f"{_bare(name)}.tar.gz", _counted(parts, progress))
    if tally is not None:
        _compare(client, payload, tally)
    made = str(payload.get("name", f"{_bare(name)}{SUFFIX}"))
    return Published(
        repository, made, _url(client, repository, made), client.md5(repository, made), "archive"
    )


def _compare(client: HubClient, payload: Mapping[str, Any], tally: archives.Tally) -> None:
    files = payload.get("files", {})
    made = files.get("response") or files  # as zflist answers, or as hubs answered before
    counts = made.get("regular"), made.get("symlink")
    if counts != (tally.files, tally.links):
        raise HubRefusedError(
            f"{client.url} made {counts[0]} files and {counts[1]} links of {tally.files} and {tally.links}: "
            "what it has now is not whole"
        )


def _send_flist(
    client: HubClient,
    repository: str,
    name: str,
    package: Path,
    flist: Flist,
    origin: Origin,
    token: str | None,
    blocks: str | None,
    progress: Progress,
) -> Published:
    """Send an flist, after the blocks that the hub lacks."""
    sent = 0
    try:
        _upload_flist(client, name, package, progress)
    except HubRefusedError as error:
        if "not fully present" not in str(error):
            raise
        with (
            closing(_opened(flist, origin)) as source,
            closing(open_store(blocks or _blocks_of(client), flist.codec, token)) as target,
        ):
            target.check()
            sent = push(flist, source, target, progress).sent
        _upload_flist(client, name, package, progress)
    made = f"{_bare(name)}{SUFFIX}"
    md5 = client.md5(repository, made)
    if md5 != md5_of(package):
        raise HubRefusedError(f"{client.url} has another file now than was sent: somebody else published one")
    return Published(repository, made, _url(client, repository, made), md5, "flist", sent)


def _upload_flist(client: HubClient, name: str, package: Path, progress: Progress) -> Mapping[str, Any]:
    size = package.stat().st_size
    with package.open("rb") as file:
        parts = parts_of(file, lambda done: progress(Report("publish", done, size)))
        return client.upload(f"{_bare(name)}{SUFFIX}", parts, is_flist=True)


def _blocks_of(client: HubClient) -> str:
    """Return the URL of the server that a hub's blocks are written to."""
    told = client.blocks()
    return told or f"zdb://{urlsplit(client.url).hostname}:{_BLOCKS_PORT}"


def _bare(name: str) -> str:
    return name.removesuffix(".tar.gz").removesuffix(SUFFIX)


def _url(client: HubClient, repository: str, name: str) -> str:
    return f"{client.url}/{repository}/{name}"


def _counted(parts: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    done = 0
    for part in parts:
        yield part
        done += len(part)
        progress(Report("publish", done, 0))
