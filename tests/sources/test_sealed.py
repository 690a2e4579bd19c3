"""The tree of sealed flists as a session takes it: every entry as it was, layers united, faults refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.authoring.base import Base
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.request import SealOptions
from flistfs.authoring.sealing import package as sealing
from flistfs.authoring.sealing.accounts import Accounts
from flistfs.authoring.session import open_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import Settings
from flistfs.authoring.summaries import BaseSummary
from flistfs.errors import ClashError, FormatError
from flistfs.format import opening
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.format.zeroos.records import Aci, File, Special, SpecialKind, decode_directory, encode_aci
from flistfs.reading.diff import diff
from flistfs.reading.flist import Flist
from flistfs.sources import sealed as base_module
from flistfs.sources.item import Item as Taken
from flistfs.sources.sealed import BaseSource
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.node import Access, Kind, Node
from flistfs.tree.owners import FIRST_OWN_NUMBER
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import quiet
from tests.generation1 import aci_key, directory_key, encode_block, open_store
from tests.needs import needs_old_flist
from tests.reading.making import (
    DIR,
    TYPES,
    Item,
    Records,
    add_entry,
    change_blocks,
    change_directory,
    change_entry,
    records_of,
    trees,
    unpacked,
)
from tests.tree.uniting import trees_with_links, united

# The first number of an account that has none.
OWN = FIRST_OWN_NUMBER

BIG = bytes(CHUNK_SIZE) + b"tail"
TREE = {
    b"etc": replace(DIR, mode=0o1750, uid=7, gid=8, mtime=5),
    b"etc/conf": Item(what=b"content", mode=0o4711, uid=2**32 - 2, gid=1000, mtime=2**32 - 1),
    b"etc/big": Item(what=BIG),
    b"etc/empty": Item(),
    b"etc/link": Item("link", b"conf", mode=0o777),
    b"null": Item("char", b"1,3", mode=0o666),
    b"pipe": Item("fifo"),
    b"odd\n\xff": Item(mode=0),
}


def taken(directory: Path, *all_records: Records, replace_links: bool = False) -> dict[bytes, Taken]:
    """What a session takes of flists with these records, the later on top."""
    items, _ = taken_and_source(directory, *all_records, replace_links=replace_links)
    return items


def taken_and_source(
    directory: Path, *all_records: Records, replace_links: bool = False
) -> tuple[dict[bytes, Taken], BaseSource]:
    names = [str(unpacked(directory / f"{number}", records)) for number, records in enumerate(all_records)]
    source = BaseSource.open(names, replace_links=replace_links)
    try:
        items = list(source.items())
    finally:
        source.close()
    seen: set[bytes] = set()
    for item in items:
        parent, _, _ = item.path.rpartition(b"/")
        assert not item.path or parent in seen, "a directory comes before what is in it"
        assert item.path not in seen
        seen.add(item.path)
    return {item.path: item for item in items}, source


def assert_same(item: Taken, wanted: Item) -> None:
    assert item.mode == TYPES[wanted.kind] | wanted.mode
    assert (item.uid, item.gid) == (wanted.uid, wanted.gid)
    assert (item.mtime_ns, item.ctime_ns) == (wanted.mtime * 10**9, 1_100_000_000 * 10**9)
    assert item.target == (wanted.what if wanted.kind == "link" else b"")
    content = wanted.what if wanted.kind == "file" else b""
    assert item.size == len(content)
    chunks = [content[start : start + CHUNK_SIZE] for start in range(0, len(content), CHUNK_SIZE)]
    refs = [encode_block(chunk).ref for chunk in chunks]
    assert [(stored.length, stored.hash, stored.key) for stored in item.stored] == [
        (len(chunk), ref.hash, ref.key) for chunk, ref in zip(chunks, refs, strict=True)
    ]


def test_every_entry_is_taken_as_it_is(tmp_path: Path) -> None:
    items = taken(tmp_path, records_of(TREE))
    assert set(items) == {b"", *TREE}
    for path, wanted in {b"": DIR, **TREE}.items():
        assert_same(items[path], wanted)
    assert items[b"null"].rdev == 0x103


# Layers


def test_later_layers_lie_on_top(tmp_path: Path) -> None:
    lowest = {b"a": DIR, b"a/x": Item(what=b"1"), b"a/y": DIR, b"a/y/in": Item(), b"f": Item(what=b"1")}
    middle = {b"a": replace(DIR, mode=0o700), b"a/x": Item(what=b"2"), b"a/y": Item(what=b"2"), b"f": DIR}
    upper = {
        b"a": replace(DIR, mtime=9),
        b"a/y": DIR,
        b"a/y/new": Item(what=b"3"),
        b"f": DIR,
        b"f/in": Item(),
    }
    items = taken(tmp_path, records_of(lowest), records_of(middle), records_of(upper))
    united = {**lowest, **middle, **upper}
    del united[b"a/y/in"]  # the file of the layer between hid it
    assert set(items) == {b"", *united}
    for path, wanted in united.items():
        assert_same(items[path], wanted)


@settings(max_examples=60)
@given(layers=st.lists(trees() | trees_with_links(), min_size=1, max_size=3), replace_links=st.booleans())
def test_layers_are_what_taking_one_after_the_other_gives(
    layers: list[dict[bytes, Item]], *, replace_links: bool
) -> None:
    wanted = united(layers, replace_links=replace_links)
    with tempfile.TemporaryDirectory() as directory:
        if wanted is None:
            with pytest.raises(ClashError):
                taken(Path(directory), *map(records_of, layers), replace_links=replace_links)
            return
        items = taken(Path(directory), *map(records_of, layers), replace_links=replace_links)
    assert set(items) == set(wanted)
    for path, item in wanted.items():
        assert_same(items[path], item)


def test_layers_in_which_links_are_in_the_way_are_refused_by_all_their_names(tmp_path: Path) -> None:
    lower: dict[bytes, Item] = {b"dead%02d" % n: Item("link", b"gone") for n in range(19)}
    lower |= {b"full": DIR, b"full/f": Item(), b"through": Item("link", b"full")}
    upper: dict[bytes, Item] = {b"dead%02d" % n: DIR for n in range(19)}
    upper |= {b"full": Item("link", b"e"), b"e": DIR, b"through": DIR}
    layers = [records_of(lower), records_of(upper)]
    with pytest.raises(ClashError) as refusal:
        taken(tmp_path, *layers)
    said, dead = str(refusal.value), "the link does not lead to a directory"
    assert f"dead18 is in {tmp_path}/0 (link) and {tmp_path}/1 (directory): {dead}, full is in" in said
    assert "through is in" not in said
    assert said.endswith("not empty; `replace_links` lets the later one replace the other")
    _, source = taken_and_source(tmp_path / "replaced", *layers, replace_links=True)
    assert list(source.hidden.values()) == [sorted(lower)]
    more: dict[bytes, Item] = {b"dead19": Item("link", b"gone")}
    with pytest.raises(ClashError, match=", and 1 more; `replace_links` lets"):
        taken(tmp_path / "more", records_of({**lower, **more}), records_of({**upper, b"dead19": DIR}))


def test_two_entries_of_one_layer_in_one_place_are_named_by_both_paths(tmp_path: Path) -> None:
    lower: dict[bytes, Item] = {b"usr": DIR, b"bin": Item("link", b"usr")}
    upper: dict[bytes, Item] = {b"usr": DIR, b"usr/x": Item(), b"bin": DIR, b"bin/x": Item()}
    with pytest.raises(ClashError) as refusal:
        taken(tmp_path, records_of(lower), records_of(upper))
    assert str(refusal.value) == (
        f"usr/x in {tmp_path}/1: it would exist twice, through a link, as usr/x and as bin/x; "
        f"`replace_links` lets the later one replace the other"
    )


# Owners of old flists


@pytest.mark.parametrize(
    ("uname", "gname", "wanted", "unknown"),
    [
        (b"root", b"root", (0, 0), 0),
        (b"1000", b"4294967294", (1000, 4294967294), 0),
        (b"daemon", b"12", (OWN, 12), 1),
        (b"root", b"99999999999", (0, OWN), 1),
        (b"4294967295", b"", (OWN, OWN), 1),
    ],
)
def test_accounts_without_numbers(
    tmp_path: Path, uname: bytes, gname: bytes, wanted: tuple[int, int], unknown: int
) -> None:
    records = records_of({b"file": Item()})
    change_aci(records, Aci(uname, gname, 0o100600))
    items, source = taken_and_source(tmp_path, records)
    assert (items[b"file"].uid, items[b"file"].gid, source.unknown_owners) == (*wanted, unknown)
    assert items[b"file"].mode == 0o100600
    accounts = Accounts({}, {}, source.named_users, source.named_groups)
    if wanted[0]:  # the top directory is root's by number
        assert accounts.user(wanted[0]) == (uname, None)
    if wanted[1]:
        assert accounts.group(wanted[1]) == (gname, None)


def test_each_account_without_a_number_keeps_its_name(tmp_path: Path) -> None:
    names = [b"root", b"audio", b"12", b"012", b"daemon", b"34"]
    records = records_of({name: Item() for name in names})
    for name in names:
        change_aci(records, Aci(name, name, 0o100600), name)
    change_aci(records, Aci(b"other", b"other", 0o100600, uid=34, gid=34), b"34")
    items, source = taken_and_source(tmp_path, records)
    assert [items[name].uid for name in names] == [0, OWN, 12, 12, OWN + 1, 34]
    assert source.named_users == source.named_groups == {OWN: b"audio", OWN + 1: b"daemon"}


def test_too_many_accounts_without_a_number_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "_OWN_NUMBERS", 1)
    records = records_of({b"a": Item(), b"b": Item()})
    for name in (b"a", b"b"):
        change_aci(records, Aci(name, b"root", 0o100600), name)
    with pytest.raises(FormatError, match="b: more than 1 accounts have no number"):
        taken(tmp_path, records)


def change_aci(records: Records, aci: Aci, name: bytes = b"file") -> None:
    records[aci_key(aci)] = encode_aci(aci)
    change_entry(records, name, lambda entry: replace(entry, aclkey=aci_key(aci)))


# What is refused


def other_blocks(records: Records) -> None:
    change_entry(records, b"file", lambda entry: replace(entry, attributes=smaller(entry.attributes)))


def smaller(attributes: object) -> File:
    assert isinstance(attributes, File)
    return replace(attributes, block_size=64)


def wrong_account(records: Records) -> None:
    change_aci(records, Aci(b"x", b"x", 0o100644, uid=2**32 - 1, gid=0))


def negative_account(records: Records) -> None:
    change_aci(records, Aci(b"x", b"x", 0o100644, uid=0, gid=-2))


def unknown_kind(records: Records) -> None:
    change_entry(
        records, b"file", lambda entry: replace(entry, size=0, attributes=Special(SpecialKind.UNKNOWN))
    )


def no_attributes(records: Records) -> None:
    change_entry(records, b"file", lambda entry: replace(entry, attributes=None))


def bad_hash(records: Records) -> None:
    change_blocks(records, b"file", lambda ref: replace(ref, hash=b"../../etc"))


def twice(records: Records) -> None:
    first, *_ = decode_directory(records[directory_key(b"")]).entries
    add_entry(records, b"", first)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (other_blocks, "file: its blocks have 262144 bytes each; sessions use 524288 only"),
        (wrong_account, "file: its user has the number"),
        (negative_account, "file: its group has the number -2"),
        (unknown_kind, "file: it is a special file of an unknown kind"),
        (no_attributes, "file: it has no attributes"),
        (bad_hash, "file: it has a block whose hash or key is invalid"),
        (twice, "file: its name occurs twice"),
        (lambda records: records.pop(directory_key(b"sub")), "sub: its directory is not in the flist"),
        (lambda records: records.pop(directory_key(b"")), "/: there is no root directory"),
        (
            lambda records: records.update({directory_key(b"sub"): b"12345678"}),
            "sub: malformed directory record",
        ),
        (
            lambda records: change_directory(records, b"sub", lambda found: replace(found, name=b"other")),
            "sub: its record has another name",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_at_fault_is_refused_by_its_path(
    tmp_path: Path, spoil: Callable[[Records], object], what: str
) -> None:
    records = records_of({b"file": Item(what=b"content"), b"sub": DIR})
    spoil(records)
    with pytest.raises(FormatError) as refusal:
        taken(tmp_path, records)
    assert str(refusal.value).startswith(f"{tmp_path}/0 cannot be used as a base: {what}")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(ROCKSDB, limits=replace(ROCKSDB.limits, file_size=7))
    monkeypatch.setitem(opening._FORMATS, "rocksdb", small)
    assert taken(tmp_path / "fits", records_of({b"file": Item(what=b"content")}))
    with pytest.raises(FormatError, match="file: it has 8 bytes; a session allows at most 7"):
        taken(tmp_path, records_of({b"file": Item(what=b"contents")}))


def test_a_base_that_is_not_there_leaves_none_of_the_others_open(tmp_path: Path) -> None:
    there = str(unpacked(tmp_path / "there", records_of({})))
    with pytest.raises(FormatError):
        BaseSource.open([there, str(tmp_path / "nowhere")])


# A flist of 2017


def test_what_a_flist_of_2017_becomes(tmp_path: Path) -> None:
    """All is the same but for what directories' sizes are, accounts that are known by name only too."""
    old = needs_old_flist()
    directory = SessionDirectory(tmp_path / "session")
    directory.lock()
    directory.create(Settings("/nowhere", f"dir://{tmp_path}/blocks", "rocksdb", 0.0), unfinished=True)
    assert not directory.is_open()
    summary = trio.run(_package, directory, str(old), tmp_path / "new.flist")
    assert directory.is_open()
    assert not (tmp_path / "blocks").exists()  # no block was asked for
    with Flist.open(old) as before, Flist.open(tmp_path / "new.flist") as after:
        wanted, got = nodes(before), nodes(after)
        assert [*map(plain, wanted)] == [*map(plain, got)]
        assert [node.mode for node in wanted] == [node.mode for node in got]
        owners = [owner_of(node.access) for node in wanted]
        assert [owner_of(node.access) for node in got] == owners
        assert [*diff(before, after)] == []
    assert summary.entries == len(wanted)
    unknown = [owner for owner in owners if owner != (b"root", b"root", None, None)]
    assert summary.unknown_owners == len(unknown) > 0


