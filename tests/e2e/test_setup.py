"""scripts/setup.sh: which Python it chooses, and how it shows what it does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "scripts/setup.sh"
VERSIONS = ["python3", "python3.13", "python3.12", "python3.11"]


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A directory, first on the PATH, with commands that stand for Pythons which cannot run flistfs."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in VERSIONS:
        make_python(directory / name, "echo 'its headers are missing' >&2; exit 1")
    return directory


def make_python(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def setup(command: str, pythons: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; . {SETUP}; {command}"],
        env={"PATH": f"{pythons}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_optimised_python_is_preferred(pythons: Path) -> None:
    make_python(pythons / "python3", "echo plain")
    optimised = make_python(pythons / "python3.12", "echo optimised")
    make_python(pythons / "python3.11", "echo optimised")
    assert setup("find_python", pythons).stdout == f"{optimised}\n"


def test_the_first_on_the_path_is_preferred_to_others_like_it(pythons: Path) -> None:
    first = make_python(pythons / "python3", "echo optimised")
    make_python(pythons / "python3.13", "echo optimised")
    assert setup("find_python", pythons).stdout == f"{first}\n"


def test_the_user_can_choose_a_python(pythons: Path) -> None:
    make_python(pythons / "python3", "echo optimised")
    chosen = make_python(pythons / "mine", "echo plain")
    assert setup("find_python", pythons, FLISTFS_PYTHON="mine").stdout == f"{chosen}\n"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [("python3", "its headers are missing"), ("none-such", "no such command")],
)
def test_a_chosen_python_that_cannot_be_used_is_an_error(chosen: str, message: str, pythons: Path) -> None:
    done = setup("find_python", pythons, FLISTFS_PYTHON=chosen)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"FLISTFS_PYTHON={chosen}" in done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_step_shows_its_output_only_if_it_fails(pythons: Path) -> None:
    done = setup("run_step Working echo nothing; run_step Working sh -c 'echo why; exit 3'", pythons)
    assert done.returncode == 3
    assert re.fullmatch(r"   Working: \d s\nwhy\n", done.stderr)
