"""`python -m flistfs`: the command line."""

from __future__ import annotations

from flistfs.cli import main

if __name__ == "__main__":
    main()
