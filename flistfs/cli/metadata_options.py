"""The options that say what an flist tells besides its tree."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flistfs.api.configuring import MetadataChange
from flistfs.errors import UsageError

_OPTIONS = (
    click.option(
        "--entrypoint",
        metavar="COMMAND",
        help="What starts the flist: a command line, or a JSON array of its words.",
    ),
    click.option("--env", metavar="NAME=VALUE", multiple=True, help="An environment variable; repeatable."),
    click.option(
        "--port",
        "ports",
        metavar="[tcp/|udp/]PORT[:OUTSIDE]",
        multiple=True,
        help="A port that it serves, and its number outside, where that differs; repeatable.",
    ),
    click.option(
        "--volume",
        "volumes",
        metavar="PATH[:HOST]",
        multiple=True,
        help="A directory that outlives it, and where it lies on the host; repeatable.",
    ),
    click.option(
        "--readme", type=click.Path(path_type=Path), metavar="FILE", help="A text that describes the flist."
    ),
    click.option("--set", "free", metavar="KEY=VALUE", multiple=True, help="Any other metadata; repeatable."),
    click.option(
        "--unset",
        metavar="KEY",
        multiple=True,
        help="Metadata to be removed, before anything is set; repeatable.",
    ),
)

startup_option = click.option(
    "--startup",
    is_flag=True,
    help="Put a .startup.toml with the entrypoint and environment into the tree, for Zero-OS.",
)


def metadata_options(function: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options, and hand them on as one argument, `metadata`."""

    @functools.wraps(function)
    def command(
        entrypoint: str | None,
        env: tuple[str, ...],
        ports: tuple[str, ...],
        volumes: tuple[str, ...],
        readme: Path | None,
        free: tuple[str, ...],
        unset: tuple[str, ...],
        **others: Any,  # noqa: ANN401  the command's own
    ) -> object:
        change = MetadataChange(
            entrypoint=_words(entrypoint),
            environ=dict(_pair("--env", text) for text in env),
            ports=dict(map(_port, ports)),
            volumes=dict(map(_volume, volumes)),
            readme=_text(readme),
            free=dict(_pair("--set", text) for text in free),
            unset=unset,
        )
        return function(metadata=change, **others)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _words(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--entrypoint takes a command line, or a JSON array of words ({error})") from None
    if not words or not all(isinstance(word, str) for word in words):
        raise UsageError("--entrypoint takes a command line, or a JSON array of words")
    return tuple(words)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise UsageError(f"{option} takes {'KEY' if option == '--set' else 'NAME'}=VALUE, not {text!r}")
    return name, value


def _port(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(tcp|udp)/)?(\d{1,5})(?::(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise UsageError(f"--port takes [tcp/|udp/]PORT[:OUTSIDE], not {text!r}")
    return f"{match[1] or 'tcp'}/{int(match[2])}", int(match[3] or match[2])


def _volume(text: str) -> tuple[str, str | None]:
    path, _, host = text.partition(":")
    return path, host or None


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--readme: {file} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise UsageError(f"--readme: {file} is no text (UTF-8)") from None
