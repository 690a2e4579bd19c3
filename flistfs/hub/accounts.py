"""Who may do what on a hub: users, their tokens, and the repositories that they act for.

A token is an opaque text without a dot, which clients would take for something else. Only its hash is
kept.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from flistfs.errors import OutputError, UsageError
from flistfs.hub.errors import HubError
from flistfs.hub.names import repository_name
from flistfs.hub.tries import Tries
from flistfs.util.closing import Closing

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, password TEXT, created INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
        label TEXT NOT NULL,
        scope TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER,
        used INTEGER
    );
    CREATE TABLE IF NOT EXISTS members (
        repository TEXT NOT NULL,
        user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
        role TEXT NOT NULL DEFAULT 'member',
        PRIMARY KEY (repository, user)
    ) WITHOUT ROWID;
"""

_WITHOUT_ROLES: Final = "ALTER TABLE members ADD COLUMN role TEXT NOT NULL DEFAULT 'member'"
"""What makes the table of members of the first version one of today."""

_PREFIX: Final = "flh_"
"""How tokens begin, so that scanners for lost secrets can find them."""

_USED_EVERY: Final = 60
"""Seconds that the time of a token's last use is right to: each request would write, else."""

_BUSY_TIMEOUT: Final = 30.0  # seconds that a command may keep the database from the server

_TRIES: Final = 10
_TRIES_FOR: Final = 300.0  # seconds

_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,5})([hd])")
_SECONDS: Final = {"h": 3600.0, "d": 86400.0}


class Scope(enum.StrEnum):
    """What a token is good for: each is what the ones before are, and more."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, wanted: Scope) -> bool:
        """Return whether this scope is enough for what another one is needed for."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)


