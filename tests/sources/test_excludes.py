"""Patterns mean what they mean to git."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from flistfs.errors import UsageError
from flistfs.sources.excludes import excluding, read_patterns

LISTS = 700

NAMES = [
    b"a",
    b"b",
    b"ab",
    b"a.o",
    b"B.o",
    b"b.c",
    b"x y",
    b"#a",
    b"!b",
    b"a]",
    b"[a",
    b"a-b",
    b"n\nx",
    b"\xff",
    b"a\\b",
    b"c ",
]
WORDS = b"""
    a b ab .o .c x # ! - ] [ \\ . * * ** ? / / *.o \xff \\* \\[ ** **/ /**
    [ab] [!a] [^b] [a-c] [] []a] [!]a] [a [\\]a] [a-] [-a] [z-a] [\xf0-\xff]
    [[:upper:]] [[:alpha:][:digit:]] [[:upper] [[:none:]] [[:punct:]] [:] [[:]]
    [[:space:]] [![:space:]] [[:cntrl:]] [[:blank:]] [[:print:]] [[:graph:]] [[:xdigit:]]
"""
PIECES = [*WORDS.split(), b" ", b"\\ ", b"\r"]
LINES = [
    b"",
    b"#a",
    b"\\#a",
    b"!",
    b"/",
    b"*",
    b"!*/",
    b"!*.c",
    b"a/",
    b"/a",
    b"!/a",
    b"a/b",
    b"**",
    b"a/**",
    b"**/b",
    b"a/**/b",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A repository up to four directories deep, and what is in it: directories before what they hold."""
    top = tmp_path_factory.mktemp("repository")
    choose = random.Random(1)
    for _ in range(150):
        path = top
        for name in choose.choices(NAMES, k=choose.randint(1, 4)):
            path /= os.fsdecode(name)
            if path.is_file():
                break
            if choose.random() < 0.3 and not path.exists():
                path.touch()
                break
            path.mkdir(exist_ok=True)
    found = sorted(top.rglob("*"))
    subprocess.run(["git", "init", "-q", top], check=True)
    return top, found


def ignored_by_git(top: Path, paths: list[Path], patterns: Path) -> set[bytes]:
    done = subprocess.run(
        ["git", "-c", f"core.excludesFile={patterns}", "check-ignore", "-z", "--stdin", "--no-index"],
        cwd=top,
        input=b"\0".join(os.fsencode(path.relative_to(top)) for path in paths),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert done.returncode in {0, 1}
    return set(done.stdout.split(b"\0")) - {b""}


def left_out(top: Path, paths: list[Path], patterns: Path) -> set[bytes]:
    excluded = excluding(read_patterns(patterns))
    out: set[bytes] = set()
    for path in paths:
        name = os.fsencode(path.relative_to(top))
        if name.rpartition(b"/")[0] in out or excluded(name, path.is_dir()):
            out.add(name)
    return out


def random_list(choose: random.Random) -> bytes:
    lines = []
    for _ in range(choose.randint(1, 6)):
        line = (
            choose.choice(LINES)
            if choose.random() < 0.3
            else b"".join(choose.choices(PIECES, k=choose.randint(1, 5)))
        )
        if choose.random() < 0.2:
            line = b"!" + line
        if choose.random() < 0.2:
            line += b"/"
        lines.append(line)
    return choose.choice([b"", b"", b"\xef\xbb\xbf"]) + b"\n".join(lines) + choose.choice([b"", b"\n"])


def test_random_lists_leave_out_what_git_leaves_out(tree: tuple[Path, list[Path]], tmp_path: Path) -> None:
    top, paths = tree
    choose = random.Random(1)
    patterns = tmp_path / "patterns"
    left_out_somewhere = 0
    for _ in range(LISTS):
        patterns.write_bytes(random_list(choose))
        ours, gits = left_out(top, paths, patterns), ignored_by_git(top, paths, patterns)
        assert ours == gits, (patterns.read_bytes(), sorted(ours ^ gits)[:5])
        left_out_somewhere += bool(gits)
    assert left_out_somewhere > LISTS / 2


@pytest.mark.parametrize("pattern", ["[", "a[b", "[[:none:]]", "\\", "a\\", "!", "/", "[a-"])
def test_a_pattern_that_can_fit_nothing_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches nothing"):
        excluding([pattern])
    (tmp_path / "list").write_text(f"{pattern}\nkept\n")
    assert read_patterns(tmp_path / "list") == ["kept"]  # as git passes it over
