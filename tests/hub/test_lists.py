"""Lists that are kept, and what changes meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flistfs.hub.errors import NotFoundError
from flistfs.hub.lists import Lists
from flistfs.hub.repositories import Repositories

LONG_AGO = 1_000_000_000


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    found = Repositories(tmp_path)
    for name in ("a", "b"):
        publish(found, "alice", name)
    return found


def publish(repositories: Repositories, user: str, name: str, size: int = 10) -> None:
    new = repositories.new_file()
    new.write_bytes(b"x" * size)
    repositories.publish(new, user, name)


def settle(tmp_path: Path, user: str = "alice") -> None:
    """Let what was changed have been changed long ago."""
    os.utime(tmp_path / "users" / user, (LONG_AGO, LONG_AGO))


def test_a_list_is_kept_until_something_changes(tmp_path: Path, repositories: Repositories) -> None:
    lists = Lists(repositories)
    assert lists.kept("alice") is None
    lists.of("alice")
    assert lists.kept("alice") is None  # something may change in the same moment
    changes: tuple[Callable[[], None], ...] = (
        lambda: publish(repositories, "alice", "c"),
        lambda: publish(repositories, "alice", "c", 20),
        lambda: repositories.rename("alice", "c", "d"),
        lambda: repositories.delete("alice", "d"),
    )
    for change in changes:
        settle(tmp_path)
        text = lists.of("alice")
        assert lists.kept("alice") == text
        change()
        assert lists.kept("alice") is None
        assert json.loads(lists.of("alice")) != json.loads(text)


def test_a_list_with_links_is_made_each_time(tmp_path: Path, repositories: Repositories) -> None:
    lists = Lists(repositories)
    publish(repositories, "bob", "target")
    repositories.link("alice", "link", "bob", "target")
    settle(tmp_path)
    before = lists.of("alice")
    assert lists.kept("alice") is None
    publish(repositories, "bob", "target", 3000)
    assert lists.of("alice") != before


def test_a_list_with_tags_is_made_each_time(tmp_path: Path, repositories: Repositories) -> None:
    """What is put into a tag changes when that was updated, but not the directory that it is in."""
    lists = Lists(repositories)
    repositories.tag("alice", "v1", "one", "alice", "a")
    os.utime(tmp_path / "users/alice/.tag-v1", (LONG_AGO, LONG_AGO))
    settle(tmp_path)
    before = lists.of("alice")
    repositories.tag("alice", "v1", "two", "alice", "b")
    assert lists.kept("alice") is None
    assert lists.of("alice") != before


def test_the_list_of_nobody(tmp_path: Path, repositories: Repositories) -> None:
    lists = Lists(repositories)
    with pytest.raises(NotFoundError):
        lists.of("nobody")
    settle(tmp_path)
    lists.of("alice")
    for name in ("a", "b"):
        repositories.delete("alice", name)
    (tmp_path / "users/alice").rmdir()
    with pytest.raises(NotFoundError):
        lists.kept("alice")
