"""The command line: one small module a command; they parse, call and print."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from flistfs.cli.secrets import hide_passwords
from flistfs.errors import FlistfsError

# Command: the module that has it under the same name. Loaded when it is called, so that `flistfs ls` does
# not pay for what only a mount needs.
_COMMANDS = (
    "abort",
    "add",
    "cat",
    "diff",
    "extract",
    "find",
    "info",
    "ls",
    "merge",
    "mount",
    "new",
    "pack",
    "push",
    "seal",
    "stat",
    "status",
    "sync",
    "tree",
    "verify",
    "wait",
)


class _NobodyReadsError(Exception):
    """Standard output is a pipe that was closed at its other end."""


class _Group(click.Group):
    """Commands that are imported when they are asked for."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. Click would end with 1 where nobody reads, which is the code of a bug."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _NobodyReadsError from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"flistfs.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101  the type checker's
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flistfs")
def cli() -> None:
    """Author Zero-OS flists through a mount: copy files in, seal, done.

    \b
    Example:
      flistfs mount /mnt/build --store ardb://host:16379
      cp -a rootfs/. /mnt/build/
      flistfs seal out.flist
    """


def main() -> NoReturn:
    """Run the command line; errors become one line and an exit code."""
    hide_passwords()
    # What is logged is for a session's log; without this, Python would print warnings on standard error.
    logging.getLogger("flistfs").addHandler(logging.NullHandler())
    terminated = _ending_like_ctrl_c()
    try:
        code = cli.main(standalone_mode=False)
    except FlistfsError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(143 if terminated() else 130)
    except _NobodyReadsError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads: nothing to say at exit either
        sys.exit(141)
    except Exception as error:
        if os.environ.get("FLISTFS_DEBUG"):
            raise
        _complain(f"this is a bug: {type(error).__name__}: {error} (FLISTFS_DEBUG=1 shows where)")
        sys.exit(1)
    sys.exit(code or 0)


def _ending_like_ctrl_c() -> Callable[[], bool]:
    """Let SIGTERM end a command in the way of Ctrl-C, which removes what was made; tells whether it came."""
    came = False

    def end(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    return lambda: came


def _complain(message: str) -> None:
    click.echo(f"flistfs: {message}", err=True)
