"""Keys: fixed examples, and every key in a real flist."""

from __future__ import annotations

import hashlib
import stat

import pytest

from flistfs.format.zeroos.records import Aci, decode_aci, decode_directory
from tests.format.conftest import Records
from tests.generation1 import aci_key, aci_text, directory_key


def test_root_has_the_hash_of_the_empty_path() -> None:
    root = b"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
    assert directory_key(b"") == root


def test_path_that_is_not_utf_8_has_a_key() -> None:
    assert directory_key(b"a/\xff") == hashlib.blake2b(b"a/\xff", digest_size=32).hexdigest().encode()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFREG | 0o644, b"0644"),
        (stat.S_IFREG | 0o4755, b"4755"),
        (stat.S_IFLNK | 0o777, b"0777"),
        (stat.S_IFSOCK | 0o755, b"0755"),
        (stat.S_IFDIR | 0o755, b"755"),
        (stat.S_IFDIR | 0o1777, b"777"),
        (stat.S_IFDIR | 0o2775, b"775"),
        (stat.S_IFDIR | 0o007, b"007"),
        (stat.S_IFBLK | 0o660, b"660"),
        (stat.S_IFCHR | 0o660, b"660"),
        (stat.S_IFIFO | 0o644, b"644"),
    ],
)
def test_aci_text(mode: int, text: bytes) -> None:
    aci = Aci(b"root", b"12", mode, uid=0, gid=12)
    assert aci_text(aci) == b"user:root\ngroup:12\nmode:%b\n" % text
    assert aci_key(aci) == hashlib.md5(aci_text(aci)).hexdigest().encode()


def test_directory_and_fifo_of_equal_permissions_share_a_key() -> None:
    directory, fifo = (Aci(b"root", b"root", kind | 0o755) for kind in (stat.S_IFDIR, stat.S_IFIFO))
    assert aci_key(directory) == aci_key(fifo) == b"405e2ceb2705e84a40e7cf509dd67a34"


def test_directories_that_differ_in_the_sticky_bit_share_a_key() -> None:
    assert aci_key(Aci(b"root", b"root", 0o41777)) == aci_key(Aci(b"root", b"root", 0o40777))


def test_all_keys_of_the_real_flist_recompute(real_records: Records) -> None:
    acis = {key: decode_aci(raw) for key, raw in real_records if len(key) == 32}
    directories = {key: decode_directory(raw) for key, raw in real_records if len(key) == 64}
    assert len(acis) == 32
    assert len(directories) == 1084
    assert {key: aci_key(aci) for key, aci in acis.items()} == {key: key for key in acis}
    for key, directory in directories.items():
        assert directory_key(directory.location) == key
        if directory.location:
            above, _, _ = directory.location.rpartition(b"/")
            assert directory.parent == directory_key(above)
