"""What starts an image, and what it says of itself, as the metadata of an flist."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from flistfs.errors import SourceError
from flistfs.format.metadata import NO_CHANGE, WORKING_DIRECTORY, MetadataChange, entrypoint_of
from flistfs.images.image import Image

_PORT: Final = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")


def metadata_of(image: Image) -> MetadataChange:
    """Return what the metadata of an flist says of an image.

    The command is its entry point and the words behind it; what those were is kept, too, as are the user, the
    labels, and where it came from.

    Raises:
        SourceError: its configuration has another shape than that of an image.
    """
    config = image.config.get("config") or {}
    if not isinstance(config, dict):
        raise _invalid("config")
    entrypoint, command = _words(config, "Entrypoint"), _words(config, "Cmd")
    free = {
        "image-entrypoint": json.dumps(entrypoint, ensure_ascii=False) if entrypoint else "",
        "image-cmd": json.dumps(command, ensure_ascii=False) if command else "",
        WORKING_DIRECTORY: _text(config, "WorkingDir"),
        "user": _text(config, "User"),
        "stop-signal": _text(config, "StopSignal"),
        "labels": json.dumps(labels, ensure_ascii=False) if (labels := _texts(config, "Labels")) else "",
        "image": image.name or "",
        "image-digest": image.digest,
    }
    return MetadataChange(
        entrypoint=(*entrypoint, *command) or None,
        environ=_environ(config),
        ports=_ports(config),
        volumes=dict.fromkeys(_object(config, "Volumes")),
        free={key: value for key, value in free.items() if value},
    )


def says_start(image: Image, change: MetadataChange = NO_CHANGE) -> bool:
    """Return whether an image says what is started, or who changes what it says.

    Raises:
        SourceError: its configuration has another shape than that of an image.
    """
    return bool(entrypoint_of(change.applied(metadata_of(image).applied({}))))


def _words(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = config.get(key) or []
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise _invalid(key)
    return tuple(found)


def _text(config: Mapping[str, Any], key: str) -> str:
    found = config.get(key) or ""
    if not isinstance(found, str) or "\0" in found:
        raise _invalid(key)
    return found


def _object(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise _invalid(key)
    return found


def _texts(config: Mapping[str, Any], key: str) -> dict[str, str]:
    found = _object(config, key)
    if not all(isinstance(value, str) for value in found.values()):
        raise _invalid(key)
    return found


def _environ(config: Mapping[str, Any]) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(config, "Env"))
    return {name: value for name, _, value in pairs if name}


def _ports(config: Mapping[str, Any]) -> dict[str, int]:
    """Return ports as zflist has them: `tcp/80`, each the same outside."""
    found = {}
    for text in _object(config, "ExposedPorts"):
        match = _PORT.fullmatch(text)
        if match is None:  # a range, which the specification does not have
            continue
        found[f"{match[2] or 'tcp'}/{match[1]}"] = int(match[1])
    return found


def _invalid(key: str) -> SourceError:
    return SourceError(f"the image is invalid: {key} of its configuration has another shape")
