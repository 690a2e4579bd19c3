"""Patterns of what is left out, and files that hold them."""

from flistfs.sources.excludes import excluding, read_patterns

__all__ = ["excluding", "read_patterns"]
