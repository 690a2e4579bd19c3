"""The formats of flists, by name."""

from typing import Final, Literal, TypeAlias, get_args

FormatName: TypeAlias = Literal["rocksdb", "sqlite"]
"""The name of a format: of 2017, and of 2018."""

FORMATS: Final[tuple[FormatName, ...]] = get_args(FormatName)
"""All names, the usual one first."""
