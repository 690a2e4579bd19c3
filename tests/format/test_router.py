"""Routers: what readers take and refuse, and that no error shows a password."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import FormatError
from flistfs.format.router import (
    MAX_EVENTS,
    MAX_SIZE,
    Pool,
    Range,
    Router,
    Rule,
    format_router,
    has_passwords,
    parse_router,
    router_to,
    without_passwords,
)

EXAMPLE = b"""\
pools:
  local:
    00:7f: ardb://s3cret@one:16379
    80:FF: redis://:s3cret@two:6379
  hub:
    000:7FF: zdb://three:9900
    007: zdb://seven
    1E3: ARDB://[::1]:16379
lookup: [local, hub]
cache:
- local
"""
PARSED = Router(
    (
        Pool(
            "local",
            (
                Rule(Range("00", "7F"), "ardb://s3cret@one:16379"),
                Rule(Range("80", "FF"), "redis://:s3cret@two:6379"),
            ),
        ),
        Pool(
            "hub",
            (
                Rule(Range("000", "7FF"), "zdb://three:9900"),
                Rule(Range("007", "007"), "zdb://seven"),
                Rule(Range("1E3", "1E3"), "ARDB://[::1]:16379"),
            ),
        ),
    ),
    ("local", "hub"),
    ("local",),
)


def _pools(rules: str, lookup: str = "[p]") -> str:
    return f"pools: {{p: {rules}}}\nlookup: {lookup}\n"


GOOD = "{00: ardb://h}"


def test_example() -> None:
    assert parse_router(EXAMPLE) == PARSED


def test_cache_is_optional_and_what_is_unknown_is_passed_over() -> None:
    router = parse_router(f"other: [{{a: [1]}}]\n{_pools(GOOD)}".encode())
    assert router == Router((Pool("p", (Rule(Range("00", "00"), "ardb://h"),)),), ("p",))


@pytest.mark.parametrize(
    ("block_hash", "expected"),
    [
        (b"007" + b"a" * 61, ["ardb://s3cret@one:16379", "zdb://three:9900", "zdb://seven"]),
        (b"1e3" + b"a" * 61, ["ardb://s3cret@one:16379", "zdb://three:9900", "ARDB://[::1]:16379"]),
        (b"7F" + b"f" * 62, ["ardb://s3cret@one:16379", "zdb://three:9900"]),
        (b"80" + b"0" * 62, ["redis://:s3cret@two:6379"]),
        (b"FF" + b"F" * 62, ["redis://:s3cret@two:6379"]),
        (b"", []),
        (b"0", []),
        (b"\xff\xff\xff", []),
    ],
)
def test_urls_come_in_the_order_of_lookup_with_every_match(block_hash: bytes, expected: list[str]) -> None:
    assert PARSED.urls(block_hash) == expected
    turned = replace(PARSED, lookup=("hub",))
    assert turned.urls(block_hash) == [url for url in expected if "s3cret" not in url]


def test_order_of_lookup_is_not_that_of_pools() -> None:
    router = replace(PARSED, lookup=("hub", "local"))
    assert router.urls(b"7f" * 32) == ["zdb://three:9900", "ardb://s3cret@one:16379"]


REFUSED = {
    "": "is empty",
    "# nothing\n": "is empty",
    "---\n": "is empty",
    "~": "not a mapping with",
    "[a]": "not a mapping with",
    "lookup: [p]": "has no pools",
    "pools:\nlookup: [p]": "pools in router.yaml is not a mapping",
    "pools: [p]\nlookup: [p]": "pools in router.yaml is not a mapping",
    f"pools: {{p: {GOOD}}}": "has no lookup",
    _pools(GOOD, "[]"): "does not name any pool",
    _pools(GOOD, ""): "not a list of pool names",
    _pools(GOOD, "p"): "not a list of pool names",
    _pools(GOOD, "[[p]]"): "not a list of pool names",
    _pools(GOOD, "[p, q]"): "lookup in router.yaml names a pool that does not exist: 'q'",
    _pools(GOOD, "[p, 'zdb://s3cret@h']"): r"does not exist: \(not shown\)",
    _pools(GOOD, "[p, p]"): "names a pool twice: 'p'",
    _pools(GOOD) + "cache: [q]": "cache in router.yaml names a pool that does not exist",
    _pools(GOOD) + "cache: p": "cache in router.yaml is not a list",
    _pools("[ardb://s3cret@h]"): "pool 'p' in router.yaml is not a mapping",
    _pools("ardb://s3cret@h"): "pool 'p' in router.yaml is not a mapping",
    _pools("{GG: ardb://s3cret@h}"): "range 1 of pool 'p' in router.yaml is neither",
    _pools("{'': ardb://s3cret@h}"): "is neither",
    _pools("{'00:': ardb://s3cret@h}"): "is neither",
    _pools("{'00:11:22': ardb://s3cret@h}"): "is neither",
    _pools("{'\u0660\u0660': ardb://s3cret@h}"): "is neither",  # digits, but Arabic ones
    _pools("{" + "0" * 65 + ": ardb://s3cret@h}"): "is neither",
    _pools("{00: zdb://h, 'ardb://s3cret@h': 00}"): "range 2 of pool 'p' in router.yaml is neither",
    _pools("{00: ardb://begin,s3cret,end@h}"): "range 2 of pool 'p' in router.yaml is neither",
    _pools("{00: zdb://h, ardb://s3cret@h: 00}"): "range 2 of pool 'p' in router.yaml is neither",
    _pools("{'0:FF': ardb://s3cret@h}"): "range 0:FF of pool 'p' in router.yaml has prefixes of unequal",
    _pools("{'f0:0F': ardb://s3cret@h}"): "range F0:0F of pool 'p' in router.yaml ends before it begins",
    _pools("{00: [ardb://s3cret@h]}"): "has a URL that is not text",
    _pools("{00: }"): "whose scheme is not one of ardb, redis, zdb",
    _pools("{00: http://s3cret@h}"): "range 00 of pool 'p' in router.yaml has a URL whose scheme is not one",
    _pools("{00: s3cret@h}"): "whose scheme is not one",
    _pools("{00: 'ardb://'}"): "malformed URL",
    _pools("{00: 'ardb://s3cret@'}"): "malformed URL",
    _pools("{00: 'ardb://s3cret@:16379'}"): "malformed URL",
    _pools("{00: 'ardb://s3/cret@h'}"): "malformed URL",
    _pools("{00: 'ardb://h?password=s3cret'}"): "malformed URL",
    _pools("{00: 'ardb://s3cret @h'}"): "malformed URL",
    _pools(r'{00: "ardb://s3cret\n@h"}'): "malformed URL",
    _pools("{00: ardb://s3cret@h, 00: ardb://s3cret@i}"): r"has a key twice in one mapping \(line 1\)",
    _pools(GOOD) + _pools(GOOD): r"has a key twice in one mapping \(line 3\)",
    _pools("&x {00: ardb://s3cret@h}"): "anchor or an alias",
    _pools("*s3cret"): "anchor or an alias",
    "a: &a [x]\nb: [*a, *a]\n" + _pools(GOOD): "anchor or an alias",
    _pools("!!python/object:os.system {00: ardb://s3cret@h}"): "has a tag",
    _pools("{00: !!str ardb://s3cret@h}"): "has a tag",
    _pools("{[a]: ardb://s3cret@h}"): "a key that is not text",
    _pools("{00: ardb://s3cret@h"): r"not valid YAML \(line 2\)",
    _pools("!s3cret!x {}"): "not valid YAML",
    _pools(r'"\U00FFFFFF"'): "not valid YAML",
    "%YAML " + "1" * 5000: "not valid YAML",
    "a: \x01": "not valid YAML",
    _pools(GOOD) + "---\na: b": "more than one document",
    "[" * 17: "nested too deeply",
    "pools: {'': {}}\nlookup: ['']": "without a valid name",
    'pools: {"a\\nb": {}}\nlookup: ["a\\nb"]': "without a valid name",
    r'{pools: {"\ud800": {}}, lookup: ["\ud800"]}': "without a valid name",
    f"pools: {{? {'a' * 256}\n: {{}}}}\nlookup: [{'a' * 256}]": "without a valid name",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_in_one_line_without_the_password(text: str) -> None:
    with pytest.raises(FormatError, match=REFUSED[text]) as caught:
        parse_router(text.encode())
    message = str(caught.value)
    assert "\n" not in message
    assert "s3cret" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("raw", [b"\xff", EXAMPLE.decode().encode("utf-16"), b"a: \xc3("])
def test_other_encodings_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError, match="not UTF-8"):
        parse_router(raw)


def test_size_is_bounded() -> None:
    padded = EXAMPLE + b"#" * (MAX_SIZE - len(EXAMPLE))
    assert parse_router(padded) == PARSED
    with pytest.raises(FormatError, match="more than 1048576 bytes"):
        parse_router(padded + b"#")


def test_a_range_may_have_several_servers() -> None:
    router = parse_router(_pools("{ab: ardb://a, AB: ardb://b, 'AB:ab': ardb://c}").encode())
    assert router.urls(b"aB" * 32) == ["ardb://a", "ardb://b", "ardb://c"]
    assert parse_router(format_router(router)) == router


def test_format() -> None:
    assert (
        format_router(PARSED)
        == b"""\
