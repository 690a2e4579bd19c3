"""The documents: their links lead somewhere, and they name every command and exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from flistfs import errors
from flistfs.cli.command_line import cli

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")]


def anchors(document: Path) -> set[str]:
    """The names that headings get on code hosts."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_command_and_exit_code_is_documented() -> None:
    text = (PROJECT / "docs/commands.md").read_text()
    shown = set(re.findall(r"`(?:flistfs )?([a-z]+)`", text))
    assert set(cli.list_commands(click.Context(cli))) <= shown
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    assert {each.exit_code for each in classes if issubclass(each, errors.FlistfsError)} <= codes
