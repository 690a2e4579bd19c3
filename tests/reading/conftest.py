"""A store and the real flist, for tests of the sealed side."""

from __future__ import annotations

from pathlib import Path

import pytest

from flistfs.stores import Store
from tests.generation1 import open_store
from tests.needs import needs_old_flist


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"dir://{tmp_path / 'blocks'}")


@pytest.fixture
def real_flist() -> Path:
    return needs_old_flist()