def owner_of(access: Access | None) -> tuple[bytes, bytes, int | None, int | None]:
    assert access is not None
    return access.user, access.group, access.uid, access.gid


async def _package(directory: SessionDirectory, package: str, out: Path) -> BaseSummary:
    store = open_store(directory.settings().store)
    base = Base(BaseSource.open([package]))
    assert base.source is not None
    async with open_session(directory, ROCKSDB, store, Caller(0, 0), base=base) as session:
        summary = await session.start(quiet)
        assert summary is not None
        with OutputFile(out, force=False) as output, session.parts.journal.freeze(directory.view) as view:
            sealing.build_package(
                view,
                store,
                ROCKSDB,
                Accounts({0: b"root"}, {0: b"root"}, base.source.named_users, base.source.named_groups),
                SealOptions(),
                None,
                {},
                output,
                directory.scratch,
                quiet,
            )
            output.publish()
    return summary


def nodes(flist: Flist) -> Sequence[Node]:
    root = flist.find(b"")
    return [root, *sorted(flist.walk(root), key=lambda node: node.path)]


def plain(node: Node) -> tuple[object, ...]:
    """An entry without its owner; sizes of directories are what they were on the host that sealed them."""
    size = 0 if node.kind is Kind.DIRECTORY else node.size
    return node.path, node.kind, size, node.mtime, node.ctime, node.target, node.device, node.blocks