class Role(enum.StrEnum):
    """What a user is to a repository: both act for it, an owner says who else does."""

    MEMBER = "member"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Member:
    """A user who acts for a repository."""

    user: str
    role: Role


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its text; times are seconds since 1970."""

    id: int
    user: str
    label: str
    scope: Scope
    created: int
    expires: int | None
    used: int | None


@dataclass(frozen=True, slots=True)
class User:
    """A user, and the repositories besides the one of that name that it acts for, and those that it owns."""

    name: str
    created: int
    has_password: bool
    repositories: tuple[str, ...]
    owned: tuple[str, ...]


class Accounts(Closing):
    """The accounts of a hub, in a database. Its methods block, and may be called from several threads."""

    def __init__(self, database: Path, now: Callable[[], float] = time.time) -> None:
        """Keep them in a file that only this user can read, which is made if need be.

        Raises:
            OutputError: it cannot be, or is damaged.
        """
        os.close(os.open(database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._now = now
        self._lock = threading.Lock()
        self._hasher = PasswordHasher()
        self._tries = Tries(_TRIES, _TRIES_FOR, now)
        self._connection = sqlite3.connect(
            database, check_same_thread=False, isolation_level=None, timeout=_BUSY_TIMEOUT
        )
        try:
            self._connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; {_SCHEMA}")
            if not self._has_roles():
                self._add_roles()
        except sqlite3.Error as error:
            self._connection.close()
            raise OutputError(
                f"the accounts of the hub in {database.parent} cannot be used: {error}"
            ) from None

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    # Users

    def add_user(self, name: str, password: str | None = None) -> None:
        """Add a user, who has the repository of that name.

        Raises:
            UsageError: there is such a user, or the name is invalid.
        """
        hashed = None if password is None else self._hasher.hash(password)
        try:
            self._do("INSERT INTO users VALUES (?, ?, ?)", repository_name(name), hashed, int(self._now()))
        except HubError as error:
            raise UsageError(f"{error}: {name!r}") from None
        except sqlite3.IntegrityError:
            raise UsageError(f"there is a user {name} already") from None

    def remove_user(self, name: str) -> None:
        """Remove a user with all tokens; flists stay.

        Raises:
            UsageError: there is no such user.
        """
        self._known(name)
        self._do("DELETE FROM users WHERE name = ?", name)

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password; raises as `remove_user`."""
        self._known(name)
        self._do("UPDATE users SET password = ? WHERE name = ?", self._hasher.hash(password), name)

    def users(self) -> list[User]:
        """Return all users, by name."""
        members = self._do("SELECT user, repository, role FROM members ORDER BY repository")
        return [
            User(
                name,
                created,
                bool(has_password),
                tuple(each for user, each, _ in members if user == name),
                tuple(each for user, each, role in members if user == name and role == Role.OWNER),
            )
            for name, created, has_password in self._do(
                "SELECT name, created, password IS NOT NULL FROM users ORDER BY name"
            )
        ]

    def is_password(self, name: str, password: str) -> bool:
        """Return whether a password is a user's. It takes as long where there is no such user.

        Raises:
            TooManyError: there were too many wrong ones lately.
        """
        self._tries.check(name)
        rows = self._do("SELECT password FROM users WHERE name = ?", name)
        hashed = rows[0][0] if rows and rows[0][0] is not None else _nobodys(self._hasher)
        try:
            is_right = self._hasher.verify(str(hashed), password) and bool(rows)
        except (VerificationError, InvalidHashError):
            is_right = False
        (self._tries.succeeded if is_right else self._tries.failed)(name)
        return is_right

    # Repositories

    def add_member(self, repository: str, user: str, role: Role = Role.MEMBER) -> None:
        """Let a user act for a repository, in a role from now on; raises as `remove_user`."""
        self._known(user)
        self._do(
            "INSERT OR REPLACE INTO members (repository, user, role) VALUES (?, ?, ?)",
            repository_name(repository),
            user,
            role.value,
        )

    def remove_member(self, repository: str, user: str) -> None:
        """Let a user no longer act for a repository."""
        self._do("DELETE FROM members WHERE repository = ? AND user = ?", repository, user)

    def drop_member(self, repository: str, user: str) -> None:
        """Let a user that there is no longer act for a repository; raises as `remove_user`."""
        self._known(user)
        self.remove_member(repository, user)

    def members(self, repository: str) -> list[Member]:
        """Return who acts for a repository, by name: the user of its name, too, if there is one."""
        rows = self._do(
            "SELECT user, role FROM members WHERE repository = ? AND user <> ? "
            "UNION SELECT name, 'owner' FROM users WHERE name = ? ORDER BY 1",
            *[repository] * 3,
        )
        return [Member(user, Role(role)) for user, role in rows]

    def owns(self, user: str, repository: str) -> bool:
        """Return whether a user says who acts for a repository."""
        return Member(user, Role.OWNER) in self.members(repository)

    def acts_for(self, user: str, repository: str) -> bool:
        """Return whether a user acts for a repository: that of its name, or one that it is a member of."""
        if user == repository:
            return True
        rows = self._do("SELECT 1 FROM members WHERE repository = ? AND user = ?", repository, user)
        return bool(rows)

    # Tokens

    def new_token(self, user: str, label: str, scope: Scope, lifetime: float | None = None) -> str:
        """Make a token, and return its text, which is kept nowhere.

        Args:
            user: Whose it is.
            label: What it is for.
            scope: What it is good for.
            lifetime: Seconds that it is good for; None for ever.

        Raises:
            UsageError: there is no such user.
        """
        self._known(user)
        text = _PREFIX + secrets.token_urlsafe(32)
        now = int(self._now())
        expires = None if lifetime is None else int(now + lifetime)
        self._do(
            "INSERT INTO tokens (hash, user, label, scope, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
            _hashed(text),
            user,
            label,
            scope.value,
            now,
            expires,
        )
        return text

    def tokens(self, user: str | None = None) -> list[Token]:
        """Return the tokens of a user, or of all, the oldest first."""
        rows = self._do(
            "SELECT id, user, label, scope, created, expires, used FROM tokens "
            "WHERE ? IS NULL OR user = ? ORDER BY id",
            user,
            user,
        )
        return [_token(row) for row in rows]

    def revoke(self, token: int) -> None:
        """Let a token be good for nothing from now on.

        Raises:
            UsageError: there is no such token.
        """
        if not self._do("DELETE FROM tokens WHERE id = ? RETURNING id", token):
            raise UsageError(f"there is no token {token}; flistfs hub token list names them")

    def token(self, text: str) -> Token | None:
        """Return the token with a text; None if it is not good, or no longer."""
        rows = self._do(
            "SELECT id, user, label, scope, created, expires, used FROM tokens WHERE hash = ?", _hashed(text)
        )
        if not rows:
            return None
        token, now = _token(rows[0]), int(self._now())
        if token.expires is not None and token.expires <= now:
            return None
        if token.used is None or token.used <= now - _USED_EVERY:
            with suppress(sqlite3.OperationalError):  # the disk is full: it is good nevertheless
                self._do("UPDATE tokens SET used = ? WHERE id = ?", now, token.id)
        return token

    def _has_roles(self) -> bool:
        return bool(self._do("SELECT 1 FROM pragma_table_info('members') WHERE name = 'role'"))

    def _add_roles(self) -> None:
        """Make the table one of today, unless another process does so first."""
        self._do("BEGIN IMMEDIATE")
        try:
            if not self._has_roles():
                self._do(_WITHOUT_ROLES)
        finally:
            self._do("COMMIT")

    def _known(self, user: str) -> None:
        if not self._do("SELECT 1 FROM users WHERE name = ?", user):
            raise UsageError(f"there is no user {user}; flistfs hub user list names them")

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()


def lifetime_of(text: str) -> float:
    """Return the seconds that a token is good for, which are given as `90d` or `12h`.

    Raises:
        UsageError: they are given in another way.
    """
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise UsageError(f"`expires` is {text!r}; write days or hours, as in 90d or 12h")
    return int(match[1]) * _SECONDS[match[2]]


def _hashed(text: str) -> bytes:
    # No salt, nor work: the text is 256 random bits.
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _token(row: tuple[Any, ...]) -> Token:
    number, user, label, scope, created, expires, used = row
    return Token(number, user, label, Scope(scope), created, expires, used)


def _nobodys(hasher: PasswordHasher) -> str:
    """Return the hash of no password, which takes as long to verify as that of one.

    It is random, and not computed: hashing one first took 640 ms where a known user took 206 ms, which told
    who is known.
    """
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (hasher.salt_len, hasher.hash_len)
    )
    return f"$argon2id$v=19${costs}${salt}${digest}"
