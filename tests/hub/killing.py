"""Kill a hub at any moment, and see that nothing is lost that it had answered for, and nothing is half there.

One client works in a repository: uploads, copies, renames, removes. What was answered has to be there after a
kill; of the one request that was not answered, either nothing or all.

    python -m tests.hub.killing --kills 50 --seed 1
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx2

import flistfs
from tests.hub.conftest import RunningHub, archive

State = Mapping[str, bytes]
"""What each flist of the repository has in its file."""

_NAMES = ("a", "b", "c", "d")
_MAX_SIZE = 3 << 20
_LONGEST = 6.0  # seconds until a kill


class LossError(AssertionError):
    """Something that was promised is not there, or something else is."""


@dataclass(frozen=True)
class Step:
    """A request, and what the repository has once it is answered."""

    text: str
    send: Callable[[httpx2.Client], httpx2.Response]
    after: State


def steps(state: State, chance: random.Random) -> Iterator[Step]:
    """Yield requests without end; each is answered before the next is asked for."""
    while True:
        name = chance.choice(_NAMES)
        others = [each for each in _NAMES if each not in state]
        kind = chance.choice(("upload", "upload", "upload-flist", "copy", "rename", "remove", "convert"))
        if kind == "upload" or name not in state:
            step = _upload(state, name, chance.randbytes(chance.randrange(_MAX_SIZE)))
        elif kind in {"copy", "convert", "upload-flist"}:
            step = _copy(state, name, chance.choice(_NAMES), kind)
        elif kind == "rename" and others:
            new = chance.choice(others)
            after = {**state, new: state[name]}
            del after[name]
            step = _asked(f"{name}/rename/{new}", after)
        else:
            after = {each: content for each, content in state.items() if each != name}
            step = _removal(name, after)
        yield step
        state = step.after


def _removal(name: str, after: State) -> Step:
    return Step(f"remove {name}", lambda client: client.delete(f"/api/flist/me/{name}"), after)


def _asked(path: str, after: State) -> Step:
    return Step(path, lambda client: client.get(f"/api/flist/me/{path}"), after)


def _upload(state: State, name: str, content: bytes) -> Step:
    files = {"file": (f"{name}.tar", archive({"content": content}, "w"))}
    return Step(
        f"upload {name}",
        lambda client: client.post("/api/flist/me/upload", files=files),
        {**state, name: content},
    )


def _copy(state: State, name: str, new: str, kind: str) -> Step:
    after = {**state, new: state[name]}
    if kind == "copy":
        return _asked(f"promote/alice/{name}/{new}", after)
    if kind == "convert":
        path = f"/api/flist/me/convert/alice/{name}/{new}?format=sqlite"
        return Step(f"convert {name} to {new}", lambda client: client.post(path), after)

    def send(client: httpx2.Client) -> httpx2.Response:
        package = client.get(f"/alice/{name}.flist").content
        return client.post("/api/flist/me/upload-flist", files={"file": (f"{new}.flist", package)})

    return Step(f"send {name} as {new}", send, after)


@dataclass
class Campaign:
    """Kills of one hub.

    Attributes:
        home: Where it is.
        chance: What is done, and when it is killed.
        state: What the repository had when a request was answered last.
        pending: The request that is not answered yet.
    """

    home: Path
    chance: random.Random
    state: State = field(default_factory=dict)
    pending: Step | None = None
    answered: int = 0

    def run(self, kills: int) -> None:
        """Serve the hub, and kill it so many times; raises `LossError`."""
        hub = RunningHub(self.home)
        hub.add_user("alice")
        for _ in range(kills):
            hub.start()
            try:
                self.compare(hub)
                self._work_until_killed(hub)
            finally:
                hub.stop(kill=True)
            hub.run("hub", "check", "--data", hub.data)
        hub.start()
        self.compare(hub)
        hub.stop()

    def _work_until_killed(self, hub: RunningHub) -> None:
        is_over = threading.Event()
        failed: list[Exception] = []

        def work() -> None:
            try:
                self._work(hub, is_over)
            except Exception as error:  # noqa: BLE001  told by the thread that waits
                failed.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(self.chance.random() * _LONGEST)
        assert hub.process is not None
        is_over.set()
        hub.process.kill()
        worker.join()
        if failed:
            raise failed[0]

    def _work(self, hub: RunningHub, is_over: threading.Event) -> None:
        with hub.client("alice") as client:
            for step in steps(self.state, self.chance):
                self.pending = step
                try:
                    answer = step.send(client)
                except httpx2.HTTPError:
                    if is_over.is_set():
                        return
                    raise
                if answer.status_code != 200:
                    raise LossError(f"{step.text}: {answer.status_code} {answer.text}")
                self.state, self.pending = step.after, None
                self.answered += 1

    def compare(self, hub: RunningHub) -> None:
        """Look at all that is there; whichever way the pending request went is how it is from now on."""
        if left := [*(hub.data / "incoming").iterdir()]:
            raise LossError(f"something is left in incoming: {left}")
        found = self._found(hub)
        possible = [self.state, *([self.pending.after] if self.pending else [])]
        if found not in possible:
            differing = [
                name for name in _NAMES if all(found.get(name) != each.get(name) for each in possible)
            ]
            text = self.pending.text if self.pending else "nothing"
            raise LossError(f"{differing or sorted(found)} differ, with {text} pending")
        self.state, self.pending = found, None

    def _found(self, hub: RunningHub) -> State:
        found = {}
        with hub.client() as client:
            listed = client.get("/api/flist/alice")
            for entry in listed.json() if listed.status_code == 200 else ():
                name = entry["name"]
                package = client.get(f"/alice/{name}").content
                if client.get(f"/alice/{name}.md5").text.strip() != hashlib.md5(package).hexdigest():
                    raise LossError(f"the MD5 of {name} is wrong")
                (self.home / "package.flist").write_bytes(package)
                with flistfs.open(self.home / "package.flist", store=f"dir://{hub.data}/blocks") as flist:
                    found[name.removesuffix(".flist")] = b"".join(flist.read("content"))
        return found


def main() -> None:
    """Kill a hub as often as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    click.echo(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as home:
        campaign = Campaign(Path(home), random.Random(given.seed))
        campaign.run(given.kills)
        click.echo(f"{given.kills} kills, {campaign.answered} requests answered: nothing was lost")


if __name__ == "__main__":
    main()
