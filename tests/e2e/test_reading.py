"""The commands on sealed flists, as a user calls them: what comes out, and with which code."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.format.rocksdb.package import unpack_package
from flistfs.format.zeroos.records import Aci, encode_aci
from flistfs.reading.flist import Flist
from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import FLISTFS, TIMEOUT, Home, shell, wait_until, watched
from tests.e2e.test_seal_ends import read_terminal
from tests.generation1 import aci_key, directory_key, open_store
from tests.needs import needs_old_flist
from tests.reading.making import DIR, Item, change_entry, looks, packed, records_of
from tests.redis_server import RedisServer, running_redis
from tests.snapshots import Snap, snapshot
from tests.trees import LATEST, SECOND, make_everything

TREE = {
    b"etc": DIR,
    b"etc/os-release": Item("link", b"../usr/lib/os-release"),
    b"usr": DIR,
    b"usr/lib": DIR,
    b"usr/lib/os-release": Item(what=b"NAME=here\n"),
    b"usr/lib/big": Item(what=os.urandom(3 * CHUNK_SIZE + 5)),
    b"odd\n\xff": Item(),
    b"null": Item("char", b"1,3", mode=0o666),
}


@pytest.fixture
def package(home: Home) -> Path:
    """An flist whose blocks are in the user's default store."""
    return packed(home.path / "a.flist", records_of(TREE, open_store(f"dir://{home.blocks}")))


def test_a_tree_comes_back_as_it_was(home: Home, mountpoint: Path, source: Path) -> None:
    make_everything(source)
    wanted = snapshot(source)
    home.run("mount", mountpoint)
    shell('cp -a "$SOURCE"/. .', cwd=mountpoint, SOURCE=str(source))
    home.run("seal", "out.flist")
    assert "no faults" in home.run("verify", "out.flist", "--deep").stdout
    found = home.json("extract", "out.flist", "copy")
    got = snapshot(home.path / "copy")
    assert {path: _comparable(snap) for path, snap in got.items()} == {
        path: _comparable(snap) for path, snap in wanted.items()
    }
    assert found["files"] == sum(snap.kind == "file" for snap in wanted.values())
    assert found["foreign"] == found["set_id"] == 0


