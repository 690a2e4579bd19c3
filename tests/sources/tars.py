"""Tar archives, block by block: what no library writes any more, or should never write."""

from __future__ import annotations

POSIX = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)
END = bytes(1024)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """A number in binary, with its sign."""
    return ((number % (1 << (8 * width - 1))) | 1 << (8 * width - 1)).to_bytes(width, "big")


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0001750\0",
    gid: bytes = b"0001751\0",
    mtime: int | bytes = 1_600_000_000,
    link: bytes = b"",
    magic: bytes = POSIX,
    tail: bytes = b"",
    signed: bool = False,
) -> bytes:
    """A header block. `tail` begins where ustar has the prefix of the name."""
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            mode,
            uid,
            gid,
            size if isinstance(size, bytes) else octal(size, 12),
            mtime if isinstance(mtime, bytes) else octal(mtime, 12),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            magic,
            b"user".ljust(32, b"\0"),
            b"group".ljust(32, b"\0"),
            octal(8, 8),
            octal(1, 8),
            tail.ljust(167, b"\0"),
        ]
    )
    assert len(block) == 512
    total = sum(byte - 256 * (signed and byte > 127) for byte in block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def entry(name: bytes, data: bytes = b"", kind: bytes = b"0", **fields: object) -> bytes:
    """A header, and content of the size that it says."""
    return header(name, kind, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def record(key: str, value: bytes) -> bytes:
    body = b" %s=%s\n" % (key.encode(), value)
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d%s" % (length, body)


def extended(*records: tuple[str, bytes], kind: bytes = b"x") -> bytes:
    """An extended header of PAX."""
    return entry(b"PaxHeader", b"".join(record(key, value) for key, value in records), kind)
