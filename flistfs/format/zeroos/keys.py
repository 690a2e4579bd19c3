"""The keys of the records in a catalog."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flistfs.format.zeroos.records import Aci


@dataclass(frozen=True, slots=True)
class Keys:
    """How a generation makes keys: of a directory from its path, of an ACI from its text.

    With `typed` the modes of ACIs have the bits of a file type, else permissions and set-id and sticky bits.
    `old_texts` are what libflist made keys of before.
    """

    directory: Callable[[bytes], bytes]
    aci_text: Callable[[Aci], bytes]
    aci_digest: Callable[[bytes], bytes]
    typed: bool
    old_texts: tuple[Callable[[Aci], bytes], ...] = ()

    def aci(self, aci: Aci) -> bytes:
        """Return the usual key of an ACI, which others may share."""
        return self.aci_digest(self.aci_text(aci))

    def distinct_aci(self, aci: Aci) -> bytes:
        """Return a unique key of an ACI, for those of one tree whose usual key is the same.

        Readers look up an ACI by the key in an entry, and never compute one.
        """
        full = b"%bfull mode:%o\nuid:%d\ngid:%d\n" % (self.aci_text(aci), aci.mode, aci.uid, aci.gid)
        return self.aci_digest(full)

    def is_ambiguous(self, key: bytes, aci: Aci) -> bool:
        """Return whether others of another mode had this key of an ACI too, of which only one was stored.

        So libflist wrote them from January 2020 to April 2022: modes no longer had a type, whose digits were
        still removed from their text, so that of 0755 and of 0715 a 5 was left.
        """
        is_typed = aci.mode != stat.S_IMODE(aci.mode)
        return not is_typed and any(self.aci_digest(text(aci)) == key for text in self.old_texts)


def _blake2b_256(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).hexdigest().encode()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _names_and_mode(aci: Aci) -> bytes:
    # The first writer of flists removed a fixed number of characters from the mode's text. "0o100644" and
    # "0o120777" (plain file, link, socket: six digits) become "0644" and "0777". "0o40755" and "0o41777"
    # (directory, device, FIFO: five digits) become "755" and "777": a directory shares its key with a FIFO of
    # equal permissions, and with a directory that differs only in the set-id and sticky bits. Readers look up
    # ACIs by the key in entries, but other writers compute it this way: keep it.
    mode = oct(aci.mode)[4:].encode()
    return b"user:%b\ngroup:%b\nmode:%b\n" % (aci.uname, aci.gname, mode)


def _blake2b_128(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def _blake2b_64(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).hexdigest().encode()


def _everything(aci: Aci) -> bytes:
    # As libflist writes it since April 2022; there is no newline at the end.
    return b"user:%b\ngroup:%b\nmode:0o%o\nuid:%d\ngid:%d" % (
        aci.uname,
        aci.gname,
        aci.mode,
        aci.uid,
        aci.gid,
    )


def _names_mode_and_ids(aci: Aci) -> bytes:
    return b"%buid:%d\ngid:%d" % (_names_and_mode(aci), aci.uid, aci.gid)


GENERATION_1: Final = Keys(_blake2b_256, _names_and_mode, _md5, typed=True)
r"""Keys as the bytes of hex digits.

A directory's is BLAKE2b-256 of its path (64 digits), relative to the root, with no slash at either end. An
ACI's is MD5 (32 digits) of `user:NAME\ngroup:NAME\nmode:M\n`, where M is `oct(st_mode)[4:]`: different ACIs
can share one, as it covers neither the ids nor the file type, nor the set-id and sticky bits of anything but
plain files, links and sockets.
"""

GENERATION_2: Final = Keys(
    _blake2b_128,
    _everything,
    _blake2b_64,
    typed=False,
    old_texts=(_names_and_mode, _names_mode_and_ids),
)
r"""Keys as the bytes of hex digits.

A directory's is BLAKE2b-128 of its path (32 digits), relative to the root. An ACI's is BLAKE2b-64 (16 digits)
of `user:NAME\ngroup:NAME\nmode:0oM\nuid:N\ngid:N`, where M has no file type; before April 2022 of what
generation 1 makes it of, since July 2020 with both ids.
"""
