"""scripts/quickstart, run as by somebody who has just cloned the project."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flistfs.fuse import mounts
from tests.e2e.commands import TIMEOUT, Home
from tests.independent_reader import read_flist
from tests.needs import needs_setup


def quickstart(home: Home, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it; the packages that it would install are there if these tests are."""
    done = subprocess.run(
        [needs_setup() / "scripts/quickstart", *arguments],
        cwd=home.path,
        env=home.environment(FLISTFS_SKIP_PACKAGES="1", TMPDIR=str(home.path)),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert not [mount for mount in mounts.mounts() if mount.path.is_relative_to(home.path)]
    assert not list(home.path.glob("tmp.*")), "the mount point is gone"
    return done


def test_it_can_be_repeated(home: Home, source: Path) -> None:
    (source / "first").write_text("1")
    said = quickstart(home, source).stdout
    assert said.startswith("This will:\n  1. mount ")  # nothing is left to install
    assert "This is an flist of" in said
    assert set(read_flist(home.path / "quickstart.flist")) == {b"", b"first"}
    (source / "second").write_text("2")
    quickstart(home, source)
    assert set(read_flist(home.path / "quickstart.flist")) == {b"", b"first", b"second"}


def test_an_output_of_the_users_is_not_replaced(home: Home, source: Path) -> None:
    (home.path / "mine.flist").write_text("precious")
    refused = quickstart(home, source, "mine.flist", code=1)
    assert "mine.flist exists" in refused.stderr
    assert (home.path / "mine.flist").read_text() == "precious"
    quickstart(home, source, "other.flist")
    assert set(read_flist(home.path / "other.flist")) == {b""}


def test_steps_are_shown_on_a_terminal_only(home: Home, source: Path) -> None:
    shown = quickstart(home, source).stderr
    assert "Copying: " in shown
    assert "\r" not in shown
