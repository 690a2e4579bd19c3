"""The exchanges with a server, one per function: the commands sent and the replies accepted."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from flistfs.stores.base import MAX_BLOCK_SIZE
from flistfs.stores.redis.wire import ErrorReply, InvalidReply, Reply, Status, Wire, command, set_commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flistfs.format.base import Block, Codec


MAX_COMMANDS: Final = 512
"""Commands in flight. Their replies (at most about 80 bytes each, where 0-db repeats the key) stay below
any socket buffer, so the server never waits for us to read while we wait for it to read."""


_MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of blocks in flight: bounds what is sent again after a fault. Larger pipelines gain nothing."""


_MAX_INFO: Final = 256 * 1024  # bytes; Redis 7.0 sends 6 KiB


_ZERO_DB: Final = re.compile(rb"^server_name:.*0-db", re.MULTILINE)


def in_pipelines(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Split a batch into pipelines of at most `MAX_COMMANDS` blocks and about `_MAX_BYTES`."""
    pipeline: list[Block] = []
    size = 0
    for block in blocks:
        if pipeline and (len(pipeline) == MAX_COMMANDS or size + block.size > _MAX_BYTES):
            yield pipeline
            pipeline, size = [], 0
        pipeline.append(block)
        size += block.size
    if pipeline:
        yield pipeline


def ask_missing(wire: Wire, hashes: Sequence[bytes]) -> set[bytes]:
    """Return those of the blocks that the server lacks."""
    wire.send([b"".join(command(b"EXISTS", hash_) for hash_ in hashes)])
    return {hash_ for hash_ in hashes if not is_there(wire.reply())}


def store_blocks(wire: Wire, blocks: Sequence[Block]) -> None:
    """Store blocks."""
    wire.send(set_commands((block.hash, block.parts) for block in blocks))
    for block in blocks:
        # 0-db answers with the key, or with nil if it already had the same value.
        expect(wire.reply(), Status("OK"), block.hash, None)


def fetch_block(wire: Wire, hash_: bytes) -> bytes | None:
    """Return the stored value of a block; None if the server lacks it."""
    wire.send([command(b"GET", hash_)])
    return _value(wire)


def _value(wire: Wire) -> bytes | None:
    value = wire.reply(MAX_BLOCK_SIZE)
    if value is None or type(value) is bytes:
        return value
    raise InvalidReply(f"{value!r} as the answer to GET")


def compare_blocks(wire: Wire, codec: Codec, hashes: Sequence[bytes]) -> set[bytes]:
    """Return the hashes of the blocks whose content does not match them."""
    wire.send([b"".join(command(b"GET", hash_) for hash_ in hashes)])
    values = ((hash_, _value(wire)) for hash_ in hashes)
    return {hash_ for hash_, value in values if value is not None and not codec.has_hash(value, hash_)}


def log_in_to_zero_db(wire: Wire, secret: bytes, name: bytes) -> None:
    """Send a 0-db the password, as the administrator's and as the namespace's.

    AUTH takes only the administrator's, and fails where there is none; a namespace's goes with SELECT.
    """
    wire.send([command(b"AUTH", secret), command(b"SELECT", name, secret)])
    with contextlib.suppress(ErrorReply):
        expect(wire.reply(), Status("OK"))
    expect(wire.reply(), Status("OK"))


def is_zero_db(wire: Wire) -> bool:
    """Return whether the server is a 0-db; False if the password does not allow asking."""
    wire.send([command(b"INFO")])
    try:
        info = wire.reply(_MAX_INFO)
    except ErrorReply:
        return False
    return isinstance(info, bytes) and _ZERO_DB.search(info) is not None


def send_command(wire: Wire, words: Sequence[bytes], answer: str) -> None:
    """Send a command, and require one answer."""
    wire.send([command(*words)])
    expect(wire.reply(), Status(answer))


def is_there(reply: Reply) -> bool:
    """Return the meaning of a reply to EXISTS."""
    expect(reply, 0, 1)
    return reply == 1


def expect(reply: Reply, *wanted: Reply) -> None:
    """Raise `InvalidReply` unless a reply is one of those expected."""
    if not any(type(reply) is type(one) and reply == one for one in wanted):
        raise InvalidReply(f"{reply!r:.80} where {wanted[0]!r} belongs")
