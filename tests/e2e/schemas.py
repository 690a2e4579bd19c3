"""The JSON Schemas of docs/schemas, and whether an answer follows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"


@cache
def schemas() -> Mapping[str, Any]:
    """All schemas, by the name of their file without its suffix: most are called like a command."""
    return {path.stem: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}


@cache
def _registry() -> Registry[Any]:
    return Registry().with_resources(
        (f"{name}.json", Resource.from_contents(schema)) for name, schema in schemas().items()
    )


@cache
def validator(name: str) -> Draft202012Validator:
    """The validator of a schema."""
    return Draft202012Validator(schemas()[name], registry=_registry())


def check_answer(command: str, printed: str, code: int) -> None:
    """See that a command has printed one document that follows its schema, with an error if it has failed."""
    document = json.loads(printed)
    validator(command if command in schemas() else "common").validate(document)
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert document["version"] == 1
    assert document.get("error", {"exit_code": 0})["exit_code"] == code
