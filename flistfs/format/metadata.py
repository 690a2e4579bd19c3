"""The metadata of an flist besides its tree: what starts it, and what is said about it.

Keys and shapes are those that zflist writes (libflist's metadata.c) and that hubs and Zero-OS read; a key of
any other name has a plain text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from flistfs.errors import FormatError, UsageError

BACKEND: Final = "backend"
"""The server of its blocks, which belongs to the router."""

ENTRYPOINT: Final = "entrypoint"
"""The command that starts it: a JSON array of words."""

ENVIRON: Final = "environ"
"""Environment variables: a JSON object of texts."""

PORT: Final = "port"
"""Ports that it serves: a JSON object of `tcp/80`, say, with the number that it has outside."""

VOLUME: Final = "volume"
"""Directories that outlive it: a JSON object of paths, each with an object that may name a `host` path."""

README: Final = "readme"
"""What is said about it: a JSON object with the texts `readme` and maybe `license`."""

WORKING_DIRECTORY: Final = "workdir"
"""The directory in which the command starts: a plain text, which no other program writes."""

KNOWN: Final = frozenset({BACKEND, ENTRYPOINT, ENVIRON, PORT, VOLUME, README})
"""The keys whose values have a shape."""

MAX_VALUE: Final = 1 << 20
"""Bytes of one value."""

MAX_VALUES: Final = 1_000


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """What is to be changed of an flist's metadata.

    What is unset goes first. Variables, ports and volumes are added to those that are there; anything else
    takes the place of what is there.

    Attributes:
        entrypoint: The words of the command that starts it.
        environ: Variables by name.
        ports: The ports outside by those inside, such as `tcp/80`.
        volumes: The paths on the host by those inside; None leaves the choice to the host.
        readme: A text about it.
        free: Further values by key.
        unset: Keys to be removed.
    """

    entrypoint: tuple[str, ...] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, str | None] = field(default_factory=dict)
    readme: str | None = None
    free: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything is to be changed."""
        return self != NO_CHANGE

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Return the change that `as_dict` wrote."""
        entrypoint = raw["entrypoint"]
        words = None if entrypoint is None else tuple(entrypoint)
        return cls(**{**raw, "entrypoint": words, "unset": tuple(raw["unset"])})

    def applied(self, metadata: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return changed metadata.

        Raises:
            FormatError: a value that is to be added to has another shape.
            UsageError: a value would be too large, or there would be too many.
        """
        changed = {key: value for key, value in metadata.items() if key not in self.unset}
        if self.entrypoint is not None:
            changed[ENTRYPOINT] = _encoded(list(self.entrypoint))
        volumes = {path: {} if host is None else {"host": host} for path, host in self.volumes.items()}
        readme = {} if self.readme is None else {"readme": self.readme}
        added: tuple[tuple[str, Mapping[str, Any]], ...] = (
            (ENVIRON, self.environ),
            (PORT, self.ports),
            (VOLUME, volumes),
            (README, readme),
        )
        for key, members in added:
            if members:
                changed[key] = _encoded({**_members(key, changed), **members})
        changed.update({key: value.encode() for key, value in self.free.items()})
        _check_size(changed)
        return changed


NO_CHANGE: Final = MetadataChange()
"""Leaves everything as it is."""


def without_backend(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return metadata without the server of the blocks, which follows from the router."""
    return {key: value for key, value in metadata.items() if key != BACKEND}


def entrypoint_of(metadata: Mapping[str, bytes]) -> list[str]:
    """Return the words of the command that starts an flist; none if it says nothing.

    Raises:
        FormatError: it is no array of texts.
    """
    value = _decoded(ENTRYPOINT, metadata) if ENTRYPOINT in metadata else []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _shapeless(ENTRYPOINT, "an array of texts")
    return value


def environ_of(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Return the environment variables that an flist names.

    Raises:
        FormatError: they are no object of texts.
    """
    members = _members(ENVIRON, metadata)
    if not all(isinstance(value, str) for value in members.values()):
        raise _shapeless(ENVIRON, "an object of texts")
    return members


def _members(key: str, metadata: Mapping[str, bytes]) -> dict[str, Any]:
    value = _decoded(key, metadata) if key in metadata else {}
    if not isinstance(value, dict):
        raise _shapeless(key, "an object")
    return value


def _decoded(key: str, metadata: Mapping[str, bytes]) -> object:
    try:
        return json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise _shapeless(key, "valid") from None


def _shapeless(key: str, wanted: str) -> FormatError:
    return FormatError(f"the metadata {key!r} of the flist is not {wanted} (JSON); unset it first")


def _encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _check_size(metadata: Mapping[str, bytes]) -> None:
    if len(metadata) > MAX_VALUES:
        raise UsageError(f"metadata has at most {MAX_VALUES:,} values, not {len(metadata):,}")
    for key, value in metadata.items():
        if len(value) > MAX_VALUE:
            raise UsageError(f"the metadata {key!r} would have {len(value):,} bytes; {MAX_VALUE:,} is most")
