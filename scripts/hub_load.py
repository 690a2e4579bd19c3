"""Measure a hub under load for scripts/hub-load.

Longer than other files, since the Flask application to compare with is a text in it: gunicorn runs that in a
virtual environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import python_build  # noqa: E402  beside this file

from flistfs.tree.chunks import CHUNK_SIZE  # noqa: E402
from tests.hub.conftest import RunningHub  # noqa: E402
from tests.redis_server import free_port  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
USER = "alice"
LISTED = 1000
CONNECTIONS = 16
WORKERS = 2  # of gunicorn; sync ones end each connection after its answer, and wrk makes a new one
ROUNDS = 3
SAMPLING = 0.2  # seconds
STARTING = 30.0  # seconds that gunicorn has until it answers
TIMEOUT = 3600.0  # seconds that an upload may wait for its turn

FLASK_APP = '''\
"""What 0-hub answers for lists, light and downloads, but with MD5s that are computed once."""

import hashlib
import json
import os
import stat

from flask import Flask, Response, abort, send_from_directory

USERS = os.environ["HUB_USERS"]
app = Flask(__name__)
kept = {}


def md5_of(path, status):
    key = path, status.st_mtime_ns, status.st_size
    if key not in kept:
        with open(path, "rb") as file:
            kept[key] = hashlib.file_digest(file, "md5").hexdigest()
    return kept[key]


def as_json(value):
    return Response(json.dumps(value) + "\\n", content_type="application/json")


@app.after_request
def open_to_all(response):
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@app.route("/api/flist/<user>")
def entries(user):
    directory = os.path.join(USERS, user)
    if not os.path.isdir(directory):
        abort(404)
    found = []
    for name in sorted(os.listdir(directory)):
        status = os.lstat(os.path.join(directory, name))
        if stat.S_ISREG(status.st_mode):
            size = f"{status.st_size / 1024:.2f} KB"
            found.append({"name": name, "size": size, "updated": int(status.st_mtime), "type": "regular"})
    return as_json(found)


@app.route("/api/flist/<user>/<name>/light")
def light(user, name):
    name = name if name.endswith(".flist") else f"{name}.flist"
    path = os.path.join(USERS, user, name)
    if not os.path.isfile(path):
        abort(404)
    status = os.lstat(path)
    known = {"name": name, "size": status.st_size, "updated": int(status.st_mtime), "type": "regular"}
    return as_json(known | {"md5": md5_of(path, status)})


@app.route("/<user>/<name>.flist")
def download(user, name):
    return send_from_directory(os.path.join(USERS, user), f"{name}.flist")
'''

# wrk calls this at the end of a run; its times are in microseconds.
WRK_REPORT = """\
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        '\\n{"seconds": %f, "requests": %d, "bytes": %d, "refused": %d, "broken": %d}\\n',
        summary.duration / 1e6, summary.requests, summary.bytes,
        e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of both servers again and again; `target` is the least ratio of ours to Flask's."""

    what: str
    path: str
    target: float
    is_download: bool = False

    @property
    def unit(self) -> str:
        """Return what is counted."""
        return "MB/s" if self.is_download else "requests/s"

    def rate(self, found: dict[str, float]) -> float:
        """Return what one run of wrk means in the unit of the case."""
        return (found["bytes"] / 1e6 if self.is_download else found["requests"]) / found["seconds"]


DOWNLOADS = {"small": 200 * KIB, "large": 64 * MIB}
CASES = (
    Case("light", f"/api/flist/{USER}/package-000/light", 0.6),
    Case(f"list of {LISTED:,}", f"/api/flist/{USER}", 0.6),
    Case("download of 200 KiB", "/downloads/small.flist", 0.9, is_download=True),
    Case("download of 64 MiB", "/downloads/large.flist", 0.9, is_download=True),
)


# Servers


def new_hub(home: Path) -> RunningHub:
    """Return a hub that is not served yet, with one user and nothing else."""
    home.mkdir()
    hub = RunningHub(home)
    hub.add_user(USER)
    return hub


@contextmanager
def served(hub: RunningHub) -> Iterator[int]:
    """Serve a hub, and yield the process that does; it must end well, and log no bug."""
    hub.start()
    assert hub.process is not None
    try:
        yield hub.process.pid
    finally:
        hub.stop()
    assert "Traceback" not in hub.said(), hub.said()


