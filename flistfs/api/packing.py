"""Flists made in one go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flistfs.api import process
from flistfs.api.arguments import AnyPath, StoreName, target_store
from flistfs.api.format_names import FormatName
from flistfs.api.images import opened_source
from flistfs.api.requests import checked_patterns, seal_request
from flistfs.authoring.request import AddRequest, Passwords
from flistfs.authoring.summaries import AddSummary, SealSummary
from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.util.output_file import check_output
from flistfs.util.progress import Progress, quiet

if TYPE_CHECKING:
    from flistfs.images.image import Image


@dataclass(frozen=True, slots=True)
class PackedImage:
    """The container image that was read: where it is, what it is called there, and its digest."""

    source: str
    name: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Packed:
    """What `pack` read, and what it made of it; `image` is None where the source was none."""

    added: AddSummary
    sealed: SealSummary
    image: PackedImage | None = None


def pack(
    source: AnyPath | None,
    out: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    format: FormatName = "rocksdb",  # noqa: A002  as the option is called
    min_replicas: int | None = None,
    force: bool = False,
    owner: tuple[int, int] | None = None,
    epoch: int | None = None,
    exclude: str | Iterable[str] = (),
    keep_going: bool = False,
    public_url: str | None = None,
    router: AnyPath | None = None,
    metadata: MetadataChange | None = None,
    startup: bool | None = None,
    platform: str | None = None,
    timeout: float = STORE_TIMEOUT,
    check_content: bool = False,
    measure: bool | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Make an flist of a directory or a tar archive, in one go; no session is left, whatever happens.

    Args:
        source: A directory, whose content goes to the top, or a tar archive; None for one on standard input.
            A container image, where it is one, or a transport says so: `docker-archive:FILE[:NAME:TAG]`,
            `oci-archive:FILE[:REF]`, `oci:DIR[:REF]`. `dir:DIR` and `tar:FILE` are none, whatever they hold.
        out: The flist; it exists whole or not at all.
        store: Where blocks go.
        password: The store's, if its URL has none.
        format: The format of the flist.
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        force: Replace the output if it exists.
        owner: (uid, gid) that everything is to belong to.
        epoch: Times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
        exclude: Patterns as in a .gitignore of what is left out.
        keep_going: Leave out what cannot be read, and name it in the summary.
        public_url: Where readers reach the store, if not at its URL.
        router: A router.yaml to be put into the flist.
        metadata: What the flist says besides its tree.
        startup: Put a .startup.toml into the tree, which says how it is started. Default: if an image says.
        platform: Which one of an image for several, such as linux/arm64. Default: this machine's.
        timeout: Seconds to wait while the store takes nothing.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        measure: Find out first how much there is, so that the progress has a total. Default: if there is one.
        progress: Called with a `Report` as the work goes on.

    Raises:
        SourceError: something cannot be read, or the archive is damaged.
        OutputError: the output exists or cannot be written.
        StoreError: the store cannot be reached, or takes nothing.
        UsageError: an argument is invalid.
    """
    url, secret = target_store(store, password, min_replicas)
    with opened_source(source, platform) as (name, image):
        request = seal_request(
            out,
            force=force,
            timeout=timeout,
            owner=owner,
            epoch=epoch,
            exclude=(),  # what is left out is not read, either
            router=router,
            public_url=public_url,
            incomplete=False,
            check_content=check_content,
            metadata=metadata,
            startup=_says_start(image, metadata) if startup is None else startup,
        )
        check_output(request.out, force=force)  # before the hours that reading may take
        measured = progress is not None if measure is None else measure
        reading = AddRequest((), "", checked_patterns(exclude), keep_going, timeout, measure=measured)
        with process.loading():
            from flistfs.authoring import offline  # noqa: PLC0415  it takes longer to load than --help
        spares = process.prepare_encoders(url, format)
        added, summary = offline.pack(
            name,
            url,
            format,
            Passwords(secret, None),
            request,
            reading,
            progress or quiet,
            spares,
            image=image,
        )
    return Packed(added, summary, None if image is None else PackedImage(name, image.name, image.digest))


def _says_start(image: Image | None, metadata: MetadataChange | None) -> bool:
    if image is None:
        return False
    from flistfs.images.config import says_start  # noqa: PLC0415  few need it

    return says_start(image, metadata or NO_CHANGE)
