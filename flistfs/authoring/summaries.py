"""The results of work on a session, and their form in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flistfs.authoring.state.settings import PartialAdd


@dataclass(frozen=True, slots=True)
class SealSummary:
    """What was sealed. Sizes are in bytes, `new_bytes` as stored; `seconds` is how long sealing took.

    `incomplete` lists the sources that were not added completely. `servers` are the URLs that the package's
    router.yaml names to readers, and `notes` say what is to be known of that; `store_trouble` is what was
    wrong with a server that others stood in for. `replaced_blocks` were wrong in the store.
    """

    out: str
    format: str
    package_size: int
    files: int
    directories: int
    links: int
    specials: int
    size: int
    new_blocks: int
    new_bytes: int
    shared_blocks: int
    seconds: float
    unrepresentable: Unrepresentable
    incomplete: tuple[PartialAdd, ...] = ()
    servers: tuple[str, ...] = ()
    store_trouble: str | None = None
    replaced_blocks: int = 0
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, for the control socket and the result file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> SealSummary:
        """Return the summary that `as_dict` wrote."""
        plain = dict(raw)
        for name in ("servers", "notes"):
            plain[name] = tuple(raw[name])
        plain["incomplete"] = tuple(PartialAdd(**each) for each in raw["incomplete"])
        plain["unrepresentable"] = Unrepresentable(**raw["unrepresentable"])
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class AddSummary:
    """What was put into a tree past the mount.

    `size` is in bytes, `new_bytes` as stored. `left_out` names entries that could not be read or have no
    place, up to a number, and `left_out_count` counts them all; so do `replaced` and `replaced_count` with
    what took the place of something else. `notes` says what else a user may want to know; `replaced_blocks`
    were wrong in the store.
    """

    entries: int
    size: int
    new_blocks: int
    new_bytes: int
    shared_blocks: int
    seconds: float
    left_out: list[LeftOut]
    left_out_count: int
    replaced: list[str]
    replaced_count: int
    notes: list[str]
    replaced_blocks: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, for the control socket."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> AddSummary:
        """Return the summary that `as_dict` wrote."""
        return cls(**{**raw, "left_out": [LeftOut(**each) for each in raw["left_out"]]})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A source or an entry that was not added, and why. One of an archive is named `ARCHIVE: PATH`."""

    path: str
    why: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class BaseSummary:
    """What a session started from; see `BaseSource` for `unknown_owners`. `size` is in bytes.

    `hidden` says of each flist which of its entries others hide, up to a number; `hidden_counts` how many.
    `accepted_faults` counts the faults of flists of which what is there was taken.
    """

    entries: int
    size: int
    unknown_owners: int
    seconds: float
    hidden: dict[str, list[str]]
    hidden_counts: dict[str, int]
    accepted_faults: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, for the daemon's first answer."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> BaseSummary:
        """Return the summary that `as_dict` wrote."""
        return cls(**raw)


@dataclass(slots=True)
class Unrepresentable:
    """What the format cannot hold, or readers drop, by count of entries."""

    xattrs: int = 0
    hard_links: int = 0
    times: int = 0
    owners: int = 0
    set_id: int = 0
    large_devices: int = 0
    special_files: int = 0
    names: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a session's last seal: its `summary` if it succeeded, else the `code` of the error."""

    exit_code: int
    message: str
    time: float
    summary: SealSummary | None = None
    code: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, for the result file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Result:
        """Return the result that `as_dict` wrote."""
        summary = raw.get("summary")
        return cls(**{**raw, "summary": SealSummary.from_dict(summary) if summary else None})
