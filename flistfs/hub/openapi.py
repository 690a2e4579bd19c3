"""The description of a hub for programs (OpenAPI 3.1). The method INFO has no place in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.hub.answers import public

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_TEXT: Final = "text/plain"

_NAMES: Final = {
    "user": ("A repository.", "alice"),
    "repository": ("A repository.", "alice"),
    "member": ("A user.", "bob"),
    "name": ("An flist, a link or a tag link; `.flist` may be left out.", "latest"),
    "source": ("An flist that is there; `.flist` may be left out.", "app.flist"),
    "tag": ("A tag: a set of links.", "v1"),
    "job": ("What a new job was called.", "a2cLYvQ5VgHYd0yQ2UuXzw"),
    "file": (
        "NAME.flist is the package; with `.md5`, `.txt` or `.json` behind it what is known of that.",
        "app.flist",
    ),
}
"""What stands in paths, and how it looks."""

_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^./][^/]*$"}


def _object(**properties: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    required = sorted(name for name in properties if not name.endswith("_"))
    plain = {name.removesuffix("_"): value for name, value in properties.items()}
    return {"type": "object", "properties": plain, "required": required}


def _array(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": [*values]}


def _named(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


_STRING: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_FREE: Final = {"type": "object"}
_COUNTS: Final = dict.fromkeys(("regular", "symlink", "directory", "special", "failure", "fullsize"), _COUNT)
_KINDS: Final = ("regular", "symlink", "tag", "taglink")

_SCHEMAS: Final = {
    "Error": _object(status=_one_of("error"), message=_STRING),
    "Done": _object(status=_one_of("success"), payload_=_FREE),
    "Entry": _object(
        name=_STRING, size=_STRING, updated=_COUNT, type=_one_of(*_KINDS), linktime_=_COUNT, target_=_STRING
    ),
    "Light": _object(
        name=_STRING,
        size=_COUNT,
        updated=_COUNT,
        type=_one_of("regular", "symlink"),
        md5={"type": "string", "pattern": "^[0-9a-f]{32}$"},
        linktime_=_COUNT,
        target_=_STRING,
    ),
    "Contents": {
        "anyOf": [
            _object(content=_array(_object(path=_STRING, size=_COUNT)), **_COUNTS),
            {"type": "object", "maxProperties": 0, "description": "It cannot be read."},
        ]
    },
    "Made": _object(
        status=_one_of("success"),
        payload=_object(
            name=_STRING,
            files=_object(
                success={"type": "boolean"}, error={"type": "null"}, response=_FREE, status=_COUNT, **_COUNTS
            ),
        ),
    ),
    "User": _object(status=_one_of("success"), payload=_object(username=_STRING)),
    "NewToken": _object(status=_one_of("success"), payload=_object(user=_STRING, token=_STRING)),
    "Members": _object(
        status=_one_of("success"),
        payload=_object(members=_array(_object(user=_STRING, role=_one_of("member", "owner")))),
    ),
    "NewJob": _object(status=_one_of("success"), payload=_object(jobid=_STRING)),
    "Repository": _object(name=_STRING, official={"type": "boolean"}, updated=_COUNT),
    "Hub": _object(software=_STRING, blocks={"type": ["string", "null"]}, format=_STRING),
}

_UPLOAD: Final = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "string", "contentMediaType": _BINARY}},
            "required": ["file"],
            "additionalProperties": {"type": "string"},
        }
    }
}
_NEW_TOKEN: Final = {
    _JSON: {
        "schema": {
            "type": "object",
            "properties": {"label": _STRING, "scope": _one_of("read", "write"), "expires": _STRING},
            "description": "Instead of what may stand behind the path.",
        }
    }
}
_ROLE: Final = {_JSON: {"schema": _object(role=_one_of("member", "owner"))}}
_SOURCES: Final = {_JSON: {"schema": _array({"type": "string", "description": "USER/NAME"})}}


@dataclass(frozen=True, slots=True)
class _Operation:
    """A request that the hub takes.

    Attributes:
        method: How.
        path: Of what, with names in braces.
        summary: What it does.
        answer: The schema of its answer.
        kind: The type of that.
        scope: What the token has to be good for; None if there need be none, `_PASSWORD` for that instead.
        body: What is sent with it, by type.
        query: What may stand behind the path, by name.
        headers: Headers that count, by name.
    """

    method: str
    path: str
    summary: str
    answer: Mapping[str, Any]
    kind: str = _JSON
    scope: str | None = None
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


_JOB: Final = {"job": "The job that others follow this by."}
_FORMAT: Final = {"format": "The format of the flist that is made."}
_ORIGINAL: Final = {"X-Original-Name": "The name that counts, instead of that of the file."}

_PASSWORD: Final = "password"  # noqa: S105  a word

_ME: Final = "/api/flist/me"
_MEMBERS: Final = "/api/hub/members/{repository}"
_ONE: Final = "/api/flist/{user}/{name}"
_DONE: Final = _named("Done")


def _reads(path: str, summary: str, answer: Mapping[str, Any], kind: str = _JSON) -> _Operation:
    return _Operation("get", path, summary, answer, kind)


def _acts(path: str, summary: str, method: str = "get") -> _Operation:
    return _Operation(method, f"{_ME}{path}", summary, _DONE, scope="write")


_OPERATIONS: Final = (
    _reads("/healthz", "Say that the hub is there.", _STRING, _TEXT),
    _reads("/metrics", "Count what it did, for Prometheus.", _STRING, _TEXT),
    _reads("/api/openapi.json", "Describe the hub.", _FREE),
    _reads("/api/hub", "Say where its blocks are written to, and what flists it makes.", _named("Hub")),
    _Operation(
        "post",
        "/api/hub/token",
        "Make a token, for a user name and a password.",
        _named("NewToken"),
        scope=_PASSWORD,
        query={
            "label": "What it is for.",
            "scope": "What it is good for: read, or write, which is usual.",
            "expires": "When it ends, as in 90d or 12h; never is usual.",
        },
        body=_NEW_TOKEN,
    ),
    _Operation("delete", "/api/hub/token", "Make the token worthless.", _DONE, scope="read"),
    _Operation("get", _MEMBERS, "List who acts for a repository.", _named("Members"), scope="write"),
    _Operation(
        "put",
        f"{_MEMBERS}/{{member}}",
        "Let a user act for a repository.",
        _DONE,
        scope="write",
        body=_ROLE,
    ),
    _Operation("delete", f"{_MEMBERS}/{{member}}", "Let a user no longer act for it.", _DONE, scope="write"),
    _reads("/api/flist", "Name everything that is there, as USER/FILE.", _array(_STRING)),
    _reads("/api/repositories", "List all repositories.", _array(_named("Repository"))),
    _reads(
        "/api/fileslist",
        "List what is in all repositories.",
        {"type": "object", "additionalProperties": _array(_named("Entry"))},
    ),
    _reads("/api/flist/{user}", "List what is in a repository.", _array(_named("Entry"))),
    _reads("/api/flist/{user}/tags/{tag}", "List the links of a tag.", _array(_named("Entry"))),
    _reads(_ONE, "List what is in an flist.", _named("Contents")),
    _reads(f"{_ONE}/light", "Say how large an flist is, and what its MD5 is.", _named("Light")),
    _reads(f"{_ONE}/taglink", "Say what a tag link leads to.", _object(target=_STRING)),
    _reads(f"{_ONE}/metadata", "Say what an flist says of itself besides its tree.", _FREE),
    _reads("/listen/{job}", "Follow a job: events, each a JSON object.", _STRING, "text/event-stream"),
    _reads("/{user}/{file}", "Download an flist.", _STRING, "*/*"),
    _reads("/{user}/tags/{tag}/{file}", "Download what a link of a tag leads to.", _STRING, "*/*"),
    _Operation("get", _ME, "Say who the caller is.", _named("User"), scope="read"),
    _Operation(
        "get", f"{_ME}/{{name}}", "List what is in an flist of one's own.", _named("Contents"), scope="read"
    ),
    _acts("/{name}", "Remove an flist or a link.", "delete"),
    _acts("/{source}/link/{name}", "Make a link to an flist of one's own."),
    _acts("/{name}/crosslink/{user}/{source}", "Make a link to an flist."),
    _acts("/{source}/rename/{name}", "Rename an flist; no other is replaced."),
    _acts("/promote/{user}/{source}/{name}", "Copy an flist."),
    _acts("/{tag}/{name}/tag/{user}/{source}", "Put a link to an flist into a tag."),
    _acts("/{tag}/{name}/tag/{user}/{source}", "Take a link out of a tag.", "delete"),
    _acts("/{name}/crosstag/{user}/{tag}", "Make a link to a tag."),
    _Operation("post", f"{_ME}/jobs", "Make a job, for what takes long.", _named("NewJob"), scope="write"),
    _Operation(
        "post",
        f"{_ME}/upload",
        "Upload an archive, of which an flist is made.",
        _named("Made"),
        scope="write",
        body=_UPLOAD,
        query=_JOB | _FORMAT,
        headers=_ORIGINAL,
    ),
    _Operation(
        "post",
        f"{_ME}/upload-flist",
        "Upload an flist, whose blocks the hub has.",
        _named("Made"),
        scope="write",
        body=_UPLOAD,
        query=_JOB,
        headers=_ORIGINAL,
    ),
    _Operation(
        "post",
        f"{_ME}/merge/{{name}}",
        "Make one flist of several.",
        _DONE,
        scope="write",
        body=_SOURCES,
        query=_JOB,
    ),
    _Operation(
        "post",
        f"{_ME}/convert/{{user}}/{{source}}/{{name}}",
        "Make an flist of another format.",
        _named("Made"),
        scope="write",
        query=_JOB | _FORMAT,
    ),
    _Operation("post", f"{_ME}/docker", "Nothing yet: container images are not taken.", _DONE, scope="write"),
)


def routes() -> list[Route]:
    """Return the route of the description."""
    return [Route("/api/openapi.json", _answer)]


async def _answer(request: Request) -> Response:  # noqa: ARG001  starlette's signature
    return public(description())


@cache
def description() -> Mapping[str, Any]:
    """Return the description, as JSON has it."""
    paths: dict[str, dict[str, Any]] = {}
    for each in _OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = _described(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "A Zero-OS hub", "version": version("flistfs")},
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _described(operation: _Operation) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _NAMES[name][0],
            "example": _NAMES[name][1],
            "schema": _NAME,
        }
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    for place, given in (("query", operation.query), ("header", operation.headers)):
        parameters += [
            {"name": name, "in": place, "description": text, "schema": _STRING}
            for name, text in given.items()
        ]
    error = {"description": "It was not done.", "content": {_JSON: {"schema": _named("Error")}}}
    found: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "It was done.", "content": {operation.kind: {"schema": operation.answer}}},
            "default": error,
        },
    }
    if operation.scope == _PASSWORD:
        found["security"] = [{"password": []}]
    elif operation.scope is not None:
        found["security"] = [{"token": []}]
        found["description"] = f"The token has to have the scope `{operation.scope}`."
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": operation.body}
    return found
