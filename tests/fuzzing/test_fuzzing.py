"""What was found once, and a few of each kind of damage; `scripts/fuzz` tries thousands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing.making import KINDS
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
        "merge": 12,  # by its damage, it has links over directories of the other
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


# Those that are small are tried together, in one process.
_TOGETHER: tuple[tuple[str, ...], ...] = (
    ("101-224-rec-BUG", "empty1", "ro-10-rec", "setid2", "suid3"),
    ("segv-data-11", "segv-index-11", "segv-metaindex-11"),
    ("deep3000",),
    ("202-867-struct-HANG",),
)


def _fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzzing", *arguments]
    project = Path(__file__).parents[2]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("names", _TOGETHER, ids=lambda names: names[0])
def test_every_command_ends_well_with_bad_flists(names: tuple[str, ...]) -> None:
    done = _fuzz("--no-mount", *(str(needs_data(f"bad/{name}.flist")) for name in names))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["file"]).stem for answer in answers] == list(names), done.stderr
    for name, answer in zip(names, answers, strict=True):
        assert answer["wrong"] == [], name
        wanted = _WANTED[name]
        assert {command: answer["codes"][command] for command in wanted} == wanted, name


def test_damage_of_every_kind_ends_well(tmp_path: Path) -> None:
    done = _fuzz("--no-mount", "--inputs", str(len(KINDS)), "--seed", "1", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
