"""The configs of daemons: plain data, handed over as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Config:
    """The config of a session's daemon.

    `lock` is the inherited descriptor of the session's lock. A session that `is_new` is removed again if it
    cannot be mounted; it starts from `bases`, if there are any (see `BaseRequest`). `options` are mount
    options as the kernel and libfuse know them; `epoch` is SOURCE_DATE_EPOCH, `router` the text of a
    router.yaml, `metadata` a `MetadataChange`, for `seal_to`; `spool_limit` is in bytes; an `offline` daemon
    starts whether the store answers or not; with `low_latency` idle cores stay awake while requests come in.
    """

    state: str
    lock: int
    mountpoint: str
    store: str
    is_new: bool
    options: list[str] = field(default_factory=list)
    seal_to: str | None = None
    router: str | None = None
    epoch: int | None = None
    metadata: dict[str, Any] | None = None
    startup: bool = False
    keep_xattrs: bool = False
    spool_limit: int | None = None
    offline: bool = False
    foreground: bool = False
    bases: list[str] = field(default_factory=list)
    base_store: str | None = None
    usual_store: str | None = None
    replace_links: bool = False
    accept_faults: bool = False
    low_latency: bool = False


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """The config of the reader, which serves the sealed flist `package`; `cache_size` is in bytes.

    `store` is the URL that the user named, if any, and `usual_store` that of FLISTFS_STORE. In the background
    its log goes to the file `log`.
    """

    package: str
    mountpoint: str
    log: str
    store: str | None = None
    usual_store: str | None = None
    options: list[str] = field(default_factory=list)
    cache_size: int | None = None
    offline: bool = False
    foreground: bool = False
    low_latency: bool = False
