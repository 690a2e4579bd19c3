"""Errors name arguments, as Python has them; the command line names its options for them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from flistfs.cli.messages import spoken

PACKAGE = Path(__file__).parents[1] / "flistfs"

# Advice may be a whole command; what belongs to other programs has options of its own.
NOT_OURS = re.compile(r"flistfs \w+[^;,]*|--device /dev/fuse --cap-add SYS_ADMIN")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("out.flist exists; `force` replaces it", "out.flist exists; --force replaces it"),
        ("`base_store` belongs to `base`: why", "--base-store belongs to --from: why"),
        ("choose one with `mountpoint`: /a, /b", "choose one with --mount: /a, /b"),
        ("`epoch` is -1", "SOURCE_DATE_EPOCH is -1"),
        ("needs a password; give `password`", "needs a password; give FLISTFS_STORE_PASSWORD"),
        ("a file called `other` or `x y` or ` stays", "a file called `other` or `x y` or ` stays"),
    ],
)
def test_arguments_become_options(message: str, said: str) -> None:
    assert spoken(message) == said


def texts_of(path: Path) -> list[str]:
    """The texts in a module that are no docstrings; a formatted one in one piece."""
    tree = ast.parse(path.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    alone |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            found.append(node.value)
    return found


def engine() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"]


# fusermount3 ends its options with this.
SEPARATOR = "--"


def test_only_the_command_line_names_options() -> None:
    modules = engine()
    assert len(modules) > 100
    wrong = [
        (str(path.relative_to(PACKAGE)), text)
        for path in modules
        for text in texts_of(path)
        if text != SEPARATOR and re.search(r"(^|[^\w-])--[a-z]", NOT_OURS.sub("", text))
    ]
    assert not wrong


def test_arguments_that_are_named_have_an_option() -> None:
    named = {
        name for path in engine() for text in texts_of(path) for name in re.findall(r"`([a-z_]+)`", text)
    }
    assert {"force", "base", "check_content", "min_replicas"} <= named
    assert {name for name in named if spoken(f"`{name}`") == f"`{name}`"} == set()
