"""The command line: one small module a command; they parse, call and print.

Nothing that takes time is imported here: most of a command's first half second goes into loading it, and
Ctrl-C must find a handler by then.
"""

from __future__ import annotations

from typing import NoReturn

from flistfs.cli import interrupts


def main() -> NoReturn:
    """Run the command line; errors become one line and an exit code."""
    interrupts.end_at_once()
    from flistfs.cli.command_line import run  # noqa: PLC0415  see above

    run()
