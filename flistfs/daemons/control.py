"""How commands talk to a session's daemon.

Over the socket `control` in the session's directory, which is its user's alone: a request is one line of
JSON, {"op": …}. The answer is lines of JSON: any number of {"progress": …}, then {"result": …} or
{"error": …}, which is a `FlistfsError` as a JSON object.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flistfs.errors import FlistfsError, NoPlaceError, SessionError, error_class
from flistfs.util.progress import Progress, Report

MAX_REQUEST = 8 << 20
"""A request is at most this long, in bytes: the largest router, in the longest spelling that JSON has."""

# A daemon that is alive answers at once, or tells its progress; after this many seconds of silence it hangs.
MAX_SILENCE = 60.0


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a short form of a socket's path: an address holds 108 bytes, a session's path may be longer."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def error_of(raw: dict[str, Any]) -> FlistfsError:
    """Return the error of which a daemon wrote `as_dict`."""
    if raw["code"] == NoPlaceError.code:
        no_place = [(each["path"], each["why"]) for each in raw["paths"]]
        return NoPlaceError(raw["message"], no_place, raw["count"])
    paths = [each["path"] for each in raw["paths"]]
    return error_class(raw["code"], raw["exit_code"])(raw["message"], paths=paths, count=raw["count"])


def ask(
    control: Path,
    request: dict[str, Any],
    on_progress: Progress | None = None,
    *,
    silence: float = MAX_SILENCE,
) -> dict[str, Any]:
    """Send a request to the daemon that listens at `control`, and return its result.

    A daemon that is silent for `silence` seconds is taken to hang.

    Raises:
        SessionError: there is no daemon, it belongs to somebody else, or it went away.
        FlistfsError: what the daemon answered, with its exit code.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(silence)
    with connection:
        try:
            with short_path(control) as address:
                connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            return _result(connection, on_progress)
        except PermissionError:
            raise SessionError(f"the session in {control.parent} belongs to another user") from None
        except TimeoutError:
            raise SessionError(
                f"the daemon of {control.parent} does not answer; its log is {control.parent / 'log'}"
            ) from None
        except OSError as error:
            raise SessionError(f"no daemon is running for {control.parent}: {error.strerror}") from None


def _result(connection: socket.socket, on_progress: Progress | None) -> dict[str, Any]:
    with connection.makefile("rb") as lines:
        for line in lines:
            answer = json.loads(line)
            if "error" in answer:
                raise error_of(answer["error"])
            if "result" in answer:
                result: dict[str, Any] = answer["result"]
                return result
            if on_progress is not None and answer["progress"]:
                on_progress(Report(**answer["progress"]))
    raise SessionError("the daemon ended while it was asked; its log says why. The session is kept")
