"""What commands print with --json: one document that follows its schema, however the command ends.

`Home.run` checks every document that any test asks for; here each command is asked, and each way to fail.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from flistfs import errors
from flistfs.cli import answers
from flistfs.cli.command_line import COMMANDS
from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import FLISTFS, Home, umount, wait_until
from tests.e2e.schemas import SCHEMAS, check_answer, schemas, validator
from tests.generation1 import directory_key, open_store
from tests.reading.making import DIR, Item, packed, records_of

ODD = os.fsdecode(b"odd\xff")
"""A name that is not UTF-8, as Python has it."""

TREE = {
    b"dir": DIR,
    b"dir/file": Item(what=b"content"),
    b"big": Item(what=os.urandom(2 * CHUNK_SIZE)),
    b"link": Item("link", b"to\xff"),
    b"null": Item("char", b"1,3", mode=0o666),
    b"odd\xff": Item(what=b"odd"),
}


@pytest.fixture
def package(home: Home) -> Path:
    """An flist whose blocks are in the user's default store."""
    return packed(home.path / "a.flist", records_of(TREE, open_store(f"dir://{home.blocks}")))


def failed(home: Home, *arguments: str | Path, code: int) -> dict[str, Any]:
    """Run a command that fails with a code, and return its answer."""
    done = home.run(*arguments, "--json", code=code)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["error"]["message"] in done.stderr
    return answer


# The schemas


