"""A client of hubs, ours or the public one: what `zflist hub` does, and publishing."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import quote

import httpx2

from flistfs.errors import HubRefusedError, HubUnavailableError, UsageError
from flistfs.util.closing import Closing
from flistfs.util.output_file import OutputFile

_PART: Final = 1 << 18  # bytes that are sent or received at a time
_CONNECT: Final = 30.0  # seconds
_SILENT: Final = 3600.0  # seconds that a hub may pack what it was sent before it answers
_MAX_ANSWER: Final = 64 << 20  # bytes of an answer that is no file
_TRIES: Final = 3  # of what changes nothing

_NO_MEMBERS: Final = "has no members of repositories"


@dataclass(frozen=True, slots=True)
class Listed:
    """An flist, link or tag of a repository, as the hub lists it; `size` is a text for people."""

    name: str
    size: str
    updated: int
    kind: str
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a hub tells of one flist: bytes, seconds since 1970, and its MD5 in hex."""

    name: str
    size: int
    updated: int
    kind: str
    md5: str
    target: str | None = None


class HubClient(Closing):
    """Asks one hub. Errors name the hub, and never hold a token."""

    def __init__(self, url: str, token: str | None = None, *, acting_for: str | None = None) -> None:
        """Ask the hub at a URL.

        Args:
            url: Its address, such as https://hub.example.
            token: What it knows the user by.
            acting_for: The repository to act for, if not the user's own.

        Raises:
            UsageError: the URL is invalid.
        """
        try:
            parsed = httpx2.URL(url.rstrip("/"))
        except httpx2.InvalidURL:
            parsed = httpx2.URL("")
        if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
            raise UsageError("a hub's URL looks like https://hub.example, and has no password in it")
        self.url = str(parsed)
        headers = {"User-Agent": "flistfs"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if acting_for is not None:
            headers["Cookie"] = f"active-user={quote(acting_for, safe=':@')}"
        limits = httpx2.Timeout(_CONNECT, read=_SILENT)
        # A redirect would take the token elsewhere; hubs send none.
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=limits, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Looking

    def whoami(self) -> str:
        """Return the repository that the token acts for."""
        with self._shaped():
            return str(self._ask("GET", "/api/flist/me")["payload"]["username"])

    def repositories(self) -> list[str]:
        """Return the names of all repositories."""
        with self._shaped():
            return [str(each["name"]) for each in cast("list[Any]", self._ask("GET", "/api/repositories"))]

    def entries(self, repository: str, tag: str | None = None) -> list[Listed]:
        """Return what is in a repository, or the links of one of its tags."""
        path = f"/api/flist/{_quoted(repository)}" + (f"/tags/{_quoted(tag)}" if tag is not None else "")
        with self._shaped():
            return [_listed(each) for each in cast("list[Any]", self._ask("GET", path))]

    def find(self, repository: str, name: str) -> Told:
        """Return what is known of an flist."""
        path = f"/api/flist/{_quoted(repository)}/{_quoted(name)}/light"
        with self._shaped():
            return _told(self._ask("GET", path))

    def metadata(self, repository: str, name: str) -> Mapping[str, Any]:
        """Return the metadata of an flist."""
        with self._shaped():
            return dict(self._ask("GET", f"/api/flist/{_quoted(repository)}/{_quoted(name)}/metadata"))

    def download(self, repository: str, name: str, out: Path, *, force: bool = False) -> Told:
        """Download a package, whose MD5 must be the one that the hub tells.

        Raises:
            OutputError: the output exists or cannot be written.
        """
        told = self.find(repository, name)
        path = f"/{_quoted(repository)}/{_quoted(told.name)}"
        with OutputFile(out, force=force) as output:
            output.write(lambda file: self._fetch(path, file, told.md5))
            output.publish()
        return told

    # Changing

    def delete(self, name: str) -> None:
        """Remove an flist or a link."""
        self._ask("DELETE", f"/api/flist/me/{_quoted(name)}")

    def rename(self, source: str, name: str) -> None:
        """Rename an flist or a link."""
        self._act(source, "rename", name)

    def link(self, name: str, repository: str | None, source: str) -> None:
        """Make a link to an flist of a repository, one's own if none is named."""
        if repository is None:
            self._act(source, "link", name)
        else:
            self._act(name, "crosslink", repository, source)

    def promote(self, name: str, repository: str, source: str) -> None:
        """Copy an flist of another repository."""
        self._act("promote", repository, source, name)

    def tag(self, tag: str, name: str, repository: str, source: str) -> None:
        """Put a link to an flist into a tag."""
        self._act(tag, name, "tag", repository, source)

    def untag(self, tag: str, name: str, repository: str, source: str) -> None:
        """Remove a link from a tag."""
        self._ask("DELETE", _mine(tag, name, "tag", repository, source))

    def link_tag(self, name: str, repository: str, tag: str) -> None:
        """Make a link to a tag."""
        self._act(name, "crosstag", repository, tag)

    def merge(self, name: str, sources: Iterable[str]) -> None:
        """Make one flist of several, named as `USER/NAME`; of what several have, the first one's counts."""
        self._ask("POST", _mine("merge", name), json=list(sources))

    def upload(self, name: str, parts: Iterable[bytes], *, is_flist: bool = False) -> Mapping[str, Any]:
        """Upload an archive, or an flist whose blocks the hub has, and return what the hub says of it.

        Args:
            name: The name of the file: `NAME.tar.gz`, or `NAME.flist`.
            parts: Its content; it is asked for once.
            is_flist: Whether it is an flist.
        """
        boundary = secrets.token_hex(16)
        kind = "upload-flist" if is_flist else "upload"
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "X-Original-Name": name.encode(),
        }
        content = _form(boundary, name, parts)
        with self._shaped():
            answer = self._ask("POST", _mine(kind), headers=headers, content=content)
            payload = cast("Mapping[str, Any]", answer["payload"])
            files = payload.get("files", {})
            is_made = files.get("success", True)
        if not is_made:  # the public hub publishes an empty flist of a damaged archive
            raise HubRefusedError(f"{self.url} could not make an flist of {name}: {files.get('error')}")
        return payload

    def blocks(self) -> str | None:
        """Return the URL of the server that the hub's blocks are written to, if the hub tells."""
        try:
            with self._shaped():
                return str(self._ask("GET", "/api/hub")["blocks"] or "") or None
        except HubRefusedError:
            return None  # the public one does not know of that

    def md5(self, repository: str, name: str) -> str:
        """Return the MD5 of a package as the hub has it."""
        return self.find(repository, name).md5

    # Tokens and members, on hubs of flistfs

    def new_token(self, user: str, password: str, label: str) -> str:
        """Return the text of a new token of a user, for a password."""
        if ":" in user:  # a colon ends the name in HTTP Basic authorization
            raise UsageError("a user whose name has a colon cannot log in by password: use a token")
        login = httpx2.BasicAuth(user.encode(), password.encode())
        self._want_ours("makes no tokens for passwords: log in with a token of it")
        with self._shaped():
            made = self._ask("POST", "/api/hub/token", params={"label": label}, auth=login)
            return str(made["payload"]["token"])

    def revoke_token(self) -> None:
        """Make the token worthless that this client has."""
        self._want_ours("revokes no tokens")
        self._ask("DELETE", "/api/hub/token")

    def members(self, repository: str) -> Mapping[str, str]:
        """Return who acts for a repository, and in which role: `owner` or `member`."""
        self._want_ours(_NO_MEMBERS)
        with self._shaped():
            found = self._ask("GET", f"/api/hub/members/{_quoted(repository)}")["payload"]["members"]
            return {str(each["user"]): str(each["role"]) for each in found}

    def add_member(self, repository: str, user: str, *, is_owner: bool = False) -> None:
        """Let a user act for a repository, and maybe say who else does."""
        role = {"role": "owner" if is_owner else "member"}
        self._want_ours(_NO_MEMBERS)
        self._ask("PUT", f"/api/hub/members/{_quoted(repository)}/{_quoted(user)}", json=role)

    def remove_member(self, repository: str, user: str) -> None:
        """Let a user no longer act for a repository."""
        self._want_ours(_NO_MEMBERS)
        self._ask("DELETE", f"/api/hub/members/{_quoted(repository)}/{_quoted(user)}")

    # Requests

    def _act(self, *parts: str) -> None:
        self._ask("GET", _mine(*parts), is_safe=False)

    def _ask(self, method: str, path: str, *, is_safe: bool = True, **what: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return the JSON of an answer; what changes nothing is asked again where nothing was answered."""
        tries = _TRIES if method == "GET" and is_safe else 1
        for left in reversed(range(tries)):
            try:
                with self._opened(method, path, **what) as answer:
                    return self._json(answer)
            except HubUnavailableError:
                if not left:
                    raise
        raise AssertionError

    @contextmanager
    def _shaped(self) -> Iterator[None]:
        """Report an answer of another shape than a hub's."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError):
            raise HubRefusedError(f"{self.url} gives no answer of a hub") from None

    def _want_ours(self, what: str) -> None:
        """Say what a hub does not do that is none of ours."""
        try:
            with self._shaped():
                self._ask("GET", "/api/hub")["software"]
        except HubRefusedError:
            raise HubRefusedError(f"{self.url} {what}") from None

    @contextmanager
    def _opened(self, method: str, path: str, **what: Any) -> Iterator[httpx2.Response]:  # noqa: ANN401
        try:
            with self._http.stream(method, path, **what) as answer:
                if answer.status_code != 200:
                    raise self._refusal(answer)
                yield answer
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise HubUnavailableError(f"{self.url} cannot be asked: {reason}") from None

    def _json(self, answer: httpx2.Response) -> Mapping[str, Any]:
        try:
            return cast("Mapping[str, Any]", _parsed(_bounded(answer)))
        except ValueError:
            raise HubRefusedError(f"{self.url} gives no answer of a hub") from None

    def _refusal(self, answer: httpx2.Response) -> HubRefusedError:
        try:
            message = str(_parsed(_bounded(answer))["message"])
        except (ValueError, KeyError, TypeError):
            message = "it gives no answer of a hub"
        return HubRefusedError(f"{self.url} refuses: {message[:500]} ({answer.status_code})")

    def _fetch(self, path: str, file: BinaryIO, md5: str) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        with self._opened("GET", path) as answer:
            for part in answer.iter_bytes(_PART):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != md5:
            raise HubRefusedError(f"{self.url} sent a file whose MD5 is not what it tells; try again")


def parts_of(file: BinaryIO, progress: Callable[[int], object] = lambda _: None) -> Iterator[bytes]:
    """Yield the content of a file in parts; `progress` is told how many bytes went."""
    done = 0
    while part := file.read(_PART):
        yield part
        done += len(part)
        progress(done)


def _told(raw: Mapping[str, Any]) -> Told:
    name, kind, md5 = (str(raw[key]) for key in ("name", "type", "md5"))
    return Told(name, int(raw["size"]), int(raw["updated"]), kind, md5, raw.get("target"))


def _listed(raw: Mapping[str, Any]) -> Listed:
    name, size, kind = (str(raw[key]) for key in ("name", "size", "type"))
    return Listed(name, size, int(raw["updated"]), kind, raw.get("target"))


def _mine(*parts: str) -> str:
    return "/api/flist/me/" + "/".join(map(_quoted, parts))


def _quoted(name: str) -> str:
    """Return a name as a part of a path: colons, which are common in names, stay as they are."""
    if "/" in name or not name:
        raise UsageError(f"{name!r} is no name of a repository, flist or tag")
    return quote(os.fsencode(name), safe=":@")


def _form(boundary: str, name: str, parts: Iterable[bytes]) -> Iterator[bytes]:
    shown = name.encode(errors="replace").replace(b"\\", b"_").replace(b'"', b"%22").replace(b"\n", b"_")
    yield (
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" % (boundary.encode(), shown.replace(b"\r", b"_"))
    )
    yield from parts
    yield b"\r\n--%b--\r\n" % boundary.encode()


def _bounded(answer: httpx2.Response) -> bytes:
    content = bytearray()
    for part in answer.iter_bytes(_PART):
        content += part
        if len(content) > _MAX_ANSWER:
            raise ValueError
    return bytes(content)


def _parsed(content: bytes) -> Any:  # noqa: ANN401  JSON
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError from None
