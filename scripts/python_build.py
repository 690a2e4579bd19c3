"""Describe the Python that runs this: setup.sh chooses one by it, and bench names it.

Prints "optimised" or "plain" if this Python can run flistfs; otherwise exits with 1 and says what it lacks.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import sysconfig
from pathlib import Path


def is_optimised() -> bool:
    """Return whether this Python was built with profile-guided optimisation: a fifth faster throughout.

    Debian, Ubuntu and Fedora build theirs so. Debian calls `make profile-opt` itself, so its CONFIG_ARGS
    do not show it: whatever is installed in /usr is taken to come from the distribution.
    """
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    return "--enable-optimizations" in arguments or sys.base_prefix == "/usr"


def describe() -> str:
    """Return a line about this Python: version, path outside any virtual environment, kind of build."""
    build = "optimised" if is_optimised() else "not optimised"
    name = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{name}, {Path(sys.executable).resolve()} ({build})"


def missing() -> str:
    """Return what this Python lacks to run flistfs in a virtual environment; empty if nothing."""
    if sys.version_info < (3, 11):  # noqa: UP036  this is how setup.sh finds out
        return f"Python 3.11 or newer is needed; this is {platform.python_version()}"
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if absent:
        return f"the module {absent[0]} is missing (Debian: python3-venv)"
    # pyfuse3 is compiled.
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "its headers are missing (Debian: python3-dev)"
    return ""


if __name__ == "__main__":
    lacking = missing()
    if lacking:
        sys.exit(lacking)
    print("optimised" if is_optimised() else "plain")