def test_every_command_has_a_schema() -> None:
    assert set(schemas()) == {*COMMANDS, "common"}
    for schema in schemas().values():
        Draft202012Validator.check_schema(schema)


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Walk all objects that a schema describes."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for each in schema.values():
            yield from objects(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from objects(each)


def test_schemas_name_everything_that_may_be_there() -> None:
    for name, schema in schemas().items():
        assert all(each["additionalProperties"] is False for each in objects(schema)), name


def test_what_does_not_follow_is_refused() -> None:
    good: dict[str, Any] = {"version": 1, "entries": []}
    validator("ls").validate(good)
    refused: list[Any] = [good | {"version": 2}, good | {"more": 1}, {"version": 1}, []]
    for wrong in refused:
        with pytest.raises(ValidationError):
            validator("ls").validate(wrong)
    with pytest.raises(AssertionError):
        check_answer("ls", '{"version": 1, "entries": []}\n', 8)


def test_the_document_lists_every_code() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", (SCHEMAS.parent / "json.md").read_text(), re.MULTILINE)
    kinds = [errors.FlistfsError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    own = {kind.code: str(kind.exit_code) for kind in kinds if kind.__module__ == "flistfs.errors"}
    assert dict(rows) == own
    assert {kind.code for kind in kinds} == set(own)  # elsewhere they only say more
    assert all(errors.error_class(code, 1).code == code for code in own)


# Every command


def test_a_session_without_a_mount(home: Home, source: Path) -> None:
    (source / ODD).write_bytes(b"content")
    started = home.json("new", home.path / ODD)
    assert started["mountpoint"] == f"{home.path}/odd\ufffd"
    assert base64.b64decode(started["mountpoint_bytes"]) == os.fsencode(home.path / ODD)
    assert home.json("add", f"{source}/.")["entries"] == 2
    odd = {"path": "odd\ufffd", "path_bytes": base64.b64encode(b"odd\xff").decode()}
    assert home.json("add", f"{source}/.")["replaced"] == [odd]
    assert home.status()["state"] == "unmounted"
    sealed = home.json("seal", f"{ODD}.flist")
    assert base64.b64decode(sealed["out_bytes"]) == os.fsencode(home.path / f"{ODD}.flist")
    result = home.status()["result"]
    assert result["summary"] == {name: value for name, value in sealed.items() if name != "version"}


def test_a_mount(home: Home, mountpoint: Path, package: Path) -> None:
    mounted = home.json("mount", mountpoint, "--seal-to", "out.flist", "--from", package)
    assert (mounted["resumed"], mounted["base"]["entries"]) == (False, 1 + len(TREE))
    assert home.json("sync")["queued"] == 0
    assert home.status()["seal_to"] == f"{home.path}/out.flist"
    umount(mountpoint)
    assert home.json("wait")["sealed"]["files"] == 3
    home.json("mount", mountpoint)
    assert home.json("abort", "--yes")["state_directory"].startswith(str(home.sessions))
    assert home.json("mount", "--read-only", package, mountpoint)["package"] == str(package)
    umount(mountpoint)


def test_packing_and_what_follows(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    packed_ = home.json("pack", source, "out.flist")
    assert (packed_["out"], packed_["new_blocks"]) == (f"{home.path}/out.flist", 1)
    pushed = home.json("push", "out.flist", "--to", f"dir://{home.path}/copy")
    assert pushed["new_blocks"] == packed_["new_blocks"]
    merged = home.json("merge", "-o", "merged.flist", "out.flist")
    counts = {name: packed_[name] for name in ("files", "directories", "links", "specials", "size")}
    assert counts == {name: merged[name] for name in counts}
    assert counts == {name: home.json("info", "merged.flist")[name] for name in counts}
    extracted = home.json("extract", "merged.flist", "rootfs")
    assert counts == {name: extracted[name] for name in counts}
    assert extracted["target"] == f"{home.path}/rootfs"
    verified = home.json("verify", "merged.flist", "--deep")
    assert (verified["package"], verified["faults"]) == (f"{home.path}/merged.flist", [])


def test_looking_into_an_flist(home: Home, package: Path) -> None:
    listed = home.listed("ls", "-R", package)
    assert [each["path"] for each in listed] == ["big", "dir", "dir/file", "link", "null", "odd\ufffd"]
    assert home.listed("tree", package) == listed == home.listed("find", package)
    assert base64.b64decode(listed[5]["path_bytes"]) == b"odd\xff"
    assert base64.b64decode(listed[3]["target_bytes"]) == b"to\xff"
    assert listed[4]["device"] == "1,3"
    (shown,) = home.listed("stat", package, "dir/file")
    assert {**shown, **listed[2]} == shown
    assert len(shown["block_refs"]) == shown["blocks"] == 1
    (file,) = home.listed("cat", package, ODD)
    assert (base64.b64decode(file["base64"]), base64.b64decode(file["path_bytes"])) == (b"odd", b"odd\xff")
    other = packed(home.path / "b.flist", records_of({**TREE, b"odd\xff": Item()}))
    (difference,) = home.listed("diff", package, other)
    assert (difference["before"], difference["after"]["size"]) == (listed[5], 0)


# Errors


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_that_is_invalid(home: Home, command: str) -> None:
    error = json.loads(home.run(command, "--json", "--no-such-option", code=2).stdout)["error"]
    assert (error["code"], error["paths"]) == ("usage", [])


def test_there_is_no_document_unless_it_was_asked_for(home: Home) -> None:
    assert home.run("ls", "nothing.flist", code=8).stdout == ""
    done = subprocess.run(
        [FLISTFS, "ls", "nothing.flist", "--", "--json"],
        env=home.environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (8, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "x.flist"],
        ["tree", "x.flist"],
        ["find", "x.flist"],
        ["stat", "x.flist", "path"],
        ["cat", "x.flist", "path"],
        ["info", "x.flist"],
        ["diff", "x.flist", "x.flist"],
        ["verify", "x.flist"],
        ["extract", "x.flist", "target"],
        ["push", "x.flist", "--to", "dir:///nowhere"],
        ["merge", "-o", "out.flist", "x.flist"],
        ["mount", "--read-only", "x.flist", "."],
        ["new", "--from", "x.flist"],
    ],
    ids=lambda words: words[0],
)
def test_an_flist_that_is_not_there(home: Home, arguments: list[str]) -> None:
    answer = failed(home, *arguments, code=8)
    assert answer.keys() == {"version", "error"}
    assert answer["error"]["code"] == "format"


@pytest.mark.parametrize("command", [["sync"], ["seal", "out.flist"], ["add", "."], ["abort"], ["wait"]])
def test_a_session_that_is_not_there(home: Home, command: list[str]) -> None:
    assert failed(home, *command, code=5)["error"]["code"] == "session"


def test_errors_of_a_daemon_keep_their_codes(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["cannot reach", "out.flist exists", "is in use"]
    assert failed(home, "mount", mountpoint, "--store", "redis://127.0.0.1:1", code=3)["error"] == {
        "code": "store-unavailable",
        "exit_code": 3,
        "message": "cannot reach redis://127.0.0.1:1: Connection refused: check that the server runs there",
        "paths": [],
        "count": 0,
    }
    home.run("mount", mountpoint)
    (home.path / "out.flist").touch()
    assert failed(home, "seal", "out.flist", code=9)["error"]["code"] == "output"
    with (mountpoint / "file").open("w"):
        assert failed(home, "seal", "new.flist", code=6)["error"]["code"] == "busy"
    assert failed(home, "abort", "--mount", "/elsewhere", "--yes", code=5)["error"]["code"] == "session"
    home.run("abort", "--yes")


def test_a_seal_that_failed_when_the_mount_ended(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["out.flist exists"]
    home.run("mount", mountpoint, "--seal-to", "out.flist")
    (home.path / "out.flist").touch()
    umount(mountpoint)
    assert failed(home, "wait", code=9)["error"]["code"] == "output"
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    assert home.status()["result"]["code"] == "output"
    home.run("abort", "--yes")


def test_faults_are_listed_beside_the_error(home: Home, package: Path) -> None:
    answer = failed(home, "verify", package, "--store", f"dir://{home.path}/none", code=10)
    assert answer["error"]["code"] == "faults"
    assert {each["path"] for each in answer["faults"]} == {"big", "dir/file", "odd\ufffd"}


def test_what_is_left_out_is_listed_beside_the_error(home: Home, source: Path) -> None:
    (source / "deep").mkdir()
    (home.path / "bad.tar").write_bytes(b"no archive")
    assert failed(home, "pack", "bad.tar", "out.flist", code=11)["error"]["code"] == "source"
    home.run("new")
    home.run("add", source)
    (home.path / source.name).write_bytes(b"a file in place of a directory")
    answer = failed(home, "add", home.path / source.name, "--keep-going", code=11)
    assert (answer["error"]["code"], answer["left_out_count"]) == ("source", 1)
    assert answer["left_out"][0]["why"] == "a directory already exists"
    assert failed(home, "add", home.path / source.name, code=11)["error"]["code"] == "no-place"
    home.run("abort", "--yes")


def test_a_list_ends_where_the_flist_is_damaged(home: Home) -> None:
    records = records_of(TREE)
    records[directory_key(b"dir")] = b"no record"
    damaged = packed(home.path / "b.flist", records)
    answer = failed(home, "ls", "-R", damaged, code=8)
    assert [each["path"] for each in answer["entries"]] == ["big"]
    answer = failed(home, "diff", packed(home.path / "c.flist", records_of({})), damaged, code=8)
    assert [each["path"] for each in answer["differences"]][:1] == ["big"]


def test_a_file_ends_where_a_block_is_missing(home: Home, package: Path) -> None:
    (shown,) = home.listed("stat", package, "big")
    second = shown["block_refs"][1]["hash"]
    (block,) = (path for path in home.blocks.rglob("*") if path.name == second)
    block.unlink()
    answer = failed(home, "cat", package, "dir/file", "big", code=7)
    assert (answer["error"]["code"], answer["error"]["paths"]) == ("block-missing", [{"path": "big"}])
    whole, part = answer["files"]
    assert base64.b64decode(whole["base64"]) == b"content"
    assert base64.b64decode(part["base64"], validate=True) == TREE[b"big"].what[:CHUNK_SIZE]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command(home: Home, mountpoint: Path, number: int, code: int) -> None:
    home.run("mount", mountpoint)
    with home.started("wait", "--json") as wait:
        assert wait.stdout is not None
        assert wait.stderr is not None
        assert "waiting until it is unmounted" in wait.stderr.readline()
        wait.send_signal(number)
        printed = wait.stdout.read()
    assert wait.returncode == code
    check_answer("wait", printed, code)
    assert json.loads(printed)["error"]["code"] == "interrupted"
    home.run("abort", "--yes")


def test_status_that_is_watched_is_a_document_every_time(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    with home.started("status", "--watch", "--json") as watch:
        assert watch.stdout is not None
        for _ in range(2):
            check_answer("status", watch.stdout.readline(), 0)
        watch.send_signal(signal.SIGINT)
    home.run("abort", "--yes")


# Text that is not Unicode


def test_only_what_is_not_unicode_has_bytes_beside_it() -> None:
    plain = {"a": "\U0001f600", "b": ["x\udcff"], "c": {"path": "\udcc3\U0001f600", "e\udcff": "\udcff"}}
    assert json.loads(answers.dumps(plain)) == {
        "a": "\U0001f600",
        "b": ["x\ufffd"],
        "c": {"path": "\ufffd\U0001f600", "path_bytes": "w/CfmIA=", "e\ufffd": "\ufffd"},
    }
