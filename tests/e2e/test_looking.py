"""ls, status, --help: what a user sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flistfs.cli import command_line
from tests.e2e.commands import Home
from tests.needs import needs_old_flist


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_every_command_has_help_with_an_example(home: Home, command: str) -> None:
    said = home.run(command, "--help").stdout
    assert "Example" in said
    assert f"flistfs {command}" in said


def test_wrong_words_are_a_usage_error(home: Home) -> None:
    assert "No such command" in home.run("mont", code=2).stderr
    assert "No such option" in home.run("mount", "--wrong", code=2).stderr


def test_ls_shows_what_was_copied(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "dir").mkdir(mode=0o700)
    (mountpoint / "dir/new\nline").write_text("hello")
    (mountpoint / "link").symlink_to("dir/target")
    os.mkfifo(mountpoint / "pipe")
    os.utime(mountpoint / "dir/new\nline", (0, 981173106))
    os.utime(mountpoint / "dir", (0, 981173106))
    home.run("seal", "out.flist")
    assert home.run("ls", "out.flist").stdout.split() == ["dir", "link", "pipe"]
    assert home.run("ls", "-R", "out.flist").stdout.splitlines() == ["dir", "dir/new\\nline", "link", "pipe"]
    long = home.run("ls", "-l", "out.flist").stdout.splitlines()
    assert long[0].startswith("drwx------ ")
    assert long[0].endswith(" 4096 2001-02-03 04:05:06 dir")
    assert long[1].startswith("lrwxrwxrwx ")
    assert long[1].endswith(" link -> dir/target")
    assert long[2].startswith("prw")
    (listed,) = home.listed("ls", "out.flist", "/dir/")
    assert (listed["path"], listed["size"], listed["mtime"]) == ("dir/new\nline", 5, 981173106)
    assert (listed["uid"], listed["blocks"]) == (os.geteuid(), 1)


def test_ls_of_the_real_flist(home: Home) -> None:
    real = needs_old_flist()
    assert home.run("ls", real).stdout.split()[:3] == ["bin", "boot", "dev"]
    passwd = home.run("ls", "-l", real, "etc/passwd").stdout
    assert passwd.startswith("-rw-r--r-- root     root ")
    everything = home.run("ls", "-R", real).stdout.splitlines()
    assert len(everything) == 8970 + 1811 + 1083 + 79


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "there is no file"),
        (lambda path: path.write_bytes(b"no gzip"), "is not a readable flist"),
        (lambda path: path.write_bytes(needs_old_flist().read_bytes()[:100_000]), "is not a readable flist"),
    ],
)
def test_what_is_no_flist_is_refused_in_one_line(home: Home, make: object, reason: str) -> None:
    assert callable(make)
    make(home.path / "bad.flist")
    refused = home.run("ls", "bad.flist", code=8)
    assert reason in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_path_that_is_not_there_is_refused(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    home.run("seal", "out.flist")
    assert "there is no 'nothing'" in home.run("ls", "out.flist", "nothing", code=8).stderr


def test_status_tells_what_there_is(home: Home, mountpoint: Path) -> None:
    assert home.listed("status") == []
    assert "no sessions" in home.run("status").stdout
    home.run("mount", mountpoint)
    (mountpoint / "a").write_bytes(os.urandom(1000))
    (mountpoint / "b").write_bytes((mountpoint / "a").read_bytes())
    (mountpoint / "dir").mkdir()
    status = home.status()
    assert (status["state"], status["mountpoint"]) == ("mounted", str(mountpoint))
    assert (status["files"], status["directories"], status["size"]) == (2, 2, 2000)
    assert status["store"] == f"dir://{home.blocks}"
    assert (
        "holds: 2 files, 2 directories, 0 links, 0 special files; 2.0 KiB of content"
        in home.run("status").stdout
    )
    home.run("seal", "out.flist")
