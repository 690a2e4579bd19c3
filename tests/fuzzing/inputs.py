"""Flists and archives that are sound, and the ways in which they are damaged.

A kind and a seed always make the same bytes, so that what was found once can be tried again.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rocksdict import Options, Rdict

from flistfs.api.packing import pack as pack_source
from flistfs.format.rocksdb.block import TRAILER_SIZE, BlockHandle, block_entries
from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.encoding import masked_crc32c
from flistfs.format.rocksdb.manifest import decode_log, encode_log
from flistfs.format.rocksdb.package import unpack_package, write_package
from flistfs.format.rocksdb.sst import read_footer
from flistfs.format.zeroos.records import (
    Aci,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    decode_aci,
    decode_directory,
    encode_aci,
    encode_directory,
)
from flistfs.tree.chunks import BlockRef
from tests.generation1 import aci_key, directory_key

_TIME: Final = 1_500_000_000
_NUMBERS: Final = (0, 1, 2, 127, 128, 255, 256, 4095, 65535, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32,
                   1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
_NAMES: Final = (
    b"",
    b".",
    b"..",
    b"/",
    b"a/b",
    b"../../x",
    b"\0",
    b"n" * 256,
    b"\xff\n\x1b[2J",
    b"etc",
    b"abs",
)

_CURRENT: Final = "CURRENT"


@dataclass(frozen=True, slots=True)
class Base:
    """What is damaged: an archive, and the flist that it makes, whose blocks are in `store`."""

    archive: bytes
    package: Path
    store: str

    def files(self) -> dict[str, bytes]:
        """The files of the catalog."""
        with tempfile.TemporaryDirectory() as scratch:
            unpack_package(self.package, Path(scratch))
            return {path.name: path.read_bytes() for path in Path(scratch).iterdir()}

    def records(self) -> dict[bytes, bytes]:
        """The records of the catalog."""
        with tempfile.TemporaryDirectory() as scratch:
            unpack_package(self.package, Path(scratch))
            with Catalog.open(Path(scratch)) as catalog:
                return dict(catalog.items())


def make_base(directory: Path) -> Base:
    """Make the sound archive and flist in a directory."""
    directory.mkdir()
    (directory / "base.tar").write_bytes(_archive())
    store = f"dir://{directory / 'blocks'}"
    pack_source(directory / "base.tar", directory / "base.flist", store=store, epoch=_TIME)
    return base_in(directory)


def base_in(directory: Path) -> Base:
    """Return what `make_base` has made in a directory."""
    store = f"dir://{directory / 'blocks'}"
    return Base((directory / "base.tar").read_bytes(), directory / "base.flist", store)


def _archive() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in (
            ("etc", tarfile.DIRTYPE, b""),
            ("etc/passwd", tarfile.REGTYPE, b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
            ("etc/deep", tarfile.DIRTYPE, b""),
            ("etc/deep/er", tarfile.DIRTYPE, b""),
            ("etc/deep/er/three", tarfile.REGTYPE, bytes(range(256)) * 5000),
            ("etc/empty", tarfile.REGTYPE, b""),
            ("name with ü\n and " + "x" * 150, tarfile.REGTYPE, b"odd"),
            ("suid", tarfile.REGTYPE, b"suid"),
            ("abs", tarfile.SYMTYPE, b""),
            ("hard", tarfile.LNKTYPE, b""),
            ("fifo", tarfile.FIFOTYPE, b""),
            ("null", tarfile.CHRTYPE, b""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime = kind, len(content), _TIME
            member.mode = {"suid": 0o4755}.get(name, 0o755 if kind == tarfile.DIRTYPE else 0o644)
            member.uid = member.gid = 1000 if name.startswith("etc/deep") else 0
            member.linkname = {"abs": "/etc/passwd", "hard": "etc/passwd"}.get(name, "")
            member.devmajor, member.devminor = (1, 3) if name == "null" else (0, 0)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


# Bytes


def damaged(data: bytes, chance: random.Random, *, keep_size: bool = False) -> bytes:
    """Change some of the bytes, or which there are."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        match chance.randrange(4 if keep_size else 7):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2 | 3:
                size = chance.choice((1, 2, 4, 8))
                at = min(at, len(changed) - size) if len(changed) >= size else 0
                number = (chance.choice(_NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
                changed[at : at + size] = number[: len(changed) - at]
            case 4:
                del changed[at : at + chance.choice((1, 4, 8, 64))]
            case 5:
                changed[at:at] = changed[at : at + chance.choice((1, 8, 64))]
            case _:
                del changed[at:]
    return bytes(changed)


# Packages


def _packed(files: Mapping[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1, mtime=0)


def _of_records(records: Mapping[bytes, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        write_catalog(Path(scratch) / "catalog", sorted(records.items()))
        out = io.BytesIO()
        write_package(Path(scratch) / "catalog", out)
        return out.getvalue()


def _package_bytes(base: Base, chance: random.Random) -> bytes:
    return damaged(base.package.read_bytes(), chance)


def _tar_bytes(base: Base, chance: random.Random) -> bytes:
    return gzip.compress(damaged(gzip.decompress(base.package.read_bytes()), chance), 1, mtime=0)


def _member(base: Base, chance: random.Random) -> bytes:
    files = {**base.files(), "router.yaml": b"pools:\n  a:\n    00:FF: ardb://localhost:1\nlookup: [a]\n"}
    name = chance.choice(sorted(files))
    match chance.randrange(8):
        case 0:
            del files[name]
        case 1:
            files[chance.choice(("000010.sst", "000011.log", "MANIFEST-000005", "OPTIONS-000007"))] = files[
                name
            ]
        case _:
            files[name] = damaged(files[name], chance)
    return _packed(files)


def _manifest(base: Base, chance: random.Random) -> bytes:
    """Damage the MANIFEST under a right checksum."""
    files = base.files()
    (name,) = (name for name in files if name.startswith("MANIFEST"))
    files[name] = b"".join(encode_log(damaged(record, chance)) for record in decode_log(files[name]))
    return _packed(files)


def _table(base: Base, chance: random.Random) -> bytes:
    """Damage one block of the table, or its footer, under a right checksum."""
    files = base.files()
    (name,) = (name for name in files if name.endswith(".sst"))
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / name
        table.write_bytes(files[name])
        footer = read_footer(table)
    raw = bytearray(files[name])
    handles = [footer.metaindex, footer.index]
    for found in (footer.metaindex, footer.index):
        contents = bytes(raw[found.offset : found.offset + found.size])
        handles += [BlockHandle.decode(contents[start:end]) for _, start, end in block_entries(contents)]
    if chance.randrange(8) == 0:
        raw[-53:] = damaged(bytes(raw[-53:]), chance, keep_size=True)
    else:
        handle = chance.choice(handles)
        contents = damaged(bytes(raw[handle.offset : handle.offset + handle.size]), chance, keep_size=True)
        kind = bytes([chance.choice((0, 0, 0, 0, 0, 1, 2, 4, 7))])
        raw[handle.offset : handle.offset + handle.size + TRAILER_SIZE] = (
            contents + kind + masked_crc32c(contents, kind)
        )
    return _packed({**files, name: bytes(raw)})


def _database(base: Base, chance: random.Random) -> bytes:
    """Damage a database as RocksDB leaves it: with a log, several tables, tables of other kinds."""
    options = Options(raw_mode=True)
    options.set_write_buffer_size(1 << 16)
    options.set_disable_auto_compactions(True)
    with tempfile.TemporaryDirectory() as scratch:
        database = Rdict(scratch, options=options)
        for number, (key, value) in enumerate(sorted(base.records().items())):
            database[key] = b"old" if number % 3 == 0 else value
            if number % 3 == 0:
                database[key] = value
            if number == 4 and chance.randrange(3):
                database.flush()
        database[b"gone"] = b"1"
        del database[b"gone"]
        copy = Path(scratch) / "copy"
        copy.mkdir()
        for path in Path(scratch).iterdir():  # as it is after a crash: the log is not flushed
            if path.is_file():
                shutil.copy(path, copy)
        database.close()
        keep = ("CURRENT", "MANIFEST", ".sst", ".log")
        files = {path.name: path.read_bytes() for path in copy.iterdir() if any(k in path.name for k in keep)}
    name = chance.choice(sorted(files))
    is_log = name.endswith(".log") or name.startswith("MANIFEST")
    if is_log and chance.randrange(3) and files[name]:
        files[name] = b"".join(
            encode_log(damaged(record, chance) if chance.randrange(4) == 0 else record)
            for record in decode_log(files[name])
        )
    elif chance.randrange(10):
        files[name] = damaged(files[name], chance, keep_size=name.endswith(".sst"))
    return _packed(files)


# Records


def _record_bytes(base: Base, chance: random.Random) -> bytes:
    records = base.records()
    for key in chance.sample(sorted(records), chance.choice((1, 1, 2))):
        records[key] = damaged(records[key], chance)
    return _of_records(records)


def _values(base: Base, chance: random.Random) -> bytes:
    """Put values into the records that no writer would."""
    records = base.records()
    for _ in range(chance.choice((1, 1, 2, 4))):
        key = chance.choice(sorted(records))
        if chance.randrange(12) == 0 and len(records) > 1:
            del records[key]
        elif len(key) == 32:
            records[key] = encode_aci(odd_aci(decode_aci(records[key]), chance))
        else:
            records[key] = encode_directory(odd_directory(decode_directory(records[key]), records, chance))
    return _of_records(records)


def odd_aci(aci: Aci, chance: random.Random) -> Aci:
    """Change an ACI into one that no writer would write."""
    changes: list[dict[str, Any]] = [
        {"uid": chance.choice(_NUMBERS[:-2]) * chance.choice((1, 1, -1))},
        {"gid": chance.choice(_NUMBERS[:-2]) * chance.choice((1, 1, -1))},
        {"uid": -1, "uname": chance.choice((b"", b"alice", b"4294967295", b"9" * 40, b"\xff\n"))},
        {"gid": -1, "gname": chance.choice((b"", b"alice", b"-1", b"0", b"\0"))},
        {"mode": chance.randrange(1 << 16)},
    ]
    return replace(aci, **chance.choice(changes))


def odd_directory(directory: Directory, records: Mapping[bytes, bytes], chance: random.Random) -> Directory:
    changes: list[dict[str, Any]] = [
        {"name": chance.choice(_NAMES)},
        {"location": chance.choice((b"", b"/", b"etc", b"etc/deep", b"..", b"x" * 70_000))},
        {"parent": chance.choice(sorted(records))},
        {"size": chance.choice(_NUMBERS)},
        {"aclkey": chance.choice((b"", b"x", *sorted(records)))},
        {"modification_time": (1 << 32) - 1},
    ]
    if not directory.entries or chance.randrange(4) == 0:
        return replace(directory, **chance.choice(changes))
    entries = list(directory.entries)
    at = chance.randrange(len(entries))
    entries[at] = _odd_entry(entries[at], records, chance)
    if chance.randrange(6) == 0:
        entries += entries[at : at + 1] * chance.choice((1, 1000))
    return replace(directory, entries=entries)


def _odd_entry(entry: Entry, records: Mapping[bytes, bytes], chance: random.Random) -> Entry:
    keys = sorted(records)
    match entry.attributes:
        case File(blocks=(first, *rest)):
            odd = chance.choice((
                replace(first, hash=b""), replace(first, hash=b"../../../x"), replace(first, hash=b"0" * 64),
                replace(first, key=b"0" * 64), replace(first, key=b"\xff" * 64), first,
            ))  # fmt: skip
            attributes: Any = File(
                (odd, *rest) * chance.choice((1, 1, 0, 3, 2000)), chance.choice((128, 0, 1))
            )
        case SubDirectory():
            attributes = SubDirectory(chance.choice((b"", *keys, directory_key(b"nowhere"))))
        case Link():
            attributes = Link(chance.choice((b"", b"x" * 5000, b"\0", b"abs", b"..", b"/../../etc/passwd")))
        case _:
            device = chance.choice((b"", b"1,3", b"1", b"4294967296,1", b"-1,2", b"4096,0"))
            attributes = Special(chance.choice(list(SpecialKind)), device)
    changes: list[dict[str, Any]] = [
        {"name": chance.choice(_NAMES)},
        {"size": chance.choice(_NUMBERS)},
        {"attributes": attributes},
        {"attributes": chance.choice((None, SubDirectory(chance.choice(keys)), Link(b"etc"), File(()),
                                      File((BlockRef(b"a" * 64, b"b" * 64),))))},
        {"aclkey": chance.choice((b"", aci_key(Aci(b"no", b"body", 0)), *keys))},
    ]  # fmt: skip
    return replace(entry, **chance.choice(changes))


# Archives


def _archive_bytes(base: Base, chance: random.Random) -> bytes:
    return _recompressed(damaged(base.archive, chance), chance)


def _archive_headers(base: Base, chance: random.Random) -> bytes:
    """Damage headers under a right checksum."""
    raw = bytearray(base.archive)
    with tarfile.open(fileobj=io.BytesIO(base.archive)) as archive:
        starts = [member.offset for member in archive.getmembers()]
    for at in chance.sample(starts, chance.choice((1, 1, 2))):
        header = bytearray(damaged(bytes(raw[at : at + 512]), chance, keep_size=True))
        header[148:156] = b"        "
        header[148:156] = b"%06o\0 " % sum(header)
        raw[at : at + 512] = header
    return _recompressed(bytes(raw), chance)


def _recompressed(raw: bytes, chance: random.Random) -> bytes:
    compress = chance.choice((None, None, gzip.compress, bz2.compress, lzma.compress))
    if compress is None:
        return raw
    packed: bytes = compress(raw)
    return damaged(packed, chance) if chance.randrange(3) == 0 else packed
