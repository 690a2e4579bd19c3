"""Routers to try out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def router_file(directory: Path, *pools: dict[str, str]) -> Path:
    """Write a router of these pools: URLs by range."""
    file = directory / "router.yaml"
    named = {str(number): pool for number, pool in enumerate(pools)}
    file.write_text(json.dumps({"pools": named, "lookup": list(named)}))
    return file
