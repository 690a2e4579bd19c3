"""What a session is asked for: plain data, quick to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.stores.base import STORE_TIMEOUT

USUAL_FORMAT = "rocksdb"
"""The default format of a session."""


@dataclass(frozen=True, slots=True)
class Passwords:
    """The passwords of a session's store, and of the one that its base's blocks are in."""

    store: str | None = field(repr=False)
    base: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealOptions:
    """How a tree is sealed.

    Attributes:
        owner: (uid, gid) that everything is to belong to, instead of who owns it in the tree.
        epoch: Times later than this (seconds since 1970, from SOURCE_DATE_EPOCH) become this.
        exclude: Patterns of what is left out (see `excludes`).
    """

    owner: tuple[int, int] | None = None
    epoch: int | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SealRequest:
    """What to seal into.

    `force` replaces an output that exists. `timeout` is how long to wait, in seconds, while the store takes
    nothing. `router` is the text of the package's router.yaml; without one the package says where the store
    is, if readers can use it. `incomplete` seals a tree too to which something was not added whole. With
    `check_content` every block that the tree needs is fetched and compared. `metadata` changes what the flist
    has of its base; with `startup` the tree gets a `.startup.toml` that says the same of how it is started.
    """

    out: Path
    force: bool = False
    timeout: float = STORE_TIMEOUT
    options: SealOptions = field(default_factory=SealOptions)
    router: str | None = None
    incomplete: bool = False
    check_content: bool = False
    metadata: MetadataChange = NO_CHANGE
    startup: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the request as plain data, to be sent as JSON."""
        return {
            "out": str(self.out),
            "force": self.force,
            "timeout": self.timeout,
            "router": self.router,
            "incomplete": self.incomplete,
            "check_content": self.check_content,
            "metadata": self.metadata.as_dict(),
            "startup": self.startup,
            **asdict(self.options),
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> SealRequest:
        """Make the request that was sent."""
        owner = raw["owner"]
        options = SealOptions(owner and (owner[0], owner[1]), raw["epoch"], tuple(raw["exclude"]))
        return cls(
            Path(raw["out"]),
            raw["force"],
            raw["timeout"],
            options,
            raw["router"],
            raw["incomplete"],
            raw["check_content"],
            MetadataChange.from_dict(raw["metadata"]),
            raw["startup"],
        )


@dataclass(frozen=True, slots=True)
class BaseRequest:
    """What a new session starts from.

    Attributes:
        packages: Sealed flists, later ones on top of earlier ones.
        store: The URL, without a password, that the user named for their blocks.
        usual: The URL of the store that the user usually has, for flists that do not say where theirs are.
        replace_links: Whether a directory hides a link of a lower layer, instead of going where that leads.
        accept_faults: Whether to take what is there of flists that have faults.
    """

    packages: tuple[str, ...]
    store: str | None = None
    usual: str | None = None
    replace_links: bool = False
    accept_faults: bool = False


@dataclass(frozen=True, slots=True)
class AddRequest:
    """What to put into a session's tree.

    Attributes:
        sources: Directories and files of this machine, as absolute paths; one that ends in `/.` stands for
            what is in it.
        to: The directory of the tree that they go to (no slash at either end); made if need be.
        exclude: Patterns of what is left out (see `excludes`).
        keep_going: Whether what cannot be read is left out instead of ending everything.
        timeout: Seconds to wait while the store takes nothing.
        measure: Whether to find out how much there is, so that the progress has a total.
        replace_links: Whether a directory replaces a link, instead of going where that leads.
        typed: The sources as the user typed them, for errors to name them so; empty if they are the same.
        check_content: Whether blocks that are stored already are fetched and compared.
    """

    sources: tuple[str, ...]
    to: str = ""
    exclude: tuple[str, ...] = ()
    keep_going: bool = False
    timeout: float = STORE_TIMEOUT
    measure: bool = False
    replace_links: bool = False
    typed: tuple[str, ...] = ()
    check_content: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the request as plain data, to be sent as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> AddRequest:
        """Make the request that was sent."""
        texts = {name: tuple(raw.get(name, ())) for name in ("sources", "exclude", "typed")}
        return cls(**{**raw, **texts})