pools:
  "local":
    "00:7F": "ardb://s3cret@one:16379"
    "80:FF": "redis://:s3cret@two:6379"
  "hub":
    "000:7FF": "zdb://three:9900"
    "007": "zdb://seven"
    "1E3": "ARDB://[::1]:16379"
lookup: ["local", "hub"]
cache: ["local"]
"""
    )


RULE = Rule(Range("00", "11"), "ardb://s3cret@h")


@pytest.mark.parametrize(
    "router",
    [
        Router((), ("p",)),
        Router((Pool("p", ()),), ()),
        Router((Pool("p", (RULE,)), Pool("p", ())), ("p",)),
        Router((Pool("p", (RULE, RULE)),), ("p",)),  # 00:11 has but one spelling
        Router((Pool("p", (Rule(Range("ab", "ab"), "ardb://s3cret@h"),)),), ("p",)),
        Router((Pool("p", (Rule(Range("", ""), "ardb://s3cret@h"),)),), ("p",)),
        Router((Pool("p", (Rule(Range("0", "1"), "http://s3cret@h"),)),), ("p",)),
        Router((Pool("\ud800", (RULE,)),), ("\ud800",)),
    ],
)
def test_what_would_not_be_read_back_is_not_written(router: Router) -> None:
    with pytest.raises(FormatError) as caught:
        format_router(router)
    assert "s3cret" not in str(caught.value)


def test_without_passwords() -> None:
    clean = without_passwords(PARSED)
    assert [rule.url for pool in clean.pools for rule in pool.rules] == [
        "ardb://one:16379",
        "redis://two:6379",
        "zdb://three:9900",
        "zdb://seven",
        "ARDB://[::1]:16379",
    ]
    assert b"s3cret" not in format_router(clean)
    assert without_passwords(clean) == clean
    odd = Router((Pool("p", (Rule(Range("0", "1"), "ardb://s3/c@ret@h"),)),), ("p",))
    assert without_passwords(odd).urls(b"00") == ["ardb://h"]


def test_repr_shows_no_url() -> None:
    assert "s3cret" not in repr(PARSED)


HEX = "0123456789ABCDEF"
RANGES = (
    st.integers(1, 4)
    .flatmap(lambda size: st.tuples(*[st.text(HEX, min_size=size, max_size=size)] * 2))
    .map(lambda pair: Range(min(pair), max(pair)))
)
PRINTABLE = st.characters(exclude_categories=["Cs"]).filter(str.isprintable)
NAMES = st.text(PRINTABLE, min_size=1, max_size=20)
SECRETS = st.text(PRINTABLE.filter(lambda char: char not in "/?# "), max_size=8).map(lambda text: f"{text}@")
URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["ardb", "redis", "zdb"]),
    st.just("") | SECRETS,
    st.sampled_from(["h", "h.example:1", "[::1]", "10.0.0.1:16379"]),
    st.sampled_from(["", "/", "/2", "/name"]),
)
RULES = st.lists(st.builds(Rule, RANGES, URLS), max_size=5, unique_by=lambda rule: rule.range).map(tuple)
POOLS = st.lists(st.builds(Pool, NAMES, RULES), min_size=1, max_size=4, unique_by=lambda pool: pool.name)


@st.composite
def _routers(draw: st.DrawFn) -> Router:
    pools = tuple(draw(POOLS))
    names = st.sampled_from([pool.name for pool in pools])
    lookup = draw(st.lists(names, min_size=1, unique=True))
    return Router(pools, tuple(lookup), tuple(draw(st.lists(names, unique=True))))


@given(_routers())
def test_round_trip(router: Router) -> None:
    raw = format_router(router)
    assert parse_router(raw) == router
    assert format_router(parse_router(raw)) == raw


def _mutated(source: random.Random) -> bytes:
    raw = bytearray(EXAMPLE)
    for _ in range(source.randint(1, 2)):
        at = source.randrange(len(raw) + 1)
        pieces = [
            b"&a ",
            b"*a",
            b"!!x ",
            b"[",
            b"{",
            b"? ",
            b"- ",
            b"%",
            b"|\n",
            b'"\\U',
            b": ",
            b"\r",
            b"\t",
        ]
        piece = source.choice(
            [*pieces, source.choice(b"aF0:@ ").to_bytes(1), source.randbytes(2), raw[at : at + 30], b""]
        )
        raw[at : at + source.choice([0, 0, 1, 1, 8])] = piece
    return bytes(raw)


def test_fuzz() -> None:
    source = random.Random(1)
    taken = 0
    for number in range(700):
        raw = source.randbytes(source.randrange(200)) if number % 7 == 0 else _mutated(source)
        message = ""
        try:
            router = parse_router(raw)
        except FormatError as error:
            message = str(error)
        else:
            taken += 1
            assert parse_router(format_router(router)) == router
        assert "\n" not in message
        assert "s3cret" not in message
    assert 20 < taken < 600


@given(st.text("[]{}:,-?&*!|>%@#'\"\\ \n\taU0<~", max_size=60))
def test_any_punctuation_is_refused_or_taken(text: str) -> None:
    with pytest.raises(FormatError):
        parse_router(text.encode())


@pytest.mark.parametrize(
    "piece", [b"[", b"- ", b"{", b"? ", b"&a ", b"{}", b"---\n", b"[a: {", b":", b"a: *a\n"]
)
def test_bombs_end_soon(piece: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(FormatError):
        parse_router(piece * (MAX_SIZE // len(piece)))
    assert time.process_time() - begin < 10  # half a second at most


def test_entries_are_bounded() -> None:
    with pytest.raises(FormatError, match="too many entries"):
        parse_router(b"[" + b"a," * MAX_EVENTS + b"]")


def test_the_router_to_one_server() -> None:
    router = router_to("ardb://host:16379")
    assert router.urls(b"00" * 32) == router.urls(b"ff" * 32) == ["ardb://host:16379"]
    assert parse_router(format_router(router)) == router


def test_all_urls_are_those_that_are_asked_each_once() -> None:
    assert PARSED.all_urls()[1:4] == ("redis://:s3cret@two:6379", "zdb://three:9900", "zdb://seven")
    assert replace(PARSED, lookup=("hub",)).all_urls() == (
        "zdb://three:9900",
        "zdb://seven",
        "ARDB://[::1]:16379",
    )
    rules = (Rule(Range("0", "7"), "ardb://a"), Rule(Range("8", "F"), "ardb://a"))
    assert Router((Pool("p", rules), Pool("q", rules)), ("q", "p")).all_urls() == ("ardb://a",)


def test_has_passwords() -> None:
    assert has_passwords(PARSED)
    assert not has_passwords(without_passwords(PARSED))
