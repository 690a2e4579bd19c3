"""All commands, by name, and how they end."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from flistfs.api import process
from flistfs.cli import interrupts, streams
from flistfs.cli.messages import spoken
from flistfs.cli.output import print_json_error
from flistfs.cli.secrets import hide_passwords
from flistfs.errors import FlistfsError, InterruptedByUserError, OutputError, UsageError

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


class _Group(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        with interrupts.loading():
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


def run() -> NoReturn:
    """Run the command that this process was started for, and end with its exit code."""
    streams.prepare()
    hide_passwords()
    process.own(interrupts.loading)
    code = _run()
    with suppress(OutputError, streams.OutputClosedError):
        sys.stdout.flush()  # after an error, which was said already
    interrupts.end_at_once()  # nothing is left to be removed
    sys.exit(code)


def _run() -> int:
    try:
        interrupts.clean_up_first()
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except FlistfsError as error:
        _complain(str(error))
        _print_error(error.code, error.exit_code, str(error), error.paths)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        _print_error(UsageError.code, error.exit_code, error.format_message())
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = interrupts.exit_code()
        _print_error(InterruptedByUserError.code, code, "interrupted")
        return code
    except streams.OutputClosedError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("FLISTFS_DEBUG"):
            raise
        message = f"this is a bug: {type(error).__name__}: {error} (FLISTFS_DEBUG=1 shows where)"
        _complain(message)
        _print_error("bug", 1, message)
        return 1
    return code or 0


def _print_error(code: str, exit_code: int, message: str, paths: Sequence[str] = ()) -> None:
    """With --json among the words, print the error as a document too; it keeps its own exit code."""
    options = itertools.takewhile(lambda word: word != "--", sys.argv[1:])
    if "--json" not in options:
        return
    with suppress(OutputError, streams.OutputClosedError):
        print_json_error(code, exit_code, message, paths)


def _complain(message: str) -> None:
    click.echo(f"flistfs: {streams.on_one_line(spoken(message))}", err=True)
