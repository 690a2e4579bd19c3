"""The answer of a command in JSON: one document on standard output, however the command ends.

docs/json.md describes the documents, and docs/schemas has a JSON Schema of each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

VERSION = 1
"""The version of all documents: it grows when something that was there changes or goes."""


# The members that hold a name or a path, of which every byte counts; other texts are for people.
_NAMES = frozenset(
    {
        "flist",
        "group",
        "log",
        "mountpoint",
        "out",
        "package",
        "path",
        "seal_to",
        "source",
        "state_directory",
        "store",
        "target",
        "to",
        "user",
    }
)


class _Answer:
    """The answer of this process, until it is printed."""

    document: Mapping[str, Any] | None = None
    closing: str | None = None
    """What closes all but the document itself, once its beginning is printed."""


def answer(document: Mapping[str, Any]) -> None:
    """Let a document be the answer. It is printed when the command ends, with the error if there is one."""
    _Answer.document = {"version": VERSION, **document}


def answer_list(name: str, values: Iterable[object]) -> None:
    """Let a list be the answer: each value is printed as it comes."""
    lead = f'{{"version": {VERSION}, "{name}": ['
    for value in values:
        write(f"{lead}{dumps(value)}", closing="]")
        lead = ", "
    if lead != ", ":
        write(lead, closing="]")


def write(text: str, *, closing: str) -> None:
    """Print a part of the answer; `closing` is what would close it, but for the document's own brace."""
    _Answer.closing = closing
    sys.stdout.write(text)


def end_answer(error: Mapping[str, Any] | None = None) -> None:
    """Print the answer, or the rest of it, with the error that the command ends with.

    Args:
        error: As `FlistfsError.as_dict` has it.
    """
    more = {"error": error} if error else {}
    if _Answer.closing is not None:
        click.echo(_Answer.closing + (f', "error": {dumps(error)}' if error else "") + "}")
    elif _Answer.document is not None or more:
        click.echo(dumps({**(_Answer.document or {"version": VERSION}), **more}))
    _Answer.document = _Answer.closing = None


def absolute(path: Path | str) -> str:
    """Return a path of this machine as answers have it."""
    return os.path.abspath(path)  # noqa: PTH100  absolute() would keep `..`


def print_now(document: Mapping[str, Any], *, err: bool = False) -> None:
    """Print a document of several on a line of its own, to standard error with `err`."""
    click.echo(dumps({"version": VERSION, **document}), err=err)


def dumps(value: object) -> str:
    """Return JSON that every parser takes, on one line.

    Bytes that are not UTF-8, which texts have as lone surrogates, become U+FFFD; beside a name or a
    path an object has the exact bytes in base64, under its name and `_bytes`.
    """
    text = json.dumps(value)
    # Characters beyond the first 65,536 are written as two of them too; looking closer costs only time.
    return json.dumps(_with_bytes(value)) if "\\ud" in text else text


def _with_bytes(value: object) -> object:
    from base64 import b64encode  # noqa: PLC0415  hardly any answer needs it

    if isinstance(value, str):
        return os.fsencode(value).decode(errors="replace")
    if isinstance(value, Mapping):
        exact = {
            f"{name}_bytes": b64encode(os.fsencode(each)).decode()
            for name, each in value.items()
            if name in _NAMES and isinstance(each, str) and not _is_unicode(each)
        }
        return {str(_with_bytes(name)): _with_bytes(each) for name, each in value.items()} | exact
    if isinstance(value, list | tuple):
        return [_with_bytes(each) for each in value]
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
