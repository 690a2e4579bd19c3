"""A store and the real flist, for tests of the sealed side."""

from __future__ import annotations

from pathlib import Path

import pytest

from flistfs.stores import Store, open_store

REAL = Path(__file__).parents[3] / "shared/data/ubuntu1604-minimal-2017.flist"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"dir://{tmp_path / 'blocks'}")


@pytest.fixture
def real_flist() -> Path:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not here")
    return REAL