def answered(url: str) -> bytes:
    """Return the body of the answer to a GET; raises `OSError` if there is none, or it is no success."""
    where = urlsplit(url)
    connection = HTTPConnection(where.netloc, timeout=STARTING)
    try:
        connection.request("GET", where.path)
        answer = connection.getresponse()
        body = answer.read()
    except HTTPException as error:
        raise OSError(f"{url}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"{url} is answered with {answer.status}")
    return body


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError):
            answered(url)
            return
        time.sleep(0.05)
    sys.exit("scripts/hub-load: gunicorn does not answer; what it wrote is above")


@contextmanager
def running_flask(venv: Path, users: Path, work: Path) -> Iterator[str]:
    """Serve a directory of repositories with the Flask application, and yield the URL."""
    (work / "reference.py").write_text(FLASK_APP)
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [venv / "bin" / "gunicorn", "--workers", str(WORKERS), "--bind", address]
    command += ["--worker-class", "sync", "--log-level", "warning", "--chdir", work, "reference:app"]
    server = subprocess.Popen(
        command, env={**os.environ, "HUB_USERS": str(users), "HOME": str(work)}, stdout=sys.stderr
    )
    try:
        wait_for(server, f"http://{address}/api/flist/{USER}")
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


# Lists and downloads


def fill(hub: RunningHub) -> None:
    """Put packages into a hub: one that it makes, and copies of that; and two to be downloaded.

    The bytes of those are random: whoever sends a package does not look into it.
    """
    with served(hub):
        assert upload(hub, 0, CHUNK_SIZE) == 200, hub.said()
    users = hub.data / "users"
    (made,) = (users / USER).iterdir()
    for number in range(LISTED):
        shutil.copyfile(made, users / USER / f"package-{number:03}.flist")
    made.unlink()
    (users / "downloads").mkdir()
    for name, size in DOWNLOADS.items():
        (users / "downloads" / f"{name}.flist").write_bytes(random.randbytes(size))


def compare_answers(ours: str, flask: str) -> None:
    """Make sure that both servers do the same work; this also lets them compute their MD5s."""
    for case in CASES:
        bodies = [answered(url + case.path) for url in (ours, flask)]
        if not case.is_download:
            bodies = [json.dumps(json.loads(body)).encode() for body in bodies]
        if bodies[0] != bodies[1]:
            sys.exit(f"scripts/hub-load: the servers disagree about {case.path}")


def load(url: str, case: Case, seconds: int, work: Path) -> tuple[float, int]:
    """Ask a server for one thing for some seconds; return the rate, and how many connections broke."""
    report = work / "report.lua"
    report.write_text(WRK_REPORT)
    command: list[str | Path] = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{seconds}s", "--timeout", "30s", "--script", report, url + case.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["refused"]:
        sys.exit(f"scripts/hub-load: {found['refused']} answers to {url}{case.path} were no success")
    return case.rate(found), int(found["broken"])


def measure_case(case: Case, urls: dict[str, str], seconds: int, work: Path) -> dict[str, Any]:
    """Measure both servers in turn."""
    rounds: dict[str, list[tuple[float, int]]] = {name: [] for name in urls}
    for _ in range(ROUNDS):
        for name, url in urls.items():
            rounds[name].append(load(url, case, seconds, work))
    found: dict[str, Any] = {
        name: statistics.median(rate for rate, _ in each) for name, each in rounds.items()
    }
    broken = {name: sum(count for _, count in each) for name, each in rounds.items()}
    ratio = found["flistfs"] / found["flask"]
    return {
        **found,
        "unit": case.unit,
        "ratio": ratio,
        "target": case.target,
        "met": ratio >= case.target,
        "broken": broken,
    }


def measure_serving(flask: Path, seconds: int, work: Path) -> dict[str, Any]:
    """Measure everything that changes nothing."""
    hub = new_hub(work / "serving")
    fill(hub)
    with ExitStack() as running:
        reference = running.enter_context(running_flask(flask, hub.data / "users", work))
        running.enter_context(served(hub))
        compare_answers(hub.url, reference)
        urls = {"flistfs": hub.url, "flask": reference}
        found = {case.what: measure_case(case, urls, seconds, work) for case in CASES}
    shutil.rmtree(hub.home)
    return found


# Uploads

