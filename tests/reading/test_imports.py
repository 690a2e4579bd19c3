"""What the sealed side must not know: authoring; and but for its mount, FUSE and event loops."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import flistfs.reading

MODULES = {f"flistfs.reading.{module.name}" for module in pkgutil.iter_modules(flistfs.reading.__path__)}
MOUNT = {"flistfs.reading.mount", "flistfs.reading.chunks"}


@pytest.mark.parametrize(
    ("modules", "unknown"),
    [
        (MODULES, {"flistfs.authoring", "flistfs.cli", "flistfs.daemons.session", "click"}),
        (MODULES - MOUNT, {"trio", "pyfuse3"}),
    ],
    ids=["all", "all but the mount"],
)
def test_reading_imports_nothing_from_above(modules: set[str], unknown: set[str]) -> None:
    assert modules >= {"flistfs.reading.flist", "flistfs.reading.merge"}
    code = f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert set(output.split()).isdisjoint(unknown)
