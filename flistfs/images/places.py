"""Where an image is, in the words that skopeo and buildah have for it."""

from __future__ import annotations

import platform as machine
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from flistfs.errors import UsageError

Transport: TypeAlias = Literal["docker-archive", "oci-archive", "oci", "archive"]
"""How an image lies there: what `docker save` writes, an archive of an OCI layout, a directory of one, or an
archive of either, which nobody named."""

_TRANSPORTS: Final[tuple[Transport, ...]] = get_args(Transport)[:3]

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
}
"""What images call machines that the kernel calls otherwise."""


@dataclass(frozen=True, slots=True)
class Place:
    """An image: how and where it lies, and which of several it is (a reference, or NAME:TAG); None if any."""

    transport: Transport
    path: str
    name: str | None = None

    def __str__(self) -> str:
        if self.transport == "archive":
            return "standard input" if self.path == "-" else self.path
        return ":".join((self.transport, self.path, *([self.name] if self.name else [])))


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in the words of the OCI specification; no variant means any."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def takes(self, other: Platform) -> bool:
        """Return whether what is made for another platform is meant by this one."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            self.variant in {None, other.variant}
        )


def parse_place(text: str) -> Place | None:
    """Return the place that a source names; None if it names no image by a transport.

    Raises:
        UsageError: it names a transport and no file.
    """
    transport = next((each for each in _TRANSPORTS if text.startswith(f"{each}:")), None)
    if transport is None:
        return None
    path, _, name = text.removeprefix(f"{transport}:").partition(":")
    if not path:
        raise UsageError(f"{text!r} names no file; write {transport}:PATH, maybe with :NAME behind it")
    return Place(transport, path, name or None)


def parse_platform(text: str) -> Platform:
    """Return the platform that a user names.

    Raises:
        UsageError: it is none.
    """
    parts = text.split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise UsageError(f"`platform` is {text!r}; write os/arch or os/arch/variant, such as linux/amd64")
    return Platform(*parts)


def own_platform() -> Platform:
    """Return the platform of this machine."""
    name = machine.machine()
    architecture, _, variant = _ARCHITECTURES.get(name, name).partition("/")
    return Platform("linux", architecture, variant or None)
