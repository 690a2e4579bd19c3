"""What tests need that is no part of the project. Where it is missing they are skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_PROJECT = Path(__file__).parents[1]
_SHARED = _PROJECT.parent / "shared" / "data"


def needs_data(name: str) -> Path:
    """A file of data that others made, which lies beside the project."""
    path = _SHARED / name
    return path if path.exists() else _missing(f"the test data {path} is not on this machine")


def needs_old_flist() -> Path:
    """A flist that a Zero-OS Hub made in 2017."""
    return needs_data("ubuntu1604-minimal-2017.flist")


def needs_vectors() -> Path:
    """Blocks that the reference library made."""
    return needs_data("blocks-gen1.json")


def needs_tool(name: str) -> str:
    """The path of a program of RocksDB's own, at the version that Debian has."""
    return shutil.which(name) or _missing(f"{name} is not installed (Debian: rocksdb-tools)")


def needs_permissions() -> list[str]:
    """What a command is run under for permissions to count: root may read everything otherwise."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv") or _missing("setpriv is not installed (Debian: util-linux)")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


def needs_setup() -> Path:
    """The project's directory, if its scripts find nothing to set up in the .venv that the tests run in."""
    stamp, wanted = _PROJECT / ".venv/.stamp-test", _PROJECT / "pyproject.toml"
    is_fresh = stamp.exists() and stamp.stat().st_mtime >= wanted.stat().st_mtime
    if is_fresh and Path(sys.prefix) == _PROJECT / ".venv":
        return _PROJECT
    return _missing("these tests do not run in a .venv that scripts/test has set up")


def _missing(what: str) -> NoReturn:
    if os.environ.get("FLISTFS_SKIP_NOTHING") == "1":
        pytest.fail(f"{what}, and FLISTFS_SKIP_NOTHING=1")
    pytest.skip(what)
