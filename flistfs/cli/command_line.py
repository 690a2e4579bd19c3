"""All commands, by name, and how they end."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

import click

from flistfs.api import process
from flistfs.cli import answers, interrupts, streams
from flistfs.cli.messages import spoken
from flistfs.cli.secrets import hide_passwords
from flistfs.errors import FlistfsError, InternalError, InterruptedByUserError, OutputError, UsageError

# Command: the module that has it under the same name. Loaded when it is called, so that `flistfs ls` does
# not pay for what only a mount needs.
COMMANDS = (
    "abort",
    "add",
    "cat",
    "config",
    "convert",
    "diff",
    "extract",
    "find",
    "hub",
    "info",
    "ls",
    "merge",
    "mount",
    "new",
    "pack",
    "publish",
    "push",
    "route",
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

    def invoke(self, ctx: click.Context) -> object:
        """Run a command, and print what it has answered; click calls this."""
        result = super().invoke(ctx)
        answers.end_answer()
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
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
        for line in error.details:
            click.echo(streams.on_one_line(line), err=True)
        _complain(str(error))
        _end_answer(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        _end_answer(UsageError(error.format_message()))
        return UsageError.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        exit_code = interrupts.exit_code()
        _end_answer(InterruptedByUserError("interrupted"), exit_code)
        return exit_code
    except streams.OutputClosedError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if os.environ.get("FLISTFS_DEBUG"):
            raise
        message = f"this is a bug: {type(error).__name__}: {error} (FLISTFS_DEBUG=1 shows where)"
        _complain(message)
        _end_answer(InternalError(message))
        return 1
    return code or 0


def _end_answer(error: FlistfsError, exit_code: int | None = None) -> None:
    """Print the answer as far as it got, with the error, if it was to be in JSON.

    The options are looked at, as an error may come before they are parsed. What cannot be printed changes no
    exit code.
    """
    if "--json" in itertools.takewhile(lambda word: word != "--", sys.argv[1:]):
        with suppress(OutputError, streams.OutputClosedError):
            from flistfs.cli import documents  # noqa: PLC0415  only this needs it

            document = documents.error(error)
            answers.end_answer(document if exit_code is None else document | {"exit_code": exit_code})


def _complain(message: str) -> None:
    click.echo(f"flistfs: {streams.on_one_line(spoken(message))}", err=True)
