"""Where copies of flists are that were named by a URL."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def copies() -> Path:
    """Return the directory of flists that were fetched; what is in it may be removed at any time."""
    return platformdirs.user_cache_path("flistfs") / "flists"


def is_copy(path: Path) -> bool:
    """Return whether an flist is a copy of what lies elsewhere, which must not be changed in its place."""
    return copies() in path.parents
