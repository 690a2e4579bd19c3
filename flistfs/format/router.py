"""router.yaml: which server holds which blocks.

A router comes with a package and is not trusted. Of YAML only text, lists and mappings are accepted, parsed
event by event: no tag creates an object, no alias multiplies its target, and every scalar is text, as `00`
and `1E3` are prefixes, not numbers.

URLs can contain passwords. No error and no `repr` shows a URL, or any text that might be a misplaced one.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from flistfs.errors import FormatError

if TYPE_CHECKING:
    import yaml

MAX_SIZE: Final = 1 << 20
"""The maximum size of a router.yaml in bytes."""

MAX_EVENTS: Final = 50_000
"""Scalars, and starts and ends of lists and mappings, in a router.yaml: some 25,000 ranges."""

SCHEMES: Final = frozenset({"ardb", "redis", "zdb"})
"""The URL schemes that readers support."""

_MAX_DEPTH: Final = 16  # a router needs three; parts that readers ignore may have more
_MAX_NAME: Final = 255  # a simple YAML key has at most 1,024 characters, escapes included
_RANGE: Final = re.compile(r"([0-9A-Fa-f]{1,64})(?::([0-9A-Fa-f]{1,64}))?")
_URL: Final = re.compile(r"([A-Za-z]+)://(?:[^/?#]*@)?[^@/?#:][^@/?#]*(?:/[^@?#]*)?")
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_.: -]{1,64}")

# A document, with all scalars as text.
_Value: TypeAlias = "str | list[_Value] | dict[str, _Value]"


@dataclass(frozen=True, slots=True)
class Range:
    """All hashes from one prefix to another, inclusive: upper-case hex digits of equal length."""

    first: str
    last: str

    def __str__(self) -> str:
        return self.first if self.first == self.last else f"{self.first}:{self.last}"

    def matches(self, block_hash: bytes) -> bool:
        """Return whether the hash, as hex digits of either case, is in the range."""
        prefix = block_hash[: len(self.first)].decode("ascii", "replace").upper()
        return len(prefix) == len(self.first) and self.first <= prefix <= self.last


@dataclass(frozen=True, slots=True)
class Rule:
    """The server for a range of hashes."""

    range: Range
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pool:
    """A named set of servers. Its ranges may overlap, and need not cover all hashes."""

    name: str
    rules: tuple[Rule, ...]

    def urls(self, block_hash: bytes) -> list[str]:
        """Return the URLs of all ranges that contain the hash (hex digits), in the order of the file."""
        return [rule.url for rule in self.rules if rule.range.matches(block_hash)]


@dataclass(frozen=True, slots=True)
class Router:
    """The content of a router.yaml."""

    pools: tuple[Pool, ...]
    lookup: tuple[str, ...]
    """Names of pools, in the order in which they are queried."""
    cache: tuple[str, ...] = ()
    """Names of pools in which a reader stores blocks that it got elsewhere."""

    def urls(self, block_hash: bytes) -> list[str]:
        """Return the URLs to query for the block with this hash (hex digits), in order."""
        pools = {pool.name: pool for pool in self.pools}
        return [url for name in self.lookup for url in pools[name].urls(block_hash)]

    def all_urls(self) -> tuple[str, ...]:
        """Return all URLs that are queried for blocks, each once, in the order of pools and their ranges."""
        pools = {pool.name: pool for pool in self.pools}
        return tuple(dict.fromkeys(rule.url for name in self.lookup for rule in pools[name].rules))


def router_to(url: str) -> Router:
    """Return the router that finds every block on one server."""
    return Router((Pool("default", (Rule(Range("00", "FF"), url),)),), ("default",))


def in_whole_bytes(router: Router) -> Router:
    """Return a router that means the same with ranges of whole bytes, as readers of generation 2 need it."""
    return _with_ranges(router, lambda first, last: (_even(first, "0"), _even(last, "F")))


def as_taken_in_bytes(router: Router) -> Router:
    """Return what readers of generation 2 make of a router: they add a 0 to an odd number of digits.

    So `C` matches only hashes that begin with the byte C0 (tried with 0-fs of 2023).
    """
    return _with_ranges(router, lambda first, last: (_even(first, "0"), _even(last, "0")))


def only_server(router: Router | None) -> str | None:
    """Return the URL of the server that has all blocks; None if none has."""
    if router is None:
        return None
    whole = {
        rule.url
        for pool in router.pools
        if pool.name in router.lookup
        for rule in pool.rules
        if set(rule.range.first) == {"0"} and set(rule.range.last) == {"F"}
    }
    return next(iter(whole)) if len(whole) == 1 else None


def namespace_of(url: str) -> str | None:
    """Return the namespace of a 0-db that a URL names; None for the usual one, and for other servers."""
    scheme, _, rest = url.partition("://")
    name = rest.partition("/")[2]
    return name if scheme == "zdb" and name not in {"", "default"} else None


def without_namespaces(router: Router) -> Router | None:
    """Return a router without the servers of which a namespace is named; None if none is left."""
    return with_servers(router, lambda url: namespace_of(url) is None)


def with_servers(router: Router, is_wanted: Callable[[str], bool]) -> Router | None:
    """Return the part of a router that has some servers, told by their URLs; None if nothing is left."""
    pools = tuple(
        replace(pool, rules=rules)
        for pool in router.pools
        if (rules := tuple(rule for rule in pool.rules if is_wanted(rule.url)))
    )
    names = {pool.name for pool in pools}
    lookup = tuple(name for name in router.lookup if name in names)
    cache = tuple(name for name in router.cache if name in names)
    return Router(pools, lookup, cache) if lookup else None


def _with_ranges(router: Router, changed: Callable[[str, str], tuple[str, str]]) -> Router:
    pools = tuple(
        replace(
            pool,
            rules=tuple(
                replace(rule, range=Range(*changed(rule.range.first, rule.range.last))) for rule in pool.rules
            ),
        )
        for pool in router.pools
    )
    return replace(router, pools=pools)


def _even(digits: str, filling: str) -> str:
    return digits + filling * (len(digits) % 2)


def parse_router(raw: bytes) -> Router:
    """Parse a router.yaml. Anything but pools, lookup and cache is ignored, as by readers.

    Raises `FormatError`, which never shows a URL.
    """
    if len(raw) > MAX_SIZE:
        raise FormatError(f"router.yaml has more than {MAX_SIZE} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"router.yaml is not UTF-8 (byte {error.start})") from None
    document = _load(text)
    if not isinstance(document, dict):
        raise FormatError("router.yaml is not a mapping with pools and lookup")
    if "pools" not in document:
        raise FormatError("router.yaml has no pools")
    pools = document["pools"]
    if not isinstance(pools, dict):
        raise FormatError("pools in router.yaml is not a mapping of names to pools")
    if "lookup" not in document:
        raise FormatError("router.yaml has no lookup")
    lookup = _names("lookup", document["lookup"], pools)
    if not lookup:
        raise FormatError("lookup in router.yaml does not name any pool")
    cache = _names("cache", document.get("cache", []), pools)
    return Router(tuple(_pool(name, rules) for name, rules in pools.items()), lookup, cache)


def format_router(router: Router) -> bytes:
    """Return a router as YAML that `parse_router` parses to an equal one. Equal routers give equal bytes.

    Raises `FormatError` if there is no such YAML; it never shows a URL.
    """
    lines = ["pools:"]
    for pool in router.pools:
        lines.append(f"  {_quoted(pool.name)}:{'' if pool.rules else ' {}'}")
        spellings: dict[Range, Iterator[str]] = {}
        for rule in pool.rules:
            spelling = next(spellings.setdefault(rule.range, _spellings(rule.range)), None)
            if spelling is None:
                raise FormatError(
                    f"pool {_shown(pool.name)} has the same range too often: {_shown(str(rule.range))}"
                )
            lines.append(f"    {_quoted(spelling)}: {_quoted(rule.url)}")
    lines.append(f"lookup: [{', '.join(map(_quoted, router.lookup))}]")
    if router.cache:
        lines.append(f"cache: [{', '.join(map(_quoted, router.cache))}]")
    raw = "".join(f"{line}\n" for line in lines).encode(errors="surrogatepass")
    # Values from a program may be invalid; readers would reject a package with such a router.
    if parse_router(raw) != router:
        raise FormatError("the router cannot be written: its ranges are not in upper case")
    return raw


def without_passwords(router: Router) -> Router:
    """Return the router without the passwords in its URLs, so that it may be shown and shared."""
    return replace(
        router,
        pools=tuple(
            replace(pool, rules=tuple(replace(rule, url=_without_password(rule.url)) for rule in pool.rules))
            for pool in router.pools
        ),
    )


def has_passwords(router: Router) -> bool:
    """Return whether a URL in the router has a password."""
    return without_passwords(router) != router


def _load(text: str) -> _Value:
    # Here and not above: reading or writing an flist without a router needs no YAML.
    import yaml  # noqa: PLC0415

    # Only the loader's parser runs, which yields events; nothing is composed or constructed. The Python one
    # on purpose: libyaml's accepts a slightly different language, and not every system has it.
    try:
        return _Builder().build(yaml.parse(text, Loader=yaml.BaseLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" (line {mark.line + 1})"
        raise FormatError(f"router.yaml is not valid YAML{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The scanner leaks the latter two for an escape or a version that is out of range.
        raise FormatError("router.yaml is not valid YAML") from None


class _Builder:
    """Builds the single document of a stream of YAML events."""

    def __init__(self) -> None:
        self._open: list[list[_Value] | dict[str, _Value]] = []
        self._keys: list[str | None] = []  # for each open container, the key whose value comes next
        self._root: _Value | None = None

    def build(self, events: Iterable[yaml.Event]) -> _Value:
        import yaml  # noqa: PLC0415

        for count, event in enumerate(events):
            if count > MAX_EVENTS:
                raise FormatError("router.yaml has too many entries")
            line = 0 if event.start_mark is None else event.start_mark.line + 1
            if isinstance(event, yaml.NodeEvent):
                _check_plain(event, line)
            if isinstance(event, yaml.ScalarEvent):
                self._add(event.value, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
                self._keys.pop()
            elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                raise FormatError("router.yaml has more than one document")
        if self._root is None or self._root == "":
            raise FormatError("router.yaml is empty")
        return self._root

    def _begin(self, container: list[_Value] | dict[str, _Value], line: int) -> None:
        if len(self._open) == _MAX_DEPTH:
            raise FormatError("router.yaml is nested too deeply")
        self._add(container, line)
        self._open.append(container)
        self._keys.append(None)

    def _add(self, value: _Value, line: int) -> None:
        if not self._open:
            self._root = value
            return
        container = self._open[-1]
        if isinstance(container, list):
            container.append(value)
            return
        key = self._keys[-1]
        if key is not None:
            container[key] = value
            self._keys[-1] = None
        elif not isinstance(value, str):
            raise FormatError(f"router.yaml has a key that is not text (line {line})")
        elif value in container:
            raise FormatError(f"router.yaml has a key twice in one mapping (line {line})")
        else:
            self._keys[-1] = value


def _check_plain(event: yaml.NodeEvent, line: int) -> None:
    import yaml  # noqa: PLC0415

    if event.anchor is not None or isinstance(event, yaml.AliasEvent):
        raise FormatError(f"router.yaml has an anchor or an alias, which is not allowed (line {line})")
    if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
        raise FormatError(f"router.yaml has a tag, which is not allowed (line {line})")


def _names(what: str, value: _Value, pools: dict[str, _Value]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FormatError(f"{what} in router.yaml is not a list of pool names")
    names: dict[str, None] = {}
    for name in value:
        if not isinstance(name, str):
            raise FormatError(f"{what} in router.yaml is not a list of pool names")
        if name not in pools:
            raise FormatError(f"{what} in router.yaml names a pool that does not exist: {_shown(name)}")
        if name in names:
            raise FormatError(f"{what} in router.yaml names a pool twice: {_shown(name)}")
        names[name] = None
    return tuple(names)


def _pool(name: str, rules: _Value) -> Pool:
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise FormatError("router.yaml has a pool without a valid name")
    if not isinstance(rules, dict):
        raise FormatError(f"pool {_shown(name)} in router.yaml is not a mapping of ranges to URLs")
    return Pool(
        name, tuple(_rule(name, number, key, url) for number, (key, url) in enumerate(rules.items(), 1))
    )


def _rule(pool: str, number: int, key: str, url: _Value) -> Rule:
    place = f"pool {_shown(pool)} in router.yaml"
    found = _RANGE.fullmatch(key)
    if found is None:
        # Its text is not repeated: if a comma or a quote is missing, it is the end of a URL.
        raise FormatError(f"range {number} of {place} is neither one hex prefix nor two")
    first = found[1].upper()
    last = first if found[2] is None else found[2].upper()
    place = f"range {first if found[2] is None else f'{first}:{last}'} of {place}"
    if len(first) != len(last):
        raise FormatError(f"{place} has prefixes of unequal length")
    if first > last:
        raise FormatError(f"{place} ends before it begins")
    if not isinstance(url, str):
        raise FormatError(f"{place} has a URL that is not text")
    if url.partition("://")[0].lower() not in SCHEMES:
        raise FormatError(f"{place} has a URL whose scheme is not one of {', '.join(sorted(SCHEMES))}")
    if not _URL.fullmatch(url) or not url.isprintable() or " " in url:
        raise FormatError(
            f"{place} has a malformed URL: it must be scheme://host:port or scheme://password@host:port"
        )
    return Rule(Range(first, last), url)


def _shown(text: str) -> str:
    return repr(text) if _HARMLESS.fullmatch(text) else "(not shown)"


def _quoted(text: str) -> str:
    # A JSON string of printable text means the same in YAML.
    return json.dumps(text, ensure_ascii=False)


def _spellings(prefixes: Range) -> Iterator[str]:
    """Yield all spellings of a range: several servers for one range need different keys in a mapping."""
    first, last = prefixes.first, prefixes.last
    if first == last:
        yield from _cases(first)
    yield from _cases(f"{first}:{last}")


def _cases(text: str) -> Iterator[str]:
    choices = [(digit, digit.lower()) if digit != digit.lower() else (digit,) for digit in text]
    return map("".join, itertools.product(*choices))


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    # Up to the last @: a password that should have been escaped may contain another, or a slash.
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
