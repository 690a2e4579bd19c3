"""What holds for every command: its standard streams, Ctrl-C while it is loaded, what it may write over."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.commands import FLISTFS, LIKE_OTHERS, TIMEOUT, Home, is_mounted, umount, wait_until, watched
from tests.e2e.test_seal_ends import read_terminal
from tests.independent_reader import read_flist
from tests.redis_server import running_redis

# What prints: words of a command, in a home with two flists.
PRINTING = [
    ["--help"],
    ["ls", "--help"],
    ["ls", "out.flist"],
    ["ls", "-lR", "out.flist"],
    ["tree", "out.flist"],
    ["stat", "out.flist", "name"],
    ["find", "out.flist"],
    ["find", "-0", "out.flist"],
    ["info", "out.flist"],
    ["info", "out.flist", "--json"],
    ["cat", "out.flist", "name"],
    ["diff", "out.flist", "other.flist"],
    ["verify", "out.flist"],
    ["status"],
    ["extract", "out.flist", "extracted"],
    ["merge", "-o", "merged.flist", "out.flist"],
    ["pack", "source", "packed.flist"],
    ["push", "out.flist", "--to", "dir:///tmp/nowhere"],
]


@pytest.fixture
def flists(home: Home, source: Path) -> Home:
    """A home with out.flist and other.flist; and `source`, of which the first was made."""
    (source / "name").write_text("content")
    (home.path / "source").symlink_to(source)
    home.run("pack", source, "out.flist")
    (source / "name").write_text("other")
    home.run("pack", source, "other.flist")
    return home


def shell_run(home: Home, *words: str | Path, redirected: str = "", **env: str) -> tuple[int, bytes, bytes]:
    """Run `flistfs` with its standard streams as a shell has them."""
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {redirected}', "bash", FLISTFS, *words],
        cwd=home.path,
        env=home.environment(**env),
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# Standard streams


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_full_disk_behind_standard_output_is_an_error_of_its_own(flists: Home, words: list[str]) -> None:
    if words[0] == "push":
        words = [*words[:-1], f"dir://{flists.path}/pushed"]
    code, _, said = shell_run(flists, *words, redirected=">/dev/full")
    assert (code, said) == (9, b"flistfs: standard output cannot be written: No space left on device\n")


def test_a_closed_standard_output_is_an_error_too(flists: Home) -> None:
    code, _, said = shell_run(flists, "ls", "out.flist", redirected=">&-")
    assert (code, said) == (9, b"flistfs: standard output cannot be written: it is closed\n")


def test_a_closed_standard_input_has_no_archive(flists: Home) -> None:
    code, _, said = shell_run(flists, "pack", "-", "new.flist", redirected="<&-")
    assert (code, said) == (11, b"flistfs: standard input cannot be read: it is closed\n")
    assert not (flists.path / "new.flist").exists()


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_nobody_to_complain_to_changes_no_exit_code(flists: Home, redirected: str) -> None:
    assert shell_run(flists, "verify", "out.flist", redirected=redirected)[0] == 0
    assert shell_run(flists, "verify", "nowhere.flist", redirected=redirected)[0] == 8
    there = ["--store", f"dir://{flists.path}/nowhere"]
    code, faults, _ = shell_run(flists, "verify", "out.flist", *there, redirected=redirected)
    assert code == 10
    assert b"is not in the store" in faults


def test_no_file_takes_the_place_of_a_standard_stream_that_is_closed(flists: Home) -> None:
    """Else what is printed would be in it."""
    code, _, _ = shell_run(flists, "pack", "source", "new.flist", redirected="<&- >&- 2>&-")
    assert code == 9  # the summary is lost, and nothing else
    assert set(read_flist(flists.path / "new.flist")) == {b"", b"name"}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_session_with_closed_streams(home: Home, mountpoint: Path, closed: str) -> None:
    code, _, _ = shell_run(home, "mount", mountpoint, redirected=closed)
    assert code == (9 if ">&-" in closed.replace("2>&-", "") else 0)
    assert is_mounted(mountpoint)
    (mountpoint / "file").write_bytes(b"content")
    shell_run(home, "seal", "out.flist", redirected=closed)
    assert b"file" in read_flist(home.path / "out.flist")


def test_names_that_the_locale_has_no_letters_for_are_escaped(home: Home, source: Path) -> None:
    (source / "漢").write_text("content")
    home.run("pack", source, "out.flist")
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "latin1"}
    for words in (["ls"], ["ls", "-l"], ["find"], ["tree"], ["info"]):
        assert "\\u6f22" in home.run(words[0], "out.flist", *words[1:], env=env).stdout, words
    assert "\\u6f22" in home.run("stat", "out.flist", "漢", env=env).stdout
    assert "\\u6f22" in home.run("cat", "out.flist", "漢漢", env=env, code=8).stderr


def test_with_json_standard_output_is_one_document_and_standard_error_tells_the_progress(
    home: Home, source: Path
) -> None:
    (source / "file").write_bytes(b"content")
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as archive, home.started("pack", "-", "o", "--json", stdin=reader) as pack:
        os.close(reader)
        assert pack.stderr is not None
        assert json.loads(pack.stderr.readline())["progress"]["phase"] == "add"
        archive.write(bytes(10240))
        archive.close()
        out, _ = pack.communicate()
    assert pack.returncode == 0
    assert json.loads(out)["files"] == 0


# Ctrl-C


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("click", ["--help"]),
        ("platformdirs", ["ls", "out.flist"]),
        ("capnp", ["ls", "out.flist"]),
        ("trio", ["pack", "source", "new.flist"]),
        ("trio", ["new"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_signal_while_a_command_is_loaded_ends_it_without_a_word(
    home: Home, tmp_path: Path, number: int, code: int, module: str, words: list[str]
) -> None:
    """It comes when a module is imported that the command needs."""
    package = tmp_path / "modules" / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {number})\ntime.sleep(600)\n"
    )
    (home.path / "source").mkdir()
    env = {"PYTHONPATH": str(package.parent)}
    assert shell_run(home, *words, redirected="", **env) == (code, b"", b"")
    assert not (home.path / "state").exists()


# Outputs


def test_an_output_must_be_a_regular_file_whatever_writes_it(flists: Home, mountpoint: Path) -> None:
    flists.expected_log += ["is a pipe"]
    pipe = flists.path / "pipe"
    os.mkfifo(pipe)
    flists.run("mount", mountpoint)
    for words in (
        ["seal", "pipe", "--force"],
        ["pack", "source", "pipe", "--force"],
        ["merge", "-o", "pipe", "out.flist", "--force"],
    ):
        refused = flists.run(*words, code=9)
        assert (
            refused.stderr == f"flistfs: {pipe if words[0] != 'merge' else 'pipe'} is a pipe; name a file\n"
        )
    assert pipe.is_fifo()
    flists.run("abort", "--yes")
    assert "symbolic link" in flists.run("pack", "source", "/dev/stdout", "--force", code=9).stderr
    assert "device" in flists.run("pack", "source", "/dev/null", "--force", code=9).stderr
    assert Path("/dev/stdout").is_symlink()
    assert Path("/dev/null").is_char_device()


def test_an_output_on_a_file_system_whose_files_all_have_names(flists: Home, mountpoint: Path) -> None:
    """A mount of flistfs is one."""
    flists.run("mount", mountpoint)
    flists.run("pack", "source", mountpoint / "out.flist")
    flists.run("merge", "-o", mountpoint / "out.flist", "out.flist", "--force")
    assert [path.name for path in mountpoint.iterdir()] == ["out.flist"]
    assert (mountpoint / "out.flist").read_bytes()[:2] == b"\x1f\x8b"
    flists.run("seal", "sealed.flist")


# What is left behind


def test_what_a_killed_command_left_among_temporary_files_goes_with_the_next(
    flists: Home, mountpoint: Path
) -> None:
    temporary = flists.path / "temporary"
    temporary.mkdir()
    flists.env["TMPDIR"] = str(temporary)
    flists.run("mount", "--read-only", "out.flist", mountpoint)
    (in_use,) = temporary.iterdir()
    flists.run("ls", "out.flist")
    assert list(temporary.iterdir()) == [in_use]  # the reader has it
    (reader,) = [pid for pid, words in flists.processes().items() if "flistfs.daemons.reader" in words]
    os.kill(reader, signal.SIGKILL)
    wait_until(lambda: reader not in flists.processes(), "it is dead")
    umount(mountpoint)
    flists.run("ls", "other.flist")
    assert list(temporary.iterdir()) == []


# What may not be read


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "FLIST"],
        ["tree", "FLIST"],
        ["stat", "FLIST", "name"],
        ["find", "FLIST"],
        ["info", "FLIST"],
        ["cat", "FLIST", "name"],
        ["diff", "other.flist", "FLIST"],
        ["diff", "FLIST", "other.flist"],
        ["verify", "FLIST"],
        ["extract", "FLIST", "extracted"],
        ["merge", "-o", "merged.flist", "other.flist", "FLIST"],
        ["push", "FLIST", "--to", "dir:///nowhere"],
        ["new", "--from", "FLIST"],
        ["mount", "mnt", "--from", "FLIST"],
        ["mount", "mnt", "--read-only", "FLIST"],
    ],
    ids=lambda words: " ".join(words).replace("/", "_"),
)
def test_an_flist_that_may_not_be_read_is_one_error_everywhere(flists: Home, words: list[str]) -> None:
    flists.expected_log += ["annot read"]
    (flists.path / "mnt").mkdir()
    (flists.path / "out.flist").chmod(0)
    (flists.path / "closed").mkdir()
    (flists.path / "closed/out.flist").touch()
    (flists.path / "closed").chmod(0)
    for flist in ("out.flist", "closed/out.flist"):
        named = [word.replace("FLIST", flist) for word in words]
        done = flists.run(*named, code=8, prefix=LIKE_OTHERS)
        assert done.stderr.startswith("flistfs: cannot read ")
        assert done.stderr.endswith(f"{flist}: Permission denied\n")


# Progress on a terminal


def shown_at_80_columns(home: Home, *words: str | Path, hear: Callable[[bytes], object] = len) -> list[str]:
    """Return the lines that a command shows on a terminal of the usual size."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    process = subprocess.Popen(
        [FLISTFS, *words],
        cwd=home.path,
        env=home.environment(TERM="xterm"),
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    with watched(process):
        os.close(follower)
        shown = read_terminal(leader, hear)
    assert process.returncode == 0
    return re.split(r"[\r\n]+", shown)


