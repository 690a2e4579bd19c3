"""Which generation of the flist format is meant."""

from __future__ import annotations

import enum


class Generation(enum.Enum):
    """A generation of the format.

    It settles the directory and ACI keys, the hash and the header of a block, and the container of the
    catalog. Code that depends on it looks up a table keyed by this enum, so that a generation is added by
    adding rows.
    """

    ONE = 1