CONTENT = memoryview(random.Random(1).randbytes(CHUNK_SIZE))  # cannot be compressed
SERIAL = 8  # bytes at the start of each chunk, which make it another one than all others


def archive(number: int, size: int) -> Iterator[bytes | memoryview]:
    """Yield a tar archive of one file of whole chunks, none of which is in another archive."""
    member = tarfile.TarInfo(f"file-{number}")
    member.size = size
    yield member.tobuf(tarfile.GNU_FORMAT)
    for chunk in range(size // CHUNK_SIZE):
        yield (number << 32 | chunk).to_bytes(SERIAL, "big")
        yield CONTENT[SERIAL:]
    yield bytes(2 * tarfile.BLOCKSIZE)


def form(number: int, size: int) -> tuple[dict[str, str], Iterator[bytes | memoryview]]:
    """Return the headers and the body of a form with an archive."""
    boundary = "flistfs-hub-load"
    disposition = f'form-data; name="file"; filename="upload-{number}.tar"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = len(head) + 3 * tarfile.BLOCKSIZE + size + len(tail)

    def body() -> Iterator[bytes | memoryview]:
        yield head
        yield from archive(number, size)
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(length),
    }
    return headers, body()


def upload(hub: RunningHub, number: int, size: int) -> int:
    """Upload an archive; return the status of the answer, or 0 if there was none."""
    headers, body = form(number, size)
    headers["Authorization"] = f"Bearer {hub.tokens[USER]}"
    connection = HTTPConnection(urlsplit(hub.url).netloc, timeout=TIMEOUT)
    try:
        connection.request("POST", "/api/flist/me/upload", body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException) as error:
        print(f"upload {number}: {error}", file=sys.stderr)
        return 0
    finally:
        connection.close()
    return answer.status


def children_of(process: int) -> set[int]:
    """Return the processes that any thread of a process has started; none once it has gone."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found


def peak_of(process: int) -> int:
    """Return the most memory that a process ever had, in bytes; 0 once it has gone."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
        return int(found[1]) * KIB if found else 0
    return 0


def is_packer(process: int) -> bool:
    """Return whether a child of the hub packs; before it does, it still shares the memory of the hub."""
    with suppress(OSError):
        return b"flistfs.hub.packer" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


@dataclass
class Memory:
    """The most memory that each process of a hub had, in bytes: the hub, packers, and their encoders."""

    hub: int
    server: int = 0
    packers: dict[int, int] = field(default_factory=dict)
    encoders: dict[int, int] = field(default_factory=dict)

    def look(self) -> None:
        """Take down what each process has had so far."""
        self.server = max(self.server, peak_of(self.hub))
        for packer in filter(is_packer, children_of(self.hub)):
            _note(self.packers, packer)
            for encoder in children_of(packer):
                _note(self.encoders, encoder)

    def as_json(self) -> dict[str, Any]:
        """Return them in MiB."""
        packers = [each / MIB for each in self.packers.values()]
        return {
            "hub": self.server / MIB,
            "packers seen": len(packers),
            "packer, median": statistics.median(packers or [0]),
            "packer, largest": max(packers, default=0),
            "encoder, largest": max(self.encoders.values(), default=0) / MIB,
        }


def _note(peaks: dict[int, int], process: int) -> None:
    peaks[process] = max(peaks.get(process, 0), peak_of(process))


@contextmanager
def watched(process: int) -> Iterator[Memory]:
    """Look at the memory of a hub all the time."""
    memory = Memory(process)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLING):
            memory.look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
    memory.look()


def measure_uploads(work: Path, count: int, size: int) -> dict[str, Any]:
    """Upload archives of `size` bytes at once, to a hub that has nothing yet."""
    require_space(work, count * size)
    hub = new_hub(work / "uploads")
    with served(hub) as process, watched(process) as memory, ThreadPoolExecutor(count) as clients:
        started = time.monotonic()
        answers = list(clients.map(partial(upload, hub, size=size), range(count)))
        seconds = time.monotonic() - started
    shutil.rmtree(hub.home)
    return {
        "uploads": count,
        "MiB each": size // MIB,
        "answered 200": answers.count(200),
        "seconds": seconds,
        "MiB/s": count * size / MIB / seconds,
        "peak MiB": memory.as_json(),
    }


