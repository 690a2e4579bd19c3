"""Repositories on the disk: directories of packages, links and tags. There is no other state of them.

    users/USER/NAME.flist               a package, or a link: NAME.flist, ../USER2/NAME.flist
    users/USER/.tag-TAG/NAME.flist      a link: ../../USER2/NAME.flist
    users/USER/LINK                     a link to a tag: ../USER2/.tag-TAG
    incoming/                           what is not published yet

The layout is that of 0-hub, so that a directory of that one can be served. All functions block. What comes
into being is whole or not there, and survives a power cut once a function has returned.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from flistfs.hub.errors import InTheWayError, NotFoundError, RefusedError
from flistfs.hub.names import SUFFIX, checked, flist_name
from flistfs.util.durable import remove_files, sync_directory

Kind: TypeAlias = Literal["regular", "symlink", "tag", "taglink"]
"""The only kinds that clients know: a node gives a whole list up for another one."""

_TAG: Final = ".tag-"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a repository.

    `size` and `updated` are those of what a link leads to, while that is there. `target` is the text of a
    link, as it is on the disk; `linktime` is when it was made.
    """

    name: str
    kind: Kind
    size: int
    updated: int
    linktime: int | None = None
    target: str | None = None

    @property
    def shown_target(self) -> str | None:
        """The target as lists have it: `one.flist`, `USER/one.flist`, `USER/tags/TAG`."""
        return self.target and self.target.replace("../", "").replace(f"/{_TAG}", "/tags/")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository; `updated` is when an entry came, went, or was renamed last."""

    name: str
    updated: int


class Repositories:
    """All repositories of a hub. Its methods may be called from several threads."""

    def __init__(self, data: Path) -> None:
        """Serve what lies in the directory `data`, which is completed; nobody else may use it now."""
        self._users = data / "users"
        self._incoming = data / "incoming"
        for directory in (self._users, self._incoming):
            directory.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():  # by a process that died
            remove_files(left)
        self._root = os.path.realpath(self._users)
        self._users = Path(self._root)  # so that a file has one path, by which its MD5 is known
        self._changing = threading.Lock()

    # Looking

    def all(self) -> list[Repository]:
        """Return all repositories, by name."""
        found = (
            (entry.name, entry.stat(follow_symlinks=False))
            for entry in os.scandir(self._users)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )
        return [Repository(name, int(status.st_mtime)) for name, status in sorted(found, key=_first)]

    def raw(self) -> list[str]:
        """Return all entries as `USER/FILE`, tags by the names of their directories; both sorted."""
        return [
            f"{repository.name}/{name}"
            for repository in self.all()
            for name in sorted(os.listdir(self._users / repository.name))  # noqa: PTH208  names are wanted
        ]

    def entries(self, user: str) -> list[Entry]:
        """Return the entries of a repository, by the names of their files.

        Raises:
            NotFoundError: there is no such repository.
        """
        return self._listed(self._directory(user))

    def version(self, user: str) -> tuple[int, int]:
        """Return what changes with what is in a repository, but not with what links lead to.

        That are the inode of its directory, and when that was changed (nanoseconds since 1970).

        Raises:
            NotFoundError: there is no such repository.
        """
        try:
            status = os.lstat(self._directory(user))
        except OSError:
            raise NotFoundError("user not found") from None
        return status.st_ino, status.st_mtime_ns

    def tagged(self, user: str, tag: str) -> list[Entry]:
        """Return the links of a tag.

        Raises:
            NotFoundError: there is no such repository or tag.
        """
        entries = self._listed(self._tag(user, tag))
        return [entry for entry in entries if entry.kind == "symlink"]

    def find(self, user: str, name: str) -> tuple[Entry, Path]:
        """Return an flist, or a link that leads to one, and its file.

        Raises:
            NotFoundError: it is not there, or leads nowhere.
        """
        path = self._directory(user) / flist_name(name)
        entry = self._entry(str(path), path.name)
        if entry is None or entry.kind not in {"regular", "symlink"}:
            raise NotFoundError("source not found")
        return entry, path if entry.kind == "regular" else self._real(path)

    def package(self, user: str, name: str, tag: str | None = None) -> Path:
        """Return the file of an flist, through links, of a repository or its tag; raises as `find`."""
        if tag is None:
            return self.find(user, name)[1]
        return self._real(self._tag(user, tag) / flist_name(name))

    def tag_target(self, user: str, name: str) -> str:
        """Return what a tag link leads to, as `USER/tags/TAG`, whether that is there or not.

        Raises:
            NotFoundError: there is no such entry.
            RefusedError: it is no tag link.
        """
        path = self._directory(user) / checked(name.removesuffix(SUFFIX), "link")
        if not os.path.lexists(path):
            raise NotFoundError("source not found")
        entry = self._entry(str(path), path.name)
        if entry is None or entry.kind != "taglink":
            raise RefusedError("could not read tag link")
        return entry.shown_target or ""

    # Changing

    def new_file(self) -> Path:
        """Return the path of a new file, to be written and handed to `publish`."""
        return self._incoming / f"{secrets.token_hex(8)}{SUFFIX}"

    def publish(self, package: Path, user: str, name: str) -> None:
        """Let a file that is written, and on the disk, be an flist, in place of what has its name."""
        name = flist_name(name)
        with self._changing:
            directory = self._made(user)
            package.replace(directory / name)
            sync_directory(directory)

    def delete(self, user: str, name: str) -> None:
        """Remove an flist or a link; a name without a suffix may be that of a tag link.

        Raises:
            NotFoundError: it is not there.
        """
        with self._changing:
            directory = self._directory(user)
            path = directory / checked(name, "link")
            if not path.is_symlink():
                path = directory / flist_name(name)
            if not _is_file_or_link(path):
                raise NotFoundError("source not found")
            path.unlink()
            sync_directory(directory)

    def rename(self, user: str, source: str, destination: str) -> None:
        """Rename an flist or a link. Links to it lead nowhere then.

        Raises:
            NotFoundError: it is not there.
            InTheWayError: the new name is taken.
        """
        with self._changing:
            directory = self._directory(user)
            old, new = directory / flist_name(source), directory / flist_name(destination)
            if not _is_file_or_link(old):
                raise NotFoundError("source not found")
            if os.path.lexists(new) and new != old:
                raise InTheWayError("destination already exists")
            old.rename(new)
            sync_directory(directory)

    def link(self, user: str, name: str, source_user: str | None, source: str) -> None:
        """Make a link in a repository to an flist, or replace a link.

        Args:
            user: The repository.
            name: The name of the link.
            source_user: The flist's repository; None for the same, which then is not named in the link.
            source: The flist's name.

        Raises:
            NotFoundError: the flist is not there.
            RefusedError: something other than a link has that name.
        """
        with self._changing:
            if source_user is None:
                self._directory(user)
            wanted = self._existing(source_user or user, source)
            text = wanted.name if source_user is None else f"../{source_user}/{wanted.name}"
            directory = self._made(user)
            self._put_link(text, directory / flist_name(name))

    def promote(self, user: str, name: str, source_user: str, source: str) -> tuple[str, str]:
        """Copy the bytes of an flist into a repository, in place of what has that name.

        Returns:
            The names of both flists' files.

        Raises:
            NotFoundError: the flist is not there.
        """
        original = self._directory(source_user) / flist_name(source)
        package = self._real(original)
        copy = self.new_file()
        try:
            _copy(package, copy)
            self.publish(copy, user, name)
        finally:
            copy.unlink(missing_ok=True)
        return original.name, flist_name(name)

    def tag(self, user: str, tag: str, name: str, source_user: str, source: str) -> None:
        """Put a link to an flist into a tag, which is made if need be; raises as `link`."""
        with self._changing:
            wanted = self._existing(source_user, source)
            link = flist_name(name)
            directory = self._made(user) / f"{_TAG}{checked(tag, 'tag')}"
            if not directory.is_dir():
                directory.mkdir()
                sync_directory(directory.parent)
            self._put_link(_tag_link(source_user, wanted.name), directory / link)

    def untag(self, user: str, tag: str, name: str, source_user: str, source: str) -> None:
        """Remove a link from a tag, which goes with its last one.

        Its flist has to be there, as 0-hub has it, unless the link is to the very one that is named.

        Raises:
            NotFoundError: the link is not there, or that flist.
        """
        with self._changing:
            directory = self._directory(user) / f"{_TAG}{checked(tag, 'tag')}"
            path = directory / flist_name(name)
            if not _leads_to(path, _tag_link(source_user, flist_name(source))):
                self._existing(source_user, source)
            if not path.is_symlink():
                raise NotFoundError("target not found on this tag")
            path.unlink()
            sync_directory(directory)
            with suppress(OSError):  # it has others
                directory.rmdir()
                sync_directory(directory.parent)

    def link_tag(self, user: str, name: str, source_user: str, tag: str) -> None:
        """Make a link in a repository to a tag, or replace a link.

        Raises:
            NotFoundError: there is no such tag.
            RefusedError: the name is an flist's, or something other than a link has it.
        """
        if name.endswith(SUFFIX):
            raise RefusedError("tag symlink cannot ends with .flist")
        with self._changing:
            if not (
                self._users / checked(source_user, "repository") / f"{_TAG}{checked(tag, 'tag')}"
            ).is_dir():
                raise NotFoundError("source tag not found")
            directory = self._made(user)
            if os.path.lexists(directory / flist_name(name)):
                raise RefusedError("there is a .flist file with the same name existing already")
            self._put_link(f"../{source_user}/{_TAG}{tag}", directory / checked(name, "link"))

    # The disk

    def _directory(self, user: str) -> Path:
        path = self._users / checked(user, "repository")
        if not stat.S_ISDIR(_own_mode(path)):
            raise NotFoundError("user not found")
        return path

    def _made(self, user: str) -> Path:
        path = self._users / checked(user, "repository")
        with suppress(FileExistsError):
            path.mkdir()
            sync_directory(self._users)
        return path

    def _tag(self, user: str, tag: str) -> Path:
        path = self._directory(user) / f"{_TAG}{checked(tag, 'tag')}"
        if not stat.S_ISDIR(_own_mode(path)):
            raise NotFoundError("tag not found")
        return path

    def _existing(self, user: str, name: str) -> Path:
        """Return the path of what links may lead to."""
        if not (self._users / checked(user, "repository")).is_dir():
            raise NotFoundError("source repository not found")
        path = self._users / user / flist_name(name)
        self._real(path)
        return path

    def _real(self, path: str | Path) -> Path:
        """Return the file that a path leads to, which is one of some repository's.

        Raises:
            NotFoundError: there is none.
        """
        real = os.path.realpath(path)
        if not real.startswith(f"{self._root}/") or not stat.S_ISREG(_mode(real)):
            raise NotFoundError("source not found")
        return Path(real)

    def _put_link(self, text: str, path: Path) -> None:
        if os.path.lexists(path) and not path.is_symlink():
            raise RefusedError("link destination is already a file")
        new = self._incoming / secrets.token_hex(8)
        new.symlink_to(text)
        new.replace(path)
        sync_directory(path.parent)

    def _listed(self, directory: Path) -> list[Entry]:
        # Texts, not Paths: those took four fifths of the time of a long list.
        place, names = str(directory), sorted(os.listdir(directory))  # noqa: PTH208
        found = (self._entry(f"{place}/{name}", name) for name in names)
        return [entry for entry in found if entry is not None]

    def _entry(self, path: str, name: str) -> Entry | None:
        """Return the entry of a path, which ends in a name; None for what no client knows."""
        try:
            own = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(own.st_mode) else None  # noqa: PTH115  a text
        except OSError:  # it has gone meanwhile
            return None
        if target is None:
            if stat.S_ISDIR(own.st_mode) and name.startswith(_TAG):
                return Entry(name.removeprefix(_TAG), "tag", 0, int(own.st_mtime))
            is_listed = stat.S_ISREG(own.st_mode) and not name.startswith(".")
            return Entry(name, "regular", own.st_size, int(own.st_mtime)) if is_listed else None
        kind: Kind = "taglink" if f"/{_TAG}" in target else "symlink"
        try:
            status = os.stat(path if kind == "taglink" else self._real(path))  # noqa: PTH116  a text
        except (OSError, NotFoundError):
            status = own
        return Entry(name, kind, status.st_size, int(status.st_mtime), int(own.st_mtime), target)


def _first(pair: tuple[str, object]) -> str:
    return pair[0]


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode  # noqa: PTH116  a text
    except OSError:
        return 0


def _tag_link(user: str, name: str) -> str:
    return f"../../{user}/{name}"


def _leads_to(path: Path, text: str) -> bool:
    try:
        return str(path.readlink()) == text
    except OSError:  # it is no link, or not there
        return False


def _own_mode(path: Path) -> int:
    """Return the mode of what has a path, not of what a link leads to; 0 where there is nothing."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _is_file_or_link(path: Path) -> bool:
    mode = _own_mode(path)
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        while part := read.read(1 << 20):
            written.write(part)
        written.flush()
        os.fsync(written.fileno())