def test_bars_fit_80_columns_and_end_at_100_percent(home: Home, source: Path) -> None:
    (source / "a/b").mkdir(parents=True)  # three directories: the last of them begins at 67 %
    (source / "a/b/file").write_bytes(os.urandom(1 << 20))
    lines = shown_at_80_columns(home, "pack", source, "out.flist")
    assert max(map(len, lines)) <= 80
    for phase in ("Adding", "Checking the store", "Writing the catalog", "Packing"):
        last = [line for line in lines if line.startswith(phase)][-1]
        assert " 100% " in last, last


def test_trouble_is_shown_below_the_bars_in_full(home: Home, source: Path) -> None:
    (source / "file").write_bytes(os.urandom(10_000))
    with running_redis() as server:
        server.command("CONFIG", "SET", "maxmemory", "1")

        def go_on(said: bytes) -> None:
            if b"maxmemory" in said:
                server.command("CONFIG", "SET", "maxmemory", "0")

        lines = shown_at_80_columns(home, "pack", source, "out.flist", "--store", server.url, hear=go_on)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"{server.url} ") for line in lines), lines


# What errors call things


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("source", "source/dir/closed"),
        ("./source/", "./source/dir/closed"),
        ("source/.", "source/dir/closed"),
    ],
)
@pytest.mark.parametrize("command", ["pack", "add"])
def test_errors_name_entries_by_the_source_that_was_typed(
    home: Home, command: str, source: str, shown: str
) -> None:
    (home.path / "source/dir/closed").mkdir(parents=True)
    (home.path / "source/dir/closed").chmod(0)
    home.run("new")
    words = ["pack", source, "out.flist"] if command == "pack" else ["add", source]
    if command == "pack" and source.endswith("/."):
        shown = f"source/./{shown.removeprefix('source/')}"
    refused = home.run(*words, code=11, prefix=LIKE_OTHERS)
    assert refused.stderr == f"flistfs: {shown}: it cannot be read: Permission denied\n"
    kept = home.run(*words, "--keep-going", code=11, prefix=LIKE_OTHERS)
    assert f"left out: {shown}: it cannot be read: Permission denied\n" in kept.stderr
    home.run("abort", "--yes")


def test_an_absolute_source_is_named_so_in_a_mount_too(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "closed").mkdir()
    (source / "closed").chmod(0)
    home.run("mount", mountpoint, prefix=LIKE_OTHERS)
    refused = home.run("add", source, code=11)
    assert refused.stderr == f"flistfs: {source}/closed: it cannot be read: Permission denied\n"
    home.run("abort", "--yes")


def test_the_store_inside_a_source_is_named_as_it_lies_there(home: Home) -> None:
    home.run("status")
    refused = home.run("pack", "data", "out.flist", "--store", f"dir://{home.path}/data/blocks", code=11)
    assert refused.stderr.startswith("flistfs: data/blocks is the store, which")


def test_an_error_is_one_line_whatever_the_names_in_it(home: Home, source: Path) -> None:
    (source / "new\nline\x1b[31m").mkdir()
    (source / "new\nline\x1b[31m").chmod(0)
    refused = home.run("pack", source, "out.flist", code=11, prefix=LIKE_OTHERS)
    assert refused.stderr == f"flistfs: {source}/new\\nline\\x1b[31m: it cannot be read: Permission denied\n"
