"""The independent reader finds what is wrong with a tree, and with blocks."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cramjam
import pytest
import xxtea

from tests import independent_reader as reader
from tests.independent_reader import Access, DefectError, Directory, Entry, Node, Records
from tests.needs import needs_vectors

# The tree

NAME = b"0f" * 32
PLAIN = Access(b"root", b"root", 0o100644, 0, 0)
DIRECTORY = Access(b"root", b"root", 0o40755, 0, 0)
PLAIN_KEY = reader.access_key(PLAIN)
DIRECTORY_KEY = reader.access_key(DIRECTORY)
ROOT = reader.directory_key(b"")
SUB = reader.directory_key(b"sub")
LEAF = reader.directory_key(b"sub/leaf")

EMPTY = Entry(b"empty", "file", 0, PLAIN_KEY, 1, 2, block_size=128)
FILE = Entry(b"file", "file", 524_289, PLAIN_KEY, 1, 2, block_size=128, blocks=((NAME, NAME),) * 2)
LINK = Entry(b"link", "link", 4, PLAIN_KEY, 1, 2, target=b"file")
NULL = Entry(b"null", "char", 0, PLAIN_KEY, 1, 2, data=b"1,3")
PIPE = Entry(b"pipe", "fifo", 0, PLAIN_KEY, 1, 2)
SUB_ENTRY = Entry(b"sub", "dir", 0, b"", 0, 0, subdir=SUB)


def good_records() -> Records:
    leaf = Entry(b"leaf", "dir", 0, b"", 0, 0, subdir=LEAF)
    return Records(
        {
            ROOT: Directory(
                b"", b"", b"", 4096, DIRECTORY_KEY, 1, 2, (EMPTY, FILE, LINK, NULL, PIPE, SUB_ENTRY)
            ),
            SUB: Directory(b"sub", b"sub", ROOT, 4096, DIRECTORY_KEY, 1, 2, (leaf,)),
            LEAF: Directory(b"leaf", b"sub/leaf", SUB, 4096, DIRECTORY_KEY, 1, 2, ()),
        },
        {PLAIN_KEY: PLAIN, DIRECTORY_KEY: DIRECTORY},
    )


def test_a_good_tree() -> None:
    nodes = reader.read_tree(good_records())
    assert {path: node.kind for path, node in nodes.items()} == {
        b"": "dir",
        b"empty": "file",
        b"file": "file",
        b"link": "link",
        b"null": "char",
        b"pipe": "fifo",
        b"sub": "dir",
        b"sub/leaf": "dir",
    }
    assert nodes[b"file"].blocks == ((NAME, NAME),) * 2
    assert nodes[b"null"].device == (1, 3)
    assert nodes[b"link"].target == b"file"
    assert nodes[b"file"].mode == 0o644
    assert nodes[b"sub/leaf"].type_mode == 0o40755


@pytest.mark.parametrize(
    ("entry", "defect"),
    [
        (replace(FILE, blocks=()), "in 0 blocks"),
        (replace(FILE, blocks=((NAME, NAME),)), "in 1 blocks"),
        (replace(EMPTY, name=b"file", blocks=((NAME, NAME),)), "0 bytes in 1 blocks"),
        (replace(FILE, block_size=0), "block size is 0"),
        (replace(FILE, blocks=((b"", NAME),) * 2), "not a hash and a key"),
        (replace(FILE, blocks=((NAME, NAME.upper()),) * 2), "not a hash and a key"),
        (replace(FILE, aclkey=b""), "no ACI"),
        (replace(FILE, aclkey=b"0" * 32), "no ACI"),
        (replace(FILE, name=b"a/b"), "a slash or a NUL"),
        (replace(FILE, name=b"a\0b"), "a slash or a NUL"),
        (replace(FILE, name=b".."), "is called"),
        (replace(FILE, name=b""), "a name of 0 bytes"),
        (replace(FILE, name=b"n" * 256), "a name of 256 bytes"),
        (replace(FILE, name=b"empty"), "twice"),
        (replace(FILE, name=b"zzz"), "not sorted"),
        (replace(LINK, name=b"file", target=b""), "target of 0 bytes"),
        (replace(LINK, name=b"file", target=b"x" * 4096, size=4096), "target of 4096 bytes"),
        (replace(LINK, name=b"file", target=b"a\0bc"), "a NUL in the target"),
        (replace(LINK, name=b"file", size=5), "5 bytes, but 4"),
        (replace(NULL, name=b"file", data=b""), "no device numbers"),
        (replace(NULL, name=b"file", data=b"1,3\n"), "no device numbers"),
        (replace(NULL, name=b"file", data=b"1, 3"), "no device numbers"),
        (replace(PIPE, name=b"file", data=b"0,0"), "has the data"),
        (replace(PIPE, name=b"file", kind="special 4"), "no reader knows"),
        (replace(FILE, kind="dir"), "not this path's key"),
        (replace(FILE, kind="dir", subdir=SUB), "not this path's key"),
        (replace(FILE, kind="dir", subdir=reader.directory_key(b"file")), "no record"),
    ],
)
def test_a_bad_entry(entry: Entry, defect: str) -> None:
    records = good_records()
    root = records.directories[ROOT]
    records.directories[ROOT] = replace(root, entries=(EMPTY, entry, LINK, NULL, PIPE, SUB_ENTRY))
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"name": b"x"}, "its name says"),
        ({"name": b"sub/leaf"}, "its name says"),
        ({"location": b"leaf"}, "its location says"),
        ({"location": b"/sub/leaf"}, "its location says"),
        ({"parent": ROOT}, "its parent says"),
        ({"aclkey": b""}, "no ACI"),
    ],
)
def test_a_bad_directory(change: dict[str, Any], defect: str) -> None:
    records = good_records()
    records.directories[LEAF] = replace(records.directories[LEAF], **change)
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


@pytest.mark.parametrize(
    ("access", "defect"),
    [
        (replace(PLAIN, uid=-1), "has the owner"),
        (replace(PLAIN, gid=-1), "has the owner"),
        (replace(PLAIN, uname=b""), "does not name"),
        (replace(PLAIN, mode=0o644), "no kind of file"),
        (replace(PLAIN, mode=0o100755), "key of its text"),
        (replace(PLAIN, gname=b"0"), "key of its text"),
    ],
)
def test_a_bad_aci(access: Access, defect: str) -> None:
    records = good_records()
    records.accesses[PLAIN_KEY] = access
    with pytest.raises(DefectError, match=defect):
        reader.read_tree(records)


def test_a_sticky_directory_may_have_another_key_than_its_text() -> None:
    records = good_records()
    key = b"5" * 32
    records.accesses[key] = replace(DIRECTORY, mode=0o41755)
    records.directories[LEAF] = replace(records.directories[LEAF], aclkey=key)
    assert reader.read_tree(records)[b"sub/leaf"].mode == 0o1755


def test_records_that_nothing_leads_to() -> None:
    records = good_records()
    other = replace(PLAIN, mode=0o100600)
    records.accesses[reader.access_key(other)] = other
    with pytest.raises(DefectError, match="1 stray record"):
        reader.read_tree(records)
    records = good_records()
    records.directories[b"0" * 64] = records.directories[LEAF]
    with pytest.raises(DefectError, match="1 stray record"):
        reader.read_tree(records)
    with pytest.raises(DefectError, match="stray record"):
        reader.decode_records({b"metadata": b""})


# Blocks


def mod251(size: int) -> bytes:
    return bytes(index % 251 for index in range(size))


def sha256ctr(size: int) -> bytes:
    words = (hashlib.sha256(index.to_bytes(8, "little")).digest() for index in range((size + 31) // 32))
    return b"".join(words)[:size]


def lines(size: int) -> bytes:
    text = bytearray()
    index = 0
    while len(text) < size:
        tail = hashlib.md5(str(index).encode()).hexdigest()[:8].encode()
        mixed = index * 2654435761 % 4294967296
        text += b"%d: the quick brown fox %x jumps over the lazy dog %s\n" % (index, mixed, tail)
        index += 1
    return bytes(text[:size])


GENERATORS: dict[str, Callable[[int], bytes]] = {
    "mod251": mod251,
    "zeros": bytes,
    "a": lambda size: b"a" * size,
    "sha256ctr": sha256ctr,
    "lines": lines,
}


def packed_block(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    """A block made by the libraries: hash, key, and what is stored."""
    key = hashlib.sha256(chunk).hexdigest().encode()
    packed = bytes(cramjam.snappy.compress_raw(chunk))
    secret = xxtea.encrypt(packed, key[:16], padding=xxtea.Padding.LENGTH_WORD_SUFFIX)
    return hashlib.sha256(secret).hexdigest().encode(), key, b"1000000000000000" + secret


def small_vectors() -> Iterator[tuple[str, int, dict[str, Any]]]:
    for vector in json.loads(needs_vectors().read_text())["vectors"]:
        for block in vector["blocks"]:
            if "stored_base64" in block:
                yield vector["generator"], vector["size"], block


def test_the_reference_librarys_blocks_decode() -> None:
    seen = 0
    for generator, size, block in small_vectors():
        stored = base64.b64decode(block["stored_base64"])
        name, key = block["hash"].encode(), block["key"].encode()
        node = Node("file", 0, 0, 0, 0, b"", b"", size, 0, 0, blocks=((name, key),))
        wanted = GENERATORS[generator](size)
        assert reader.read_content(node, {name: stored}.get) == wanted
        assert reader.read_content(node, {name: stored}.get, fast=True) == wanted
        seen += 1
    assert seen >= 50


@pytest.mark.parametrize("generator", ["lines", "zeros", "sha256ctr"])
def test_slow_and_fast_decoding_agree_on_a_full_chunk(generator: str) -> None:
    chunk = GENERATORS[generator](reader.CHUNK)
    name, key, stored = packed_block(chunk)
    assert reader.read_block(name, key, {name: stored}.get) == chunk
    assert reader.read_block(name, key, {name: stored}.get, fast=True) == chunk


@pytest.mark.parametrize("size", [*range(1, 70), 255, 256, 257, 4095, 65_535, 65_536, 65_537])
def test_slow_decoding_of_small_blocks(size: int) -> None:
    for chunk in (sha256ctr(size), b"abc" * size, lines(size)):
        name, key, stored = packed_block(chunk)
        assert reader.read_block(name, key, {name: stored}.get) == chunk


def test_the_header_is_not_looked_at() -> None:
    name, key, stored = packed_block(b"content")
    assert reader.read_block(name, key, {name: b"anything at all?" + stored[16:]}.get) == b"content"


def test_bad_blocks() -> None:
    name, key, stored = packed_block(b"content")
    other, other_key, other_stored = packed_block(b"tnetnoc")
    with pytest.raises(DefectError, match="has no block"):
        reader.read_block(name, key, lambda _name: None)
    with pytest.raises(DefectError, match="has another hash"):
        reader.read_block(name, key, {name: other_stored}.get)
    with pytest.raises(DefectError, match="wrong key"):
        reader.read_block(name, other_key, {name: stored}.get)
    with pytest.raises(DefectError, match="is not its chunk's"):
        reader.read_block(other, other_key[:16] + b"0" * 48, {other: other_stored}.get)
    node = Node("file", 0, 0, 0, 0, b"", b"", 8, 0, 0, blocks=((name, key),))
    with pytest.raises(DefectError, match="7 bytes in the blocks of a file of 8"):
        reader.read_content(node, {name: stored}.get)


@pytest.mark.parametrize(
    ("packed", "defect"),
    [
        (b"", "begin with its length"),
        (b"\xff\xff\xff\xff\xff\x01", "begin with its length"),
        (b"\x02\x00a", "1 bytes unpacked instead of 2"),
        (b"\x02\x04a", "literal reaches out"),
        (b"\x05\x00a\x01\x02", "back beyond the beginning"),
        (b"\x05\x00a\x01\x00", "back beyond the beginning"),
    ],
)
def test_bad_snappy(packed: bytes, defect: str) -> None:
    with pytest.raises(DefectError, match=defect):
        reader.snappy_decode(packed)


def test_snappy_elements_of_every_width() -> None:
    assert reader.snappy_decode(b"\x06\x04ab\x01\x02") == b"ababab"  # one byte of distance
    assert reader.snappy_decode(b"\x05\x04ab\x0a\x02\x00") == b"ababa"  # two
    assert reader.snappy_decode(b"\x05\x04ab\x0b\x01\x00\x00\x00") == b"abbbb"  # four
    for extra in (1, 2, 3, 4):
        literal = bytes([59 + extra << 2]) + (99).to_bytes(extra, "little")
        assert reader.snappy_decode(b"\x64" + literal + b"x" * 100) == b"x" * 100
