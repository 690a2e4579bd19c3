"""What was found once, and a few of each kind of damage; `scripts/fuzz` tries thousands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzzing.inputs import KINDS
from tests.needs import needs_data

_NO_FLIST = dict.fromkeys(
    (
        "ls",
        "tree",
        "stat",
        "find",
        "cat",
        "info",
        "diff",
        "verify --no-store",
        "verify --deep",
        "extract",
        "merge",
        "push",
    ),
    8,
)

# Of flists that are damaged in one place, and what each command makes of them. Their blocks are in no store.
_WANTED: dict[str, dict[str, int]] = {
    "101-224-rec-BUG": {"stat": 8, "info": 8, "verify --no-store": 10, "extract": 8, "merge": 8, "push": 7},
    "202-867-struct-HANG": {
        "tree": 0,
        "verify --no-store": 10,
        "verify --deep": 10,
        "extract": 8,
        "merge": 8,
    },
    "deep3000": {
        "tree": 0,
        "find": 0,
        "info": 0,
        "verify --no-store": 0,
        "extract": 7,
        "merge": 0,
        "push": 7,
    },
    "empty1": {"tree": 8, "find": 8, "info": 8, "diff": 8, "verify --no-store": 10, "extract": 8, "merge": 8},
    "ro-10-rec": {
        "ls": 8,
        "tree": 8,
        "info": 8,
        "verify --no-store": 10,
        "extract": 8,
        "merge": 8,
        "push": 8,
    },
    "segv-data-11": _NO_FLIST,
    "segv-index-11": _NO_FLIST,
    "segv-metaindex-11": _NO_FLIST,
    "setid2": {"ls": 0, "info": 0, "verify --no-store": 10, "extract": 8, "merge": 8, "push": 7},
    "suid3": {"ls": 0, "info": 0, "verify --no-store": 0, "verify --deep": 10, "extract": 7, "merge": 0},
}


@pytest.fixture(scope="module")
def endings() -> dict[str, Any]:
    """How every command ends with each of those, and what is wrong with that."""
    files = [needs_data(f"bad/{name}.flist") for name in _WANTED]
    done = _fuzz("--no-mount", *map(str, files))
    answers = map(json.loads, done.stdout.splitlines())
    return {Path(answer["file"]).stem: answer for answer in answers}


def _fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzzing", *arguments]
    project = Path(__file__).parents[2]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", _WANTED)
def test_every_command_ends_well_with_bad_flists(endings: dict[str, Any], name: str) -> None:
    assert endings[name]["wrong"] == []
    codes = endings[name]["codes"]
    assert {command: codes[command] for command in _WANTED[name]} == _WANTED[name]


def test_damage_of_every_kind_ends_well(tmp_path: Path) -> None:
    done = _fuzz("--no-mount", "--inputs", str(2 * len(KINDS)), "--seed", "1", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
