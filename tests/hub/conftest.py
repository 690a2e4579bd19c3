"""A hub that is served by the real command, and who asks it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx2
import pytest

from tests.redis_server import free_port

FLISTFS = Path(sys.executable).with_name("flistfs")
TIMEOUT = 120


@dataclass
class RunningHub:
    """A hub in a directory; `client` asks it without a token, and `tokens` has one for each user."""

    home: Path
    options: tuple[str, ...] = ()
    blocks_port: int = field(default_factory=free_port)
    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    log: IO[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.home / "hub"

    @property
    def env(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLISTFS_")}
        return {
            **inherited,
            **{f"XDG_{kind}_HOME": str(self.home) for kind in ("DATA", "STATE", "CACHE", "CONFIG")},
        }

    @property
    def blocks(self) -> str:
        return f"zdb://127.0.0.1:{self.blocks_port}"

    def run(
        self, *arguments: str | Path, code: int = 0, stdin: str = "", user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `flistfs` in the home of whoever has the hub, as a user of it if one is named."""
        as_user = {} if user is None else {"FLISTFS_HUB": self.url, "FLISTFS_HUB_TOKEN": self.tokens[user]}
        done = subprocess.run(
            [FLISTFS, *arguments],
            env={**self.env, **as_user},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            input=stdin,
        )
        assert done.returncode == code, (
            f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        assert "Traceback" not in done.stderr
        return done

    def add_user(self, name: str, scope: str = "write") -> str:
        self.run("hub", "user", "add", name, "--data", self.data)
        token = self.run("hub", "token", "new", name, "--scope", scope, "--data", self.data).stdout.strip()
        self.tokens[name] = token
        return token

    def start(self) -> None:
        blocks = f"127.0.0.1:{self.blocks_port}"
        command: list[str | Path] = [
            FLISTFS,
            "hub",
            "serve",
            "--data",
            self.data,
            "--listen",
            "127.0.0.1:0",
            "--json",
        ]
        command += ["--blocks", blocks, "--public-store", f"zdb://{blocks}", *self.options]
        self.log = (self.home / "log").open("ab")
        self.process = subprocess.Popen(
            command,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.home / "log").read_text()
        self.url = json.loads(line)["url"]

    def stop(self, *, kill: bool = False) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self.log is not None
        (self.process.kill if kill else self.process.terminate)()
        code = self.process.wait(TIMEOUT)
        self.process.stdout.close()
        self.log.close()
        assert kill or code == 0, self.said()

    def client(self, user: str | None = None, **headers: str) -> httpx2.Client:
        if user is not None:
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        return httpx2.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def said(self) -> str:
        return (self.home / "log").read_text()


@contextmanager
def running_hub(home: Path, *options: str) -> Iterator[RunningHub]:
    """Serve a hub with the users `alice` and `bob`; a bug of it fails the test."""
    hub = RunningHub(home, options)
    for name in ("alice", "bob"):
        hub.add_user(name)
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()
    assert "Traceback" not in hub.said(), hub.said()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub that the tests of a module share."""
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def uploaded(client: httpx2.Client, archive: bytes, name: str, **fields: str) -> Any:  # noqa: ANN401  JSON
    """Upload an archive, and return the answer."""
    answer = client.post("/api/flist/me/upload", files={"file": (name, archive)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["payload"]


def archive(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    written = io.BytesIO()
    with tarfile.open(None, mode, written) as tar:  # type: ignore[call-overload]
        root = tarfile.TarInfo("./")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(root)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def said(answer: httpx2.Response, status: int) -> str:
    """What an error says, in the shape that clients know."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert found["status"] == "error"
    assert found.keys() == {"status", "message"}
    return str(found["message"])
