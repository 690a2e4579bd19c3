"""Making an flist of another format of a sealed one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flistfs.api import process
from flistfs.api.arguments import AnyPath, StoreName, chosen_store, flist_path, target_store
from flistfs.api.format_names import FormatName
from flistfs.api.requests import checked_format, seal_request
from flistfs.authoring.request import AddRequest, Passwords, SealRequest
from flistfs.authoring.summaries import AddSummary, SealSummary
from flistfs.errors import UsageError
from flistfs.format.metadata import MetadataChange, without_backend
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.stores.url import FROM_PASSWORD_VARIABLE
from flistfs.util.output_file import check_output
from flistfs.util.progress import Progress, quiet


@dataclass(frozen=True, slots=True)
class Converted:
    """What `convert` read, and what it made of it.

    `dropped` names metadata that the format cannot hold; `accepted_faults` counts the faults of an flist of
    which what is there was taken.
    """

    added: AddSummary
    sealed: SealSummary
    dropped: tuple[str, ...]
    accepted_faults: int = 0


def convert(
    package: AnyPath,
    out: AnyPath,
    *,
    format: FormatName,  # noqa: A002  as the option is called
    store: StoreName | None = None,
    password: str | None = None,
    source: StoreName | None = None,
    source_password: str | None = None,
    fallback_store: StoreName | None = None,
    min_replicas: int | None = None,
    force: bool = False,
    epoch: int | None = None,
    public_url: str | None = None,
    router: AnyPath | None = None,
    metadata: MetadataChange | None = None,
    startup: bool = False,
    accept_faults: bool = False,
    timeout: float = STORE_TIMEOUT,
    check_content: bool = False,
    measure: bool | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Make an flist of another format: every block is fetched, checked, and encoded anew.

    After an interruption, or an error of a store, the same call goes on where that one stopped; for a week.

    Args:
        package: The flist.
        out: The one of the other format; it exists whole or not at all.
        format: That format.
        store: Where its blocks go.
        password: The password of `store`, if its URL has none.
        source: Where the blocks of `package` are. Default: where it says.
        source_password: The password of `source`, if its URL has none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        force: Replace the output if it exists.
        epoch: Times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
        public_url: Where readers reach the store, if not at its URL.
        router: A router.yaml to be put into the flist.
        metadata: What the flist says besides its tree, beside what `package` says.
        startup: Put a .startup.toml into the tree, which says how it is started.
        accept_faults: Take what is there of an flist that has faults.
        timeout: Seconds to wait while the store takes nothing.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        measure: Find out first how much there is, so that the progress has a total. Default: if there is one.
        progress: Called with a `Report` as the work goes on.

    Raises:
        BlockMissingError: a block is not where it should be.
        BlockCorruptError: a block is not what the flist says.
        FormatError: the flist is not there, is damaged, or has what the other format cannot hold.
        OutputError: the output exists or cannot be written.
        StoreError: a store cannot be used.
        UsageError: an argument is invalid.
    """
    url, secret = target_store(store, password, min_replicas)
    origin, origin_secret = chosen_store(source, source_password)
    fallback, _ = chosen_store(fallback_store, None)
    request = seal_request(
        out,
        force=force,
        timeout=timeout,
        owner=None,
        epoch=epoch,
        exclude=(),
        router=router,
        public_url=public_url,
        incomplete=False,
        check_content=check_content,
        metadata=metadata,
        startup=startup,
    )
    if checked_format(format) is None:
        raise UsageError("say with `format` what to convert to")
    check_output(request.out, force=force)  # before the hours that reading may take
    measured = progress is not None if measure is None else measure
    reading = AddRequest((), timeout=timeout, measure=measured)
    with process.loading():
        from flistfs.authoring import offline  # noqa: PLC0415  it takes longer to load than --help
        from flistfs.authoring.passing import name_of  # noqa: PLC0415
        from flistfs.format.opening import format_named  # noqa: PLC0415
        from flistfs.reading.content import store_of  # noqa: PLC0415
        from flistfs.sources.decoded import DecodedSource  # noqa: PLC0415
        from flistfs.sources.sealed import BaseSource  # noqa: PLC0415
    with closing(BaseSource.open([str(flist_path(package))], accept_faults=accept_faults)) as base:
        (layer,) = base.layers
        says = without_backend(layer.flist.metadata)
        spares = process.prepare_encoders(url, format)
        with closing(
            store_of(layer.flist, origin, origin_secret, fallback, password_variable=FROM_PASSWORD_VARIABLE)
        ) as blocks:
            added, summary = offline.convert(
                DecodedSource(base, blocks),
                name_of(flist_path(package), [url, format, accept_faults, _kept(request)]),
                says,
                url,
                format,
                Passwords(secret, None),
                request,
                reading,
                progress or quiet,
                spares,
            )
        dropped = () if format_named(format).has_metadata else tuple(says)
        return Converted(added, summary, dropped, base.accepted_faults)


def _kept(request: SealRequest) -> dict[str, Any]:
    """Return what of a request is in the tree, or was looked at, before it is sealed."""
    kept = {"metadata", "startup", "check_content"}
    return {name: value for name, value in request.as_dict().items() if name in kept}
