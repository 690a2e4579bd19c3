"""The keys under which a catalog holds its records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from flistfs.format.generation import Generation
from flistfs.format.zeroos.records import Aci


def directory_key(path: bytes, generation: Generation = Generation.ONE) -> bytes:
    """Return the key of the directory at `path`, as the bytes of its hex digits.

    `path` is relative to the root, with no slash at either end; the root's is empty. Generation 1 takes
    BLAKE2b-256 of it (64 digits).
    """
    return _DIRECTORY_KEY[generation](path)


def aci_text(aci: Aci, generation: Generation = Generation.ONE) -> bytes:
    r"""Return the text that the key of `aci` hashes.

    In generation 1: `user:NAME\ngroup:NAME\nmode:M\n`, where M is `oct(st_mode)[4:]`.
    """
    return _ACI_TEXT[generation](aci)


def aci_key(aci: Aci, generation: Generation = Generation.ONE) -> bytes:
    """Return the key of `aci`, as the bytes of its hex digits: MD5 of its text (32 digits) in generation 1.

    Different ACIs can share a key in generation 1: it covers neither the ids nor the file type, nor the
    set-id and sticky bits of anything but plain files, links and sockets.
    """
    return _ACI_KEY[generation](aci_text(aci, generation))


def distinct_aci_key(aci: Aci, generation: Generation = Generation.ONE) -> bytes:
    """Return a key that `aci` shares with no other: for the ACIs of one tree whose `aci_key` is the same.

    Readers look an ACI up by whatever key an entry names, and never compute one.
    """
    full = b"%bfull mode:%o\nuid:%d\ngid:%d\n" % (aci_text(aci, generation), aci.mode, aci.uid, aci.gid)
    return _ACI_KEY[generation](full)


def _blake2b_256(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).hexdigest().encode()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _names_and_mode(aci: Aci) -> bytes:
    # The first writer of flists cut the mode's text by a fixed count. "0o100644", "0o120777" (plain file,
    # link, socket: six digits) leave "0644" and "0777". "0o40755", "0o41777" (directory, device, FIFO: five
    # digits) leave "755" and "777": a directory shares its key with a FIFO of equal permissions, and with a
    # directory that differs in the set-id and sticky bits only. Readers look ACIs up by the key that entries
    # name, but other writers compute it so: keep it.
    mode = oct(aci.mode)[4:].encode()
    return b"user:%b\ngroup:%b\nmode:%b\n" % (aci.uname, aci.gname, mode)


_DIRECTORY_KEY: Final[Mapping[Generation, Callable[[bytes], bytes]]] = {Generation.ONE: _blake2b_256}
_ACI_TEXT: Final[Mapping[Generation, Callable[[Aci], bytes]]] = {Generation.ONE: _names_and_mode}
_ACI_KEY: Final[Mapping[Generation, Callable[[bytes], bytes]]] = {Generation.ONE: _md5}