def require_space(work: Path, size: int) -> None:
    """Exit unless a hub may get so many bytes: its blocks take as much, and what packers keep some more."""
    needed, free = size * 5 // 4 + GIB, shutil.disk_usage(work).free
    if free < needed:
        sys.exit(
            f"scripts/hub-load: {work} has {free / GIB:.0f} GiB free, {needed / GIB:.0f} GiB are needed; "
            "set TMPDIR, or upload less (--uploads, --size, --large)"
        )


# Reporting


def machine(flask: Path) -> dict[str, str | int]:
    """Return what the measurements depend on apart from flistfs."""
    asked = "from importlib.metadata import version as of; print(of('flask'), of('gunicorn'))"
    done = subprocess.run([flask / "bin" / "python", "-c", asked], capture_output=True, text=True, check=True)
    of_flask, of_gunicorn = done.stdout.split()
    return {
        "python": python_build.describe(),
        "reference": f"Flask {of_flask}, gunicorn {of_gunicorn} with {WORKERS} sync workers",
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
    }


def print_serving(found: dict[str, Any]) -> None:
    print(
        f"\n{f'{CONNECTIONS} connections':24}{'flistfs':>10}{'Flask':>10}{'':12}{'ratio':>6}{'target':>8}\n"
    )
    for what, each in found.items():
        rates = f"{each['flistfs']:10.0f}{each['flask']:10.0f} {each['unit']:11}"
        verdict = "" if each["met"] else "  missed"
        print(f"{what:24}{rates}{each['ratio']:6.2f}{each['target']:8.1f}{verdict}")
        for name, count in each["broken"].items():
            if count:
                print(f"    {name}: {count} connections broke or gave no answer")


def print_uploads(found: dict[str, Any]) -> None:
    peak = found["peak MiB"]
    print(
        f"\nuploads of {found['MiB each']:,} MiB at once: {found['uploads']}, answered 200: "
        f"{found['answered 200']}; {found['seconds']:.1f} s, {found['MiB/s']:.0f} MiB/s\n"
        f"    most memory, MiB: hub {peak['hub']:.0f}; packers {peak['packer, median']:.0f} (median of "
        f"{peak['packers seen']}), {peak['packer, largest']:.0f} (largest); "
        f"their encoders {peak['encoder, largest']:.0f}"
    )


def print_growth(found: dict[str, Any]) -> None:
    few, many = found["one upload"]["peak MiB"], found["one large upload"]["peak MiB"]
    ratios = (f"{name} {many[name] / few[name]:.2f}" for name in few if few[name] and name != "packers seen")
    print(f"\nmemory of the large upload, relative to the small one: {', '.join(ratios)}")


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure whatever the options choose, and print each part once it is known."""
    show = not options.json
    found: dict[str, Any] = {"serving": measure_serving(options.flask, 1 if options.quick else 3, work)}
    if show:
        print_serving(found["serving"])
    uploads: dict[str, tuple[int, int]] = {}
    if options.uploads:
        uploads["uploads"] = options.uploads, options.size * MIB
    if options.large:
        uploads |= {"one upload": (1, options.size * MIB), "one large upload": (1, options.large * GIB)}
    for name, (count, size) in uploads.items():
        found[name] = measure_uploads(work, count, size)
        if show:
            print_uploads(found[name])
    if show and options.large:
        print_growth(found)
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/hub-load")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--quick", action="store_true", help="rounds of 1 s instead of 3, and 4 uploads of 8 MiB"
    )
    parser.add_argument("--uploads", type=int, metavar="N", help="how many at once; default 50, 0 for none")
    parser.add_argument("--size", type=int, metavar="MIB", help="how large each of them is; default 100")
    parser.add_argument("--large", type=int, metavar="GIB", help="upload one of this size, too")
    parser.add_argument("--flask", type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.uploads is None:
        options.uploads = 4 if options.quick else 50
    if options.size is None:
        options.size = 8 if options.quick else 100
    return options


def main() -> None:
    """Measure and report."""
    options = parsed()
    report: dict[str, Any] = {"machine": machine(options.flask)}
    if not options.json:
        print("\n".join(f"{name}: {value}" for name, value in report["machine"].items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="flistfs-hub-load-") as directory:
        report |= measure(options, Path(directory))
    if options.json:
        print(json.dumps(report, indent=2))
    if any(each.get("answered 200") != each.get("uploads") for each in report.values()):
        sys.exit("scripts/hub-load: not every upload was answered with 200")


if __name__ == "__main__":
    main()