def _comparable(snap: Snap) -> Snap:
    """What an flist holds: whole seconds from 1970 to 2106; hard links are files of their own there."""
    seconds = min(max(snap.mtime_ns // SECOND, 0), LATEST)
    return replace(snap, size=0 if snap.kind == "dir" else snap.size, nlink=0, mtime_ns=seconds * SECOND)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "-lR"],
        ["tree"],
        ["stat", "etc/passwd"],
        ["find", "--name", "*.conf"],
        ["info"],
        ["verify", "--no-store"],
        ["diff"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_real_flist_goes_through_every_command(home: Home, arguments: list[str]) -> None:
    real = needs_old_flist()
    unpacked = home.path / "unpacked"
    unpack_package(real, unpacked)
    command, *rest = arguments
    packages = [real, unpacked] if command == "diff" else [real]
    said = home.run(command, *packages, *rest).stdout
    answer = home.json(command, *packages, *rest)
    if command == "diff":
        assert (said, answer["differences"]) == ("", [])
        return
    assert home.run(command, unpacked, *rest).stdout == said
    assert said.isprintable() or "\n" in said
    if command == "info":
        assert answer["kinds"] == {"directory": 1084, "file": 8970, "link": 1811, "char": 54, "block": 25}
        assert (answer["blocks"], answer["unique_blocks"], answer["format"]) == (9109, 8857, "rocksdb")
        assert "8,970 files, 1,084 directories, 1,811 links, 79 special files" in said
    elif command in {"ls", "tree", "find"}:
        assert len(answer["entries"]) == {"ls": 11943, "tree": 11943, "find": 122}[command]


def test_cat_follows_links_and_checks_the_store(home: Home, package: Path) -> None:
    assert home.run("cat", package, "etc/os-release", "/usr/lib/os-release").stdout == "NAME=here\n" * 2
    big = subprocess.run(
        [FLISTFS, "cat", package, "usr/lib/big"], env=home.environment(), capture_output=True, check=True
    ).stdout
    assert big == TREE[b"usr/lib/big"].what
    assert "is a directory" in home.run("cat", package, "etc", code=8).stderr
    assert "there is no" in home.run("cat", package, "nothing", code=8).stderr
    refused = home.run("cat", package, "usr/lib/big", "--store", f"dir://{home.path}/empty", code=7)
    assert len(refused.stderr.splitlines()) == 1


def test_cat_as_json(home: Home, package: Path) -> None:
    answer = home.listed("cat", package, "usr/lib/big", "etc/os-release", "odd\n\udcff")
    assert [(each["path"], each["size"]) for each in answer] == [
        ("usr/lib/big", 3 * CHUNK_SIZE + 5),
        ("usr/lib/os-release", 10),
        ("odd\n\ufffd", 0),
    ]
    assert base64.b64decode(answer[2]["path_bytes"]) == b"odd\n\xff"
    contents = [base64.b64decode(each["base64"], validate=True) for each in answer]
    assert contents == [TREE[b"usr/lib/big"].what, b"NAME=here\n", b""]


def test_a_damaged_record_is_named(home: Home) -> None:
    records = records_of(TREE)
    records[directory_key(b"usr")] = b"no record"
    package = packed(home.path / "b.flist", records)
    looks: list[tuple[str, list[str | Path]]] = [
        ("ls", ["-R"]),
        ("tree", []),
        ("find", []),
        ("info", []),
        ("diff", [package]),
        ("stat", ["usr"]),
    ]
    for command, rest in looks:
        refused = home.run(command, package, *rest, code=8).stderr
        assert refused.startswith("flistfs: usr is damaged: malformed directory record"), command
        assert refused.endswith("(flistfs verify --no-store lists all faults)\n")
    del records[directory_key(b"")]
    packed(home.path / "b.flist", records)
    assert "it has no root directory" in home.run("ls", package, code=8).stderr


@pytest.mark.parametrize("command", [["cat", "usr/lib/big"], ["ls"], ["find"]], ids=lambda words: words[0])
def test_a_reader_that_leaves_ends_it_quietly(home: Home, package: Path, command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    name, *rest = command
    done = subprocess.run(
        [FLISTFS, name, package, *rest],
        env=home.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=TIMEOUT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("command", "rest"),
    [("cat", ["usr/lib/big"]), ("extract", ["out"]), ("verify", ["--deep"]), ("verify", [])],
    ids=["cat", "extract", "verify --deep", "verify"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("way", ["named", "routed"])
def test_signals_end_what_waits_for_its_store(
    home: Home, tmp_path: Path, command: str, rest: list[str], number: signal.Signals, way: str
) -> None:
    home.env["TMPDIR"] = str(tmp_path)
    with running_redis() as server:
        router = f"pools: {{a: {{'00:FF': '{server.url}'}}}}\nlookup: [a]\n".encode()
        records = records_of(TREE, open_store(server.url))
        package = packed(home.path / "b.flist", records, router if way == "routed" else None)
        named = [] if way == "routed" else ["--store", server.url]
        server.hang()
        port = f":{server.port:04X}"
        before = _connections(port)
        with home.started(command, package, *rest, *named) as running:
            wait_until(lambda: _connections(port) > before, "it is connected to the store")
            time.sleep(0.3)  # it waits for an answer now
            running.send_signal(number)
            # Else the store is given up, and the code is another.
            out, err = running.communicate(timeout=TIMEOUT)
        assert (running.returncode, out, err.strip()) == (128 + number, "", "")
        assert [*tmp_path.glob("flistfs-*")] == []  # the catalog that was unpacked


def _connections(port: str) -> int:
    """Connections to a port, as the kernel lists them: in a line's third column, in hex."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(port) for line in lines)


def test_verify_lists_faults_and_has_its_own_code(home: Home, package: Path, redis: RedisServer) -> None:
    assert home.run("verify", package).stdout == "no faults in 4 directories and 3 files (5 blocks)\n"
    next(path for path in home.blocks.rglob("*") if path.is_file()).unlink()
    failed = home.run("verify", package, code=10)
    assert failed.stderr.endswith(f"a.flist has 1 fault (blocks were looked for in dir://{home.blocks})\n")
    assert failed.stdout.startswith("usr/lib/")
    assert "is not in the store" in failed.stdout
    answer = json.loads(home.run("verify", package, "--json", "--deep", code=10).stdout)
    assert answer["faults"][0]["path"].startswith("usr/lib/")
    assert len(answer["faults"]) == 1
    # Another store, by its variable, has none of them.
    answer = home.run("verify", package, "--json", env={"FLISTFS_STORE": redis.url}, code=10).stdout
    assert len(json.loads(answer)["faults"]) == 5
    assert "leave one out" in home.run("verify", package, "--deep", "--no-store", code=2).stderr
    assert "cannot reach" in home.run("verify", package, "--store", "redis://127.0.0.1:1", code=3).stderr


@pytest.mark.parametrize(
    ("command", "phases"),
    [
        (["verify", "a.flist"], ["Reading the flist", "Checking blocks"]),
        (["extract", "a.flist", "out"], ["Reading the flist", "Extracting"]),
        (["merge", "-o", "out.flist", "a.flist"], ["Reading the flist", "Writing the catalog", "Packing"]),
        (["info", "a.flist"], ["Reading the flist"]),
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_shows_progress(home: Home, package: Path, command: list[str], phases: list[str]) -> None:
    assert package.name == "a.flist"
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [FLISTFS, *command],
        cwd=home.path,
        env=home.environment(TERM="xterm", COLUMNS="100", LINES="30"),
        stderr=follower,
        stdout=subprocess.DEVNULL,
    )
    with watched(process):
        os.close(follower)
        shown = read_terminal(leader)
    assert process.returncode == 0
    last = shown[shown.rindex(phases[0]) :]
    assert [phase for phase in phases if phase in last] == phases
    assert last.count("100%") == len(phases)


def test_the_largest_none_are_a_summary_all_the_same(home: Home, package: Path) -> None:
    summary, none = home.json("info", package), home.json("info", package, "--largest", "0")
    assert none == {**summary, "largest": []}
    assert none["size"] > 0


def test_verify_names_faults_on_one_line(home: Home) -> None:
    records = records_of(TREE)
    change_entry(records, b"odd\n\xff", lambda entry: replace(entry, attributes=None))
    package = packed(home.path / "bad.flist", records)
    failed = home.run("verify", package, "--no-store", code=10)
    assert failed.stdout.splitlines() == [
        "odd\\n\\xff: it has no attributes: the whole flist cannot be mounted"
    ]


def test_find_and_stat(home: Home, package: Path) -> None:
    assert home.run("find", package, "--type", "f", "--min-size", "1K").stdout == "usr/lib/big\n"
    assert home.run("find", package, "./etc//", "--name", "os-*").stdout == "etc/os-release\n"
    raw = subprocess.run(
        [FLISTFS, "find", package, "--name", "odd*", "-0"],
        env=home.environment(),
        capture_output=True,
        check=True,
    ).stdout
    assert raw == b"odd\n\xff\0"
    (found,) = home.listed("find", package, "--type", "c")
    assert (found["path"], found["kind"], found["device"]) == ("null", "char", "1,3")
    (found,) = home.listed("stat", package, "usr/lib/os-release")
    assert found["block_refs"][0]["key"] == hashlib.sha256(b"NAME=here\n").hexdigest()
    assert "mode: 0644 (-rw-r--r--)" in home.run("stat", package, "usr/lib/big").stdout


def test_tree(home: Home, package: Path) -> None:
    assert home.run("tree", package, "usr").stdout.splitlines() == [
        "usr",
        "└── lib",
        "    ├── big",
        "    └── os-release",
        "",
        "1 directory, 2 files",
    ]
    assert home.run("tree", package, "-L", "1").stdout.splitlines()[1:4] == [
        "├── etc",
        "├── null",
        "├── odd\\n\\xff",
    ]
    assert [each["path"] for each in home.listed("tree", package, "etc")] == ["etc/os-release"]


def test_info_shows_no_password(home: Home) -> None:
    router = b"pools: {hub: {'00:FF': 'ardb://secret@host:1'}}\nlookup: [hub]\n"
    package = packed(home.path / "r.flist", records_of(TREE), router)
    said = home.run("info", package).stdout + json.dumps(home.json("info", package))
    assert "ardb://host:1" in said
    assert "secret" not in said


def test_diff_says_what_changed(home: Home, package: Path) -> None:
    other = {**TREE, b"usr/lib/os-release": Item(what=b"NAME=there\n", mode=0o600), b"new": Item()}
    del other[b"null"]
    packed(home.path / "b.flist", records_of(other))
    assert home.run("diff", package, "b.flist").stdout.splitlines() == [
        "+ new",
        "- null",
        "c usr/lib/os-release (content, mode 0644 to 0600)",
    ]
    changes = home.listed("diff", package, "b.flist")
    assert [(each["path"], each["change"]) for each in changes] == [
        ("new", "added"),
        ("null", "removed"),
        ("usr/lib/os-release", "content"),
    ]
    assert changes[2]["before"]["mode"] & 0o777 == 0o644


def test_diff_tells_equal_names_apart_by_their_numbers(home: Home) -> None:
    records = records_of({b"file": Item(mode=0o640)})
    packed(home.path / "a.flist", records)
    aci = Aci(b"root", b"root", 0o100640)
    assert records[aci_key(aci)] != encode_aci(aci)
    records[aci_key(aci)] = encode_aci(aci)
    packed(home.path / "b.flist", records)
    assert home.run("diff", "a.flist", "b.flist").stdout == "m file (owner root:root from 0:0 to none)\n"


def test_merge(home: Home, package: Path) -> None:
    packed(home.path / "b.flist", records_of({b"usr": Item(), b"new": Item()}))
    packed(home.path / "c.flist", records_of({b"opt": DIR, b"opt/x": Item()}))
    merged = home.json("merge", "-o", "out.flist", package, "c.flist")
    counts = {"directories": 5, "files": 4, "links": 1, "specials": 1}
    assert {name: merged[name] for name in counts} == counts
    with Flist.open(home.path / "out.flist") as flist:
        assert set(looks(flist)) == {b"", *TREE, b"opt", b"opt/x"}
    clashed = home.run("merge", "-o", "out2.flist", package, "b.flist", code=12)
    assert clashed.stdout == f"usr: {package} (directory), b.flist (file)\n"
    assert "--prefer" in clashed.stderr
    answer = home.run("merge", "-o", "out2.flist", package, "b.flist", "--json", code=12).stdout
    found = [{"flist": str(package), "kind": "directory"}, {"flist": f"{home.path}/b.flist", "kind": "file"}]
    assert json.loads(answer)["error"]["paths"] == [{"path": "usr", "why": None, "found": found}]
    assert not (home.path / "out2.flist").exists()
    assert "exists; --force" in home.run("merge", "-o", "out.flist", package, code=9).stderr
    home.run("merge", "-o", "out.flist", "out.flist", "b.flist", "--prefer", "last", "--force")
    assert home.run("cat", "out.flist", "usr").stdout == ""
    assert sorted(path.name for path in home.path.glob(".*")) == []


def test_merge_says_what_it_hides(home: Home, package: Path) -> None:
    records = records_of({b"usr": Item(), b"new": Item()})
    packed(home.path / "b.flist", records)
    said = home.run("merge", "-o", "one.flist", package, "b.flist", "--prefer", "last").stdout
    hidden = sorted(os.fsdecode(path) for path in TREE if path == b"usr" or path.startswith(b"usr/"))
    assert f"{len(hidden)} entries of {package} are hidden by what others have there\n" in said
    answer = home.json("merge", "-o", "two.flist", package, "b.flist", "--prefer", "last")
    (names,) = answer["hidden"]
    assert (answer["clashes"], names["flist"], names["count"]) == (1, str(package), len(hidden))
    assert sorted(each["path"] for each in names["paths"]) == hidden
    said = home.run("merge", "-o", "three.flist", package, "b.flist", "--prefer", "first").stdout
    assert "1 entry of b.flist is hidden by what others have there\n" in said


def test_merge_through_links(home: Home) -> None:
    link = {b"bin": Item("link", b"usr/bin"), b"usr": DIR, b"usr/bin": DIR, b"usr/bin/sh": Item()}
    packed(home.path / "usr.flist", records_of(link))
    packed(home.path / "app.flist", records_of({b"bin": DIR, b"bin/app": Item()}))
    assert home.json("merge", "-o", "out.flist", "usr.flist", "app.flist")["hidden"] == []
    assert home.run("cat", "out.flist", "bin/app").stdout == ""
    assert home.listed("stat", "out.flist", "usr/bin/sh")
    for prefer in ("first", "last", "newer"):
        clashed = home.run("merge", "-o", "not.flist", "app.flist", "usr.flist", "--prefer", prefer, code=12)
        why = "a link does not replace a directory that is not empty"
        assert clashed.stdout == f"bin: app.flist (directory), usr.flist (link): {why}\n"
        assert "--replace-links" in clashed.stderr
    replaced = ["merge", "-o", "other.flist", "usr.flist", "app.flist", "--replace-links"]
    assert "--prefer" in home.run(*replaced, code=12).stderr
    assert home.json(*replaced, "--prefer", "last")["hidden"] == [
        {"flist": f"{home.path}/usr.flist", "count": 1, "paths": [{"path": "bin"}]}
    ]
    assert home.run("ls", "other.flist", "bin").stdout == "app\n"


def test_extract_only_some(home: Home, package: Path) -> None:
    home.run("extract", package, "some", "--only", "/usr/lib/os-*")
    assert (home.path / "some/usr/lib/os-release").read_text() == "NAME=here\n"
    assert not (home.path / "some/etc").exists()
    assert "not empty" in home.run("extract", package, "some", code=9).stderr
    assert "match no path" in home.run("extract", package, "other", "--only", "no", code=8).stderr
    assert "invalid pattern" in home.run("extract", package, "other", "--only", "!", code=2).stderr
    wrong = home.run("extract", package, "other", "--store", f"dir://{home.path}/empty", code=7)
    assert "cannot be read" in wrong.stderr
