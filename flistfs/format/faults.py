"""Why an entry cannot be created or read, in any format."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flistfs.errors import FormatError
from flistfs.format.base import Codec
from flistfs.tree.chunks import BlockRef
from flistfs.tree.names import MAX_TARGET, printable
from flistfs.tree.node import DEVICES, Kind, Node

ALL_FAULTS: Final = "flistfs verify --no-store lists all faults"
"""The end of a message about one fault."""


class Defect(enum.Enum):
    """What is wrong, where readers differ in what they make of it: see the consequences of a format."""

    NO_BLOCK_SIZE = enum.auto()
    NO_BLOCKS = enum.auto()
    TOO_FEW_BLOCKS = enum.auto()
    TOO_MANY_BLOCKS = enum.auto()
    NO_HASH = enum.auto()
    INVALID_REFERENCE = enum.auto()
    NO_ATTRIBUTES = enum.auto()
    NO_DIRECTORY = enum.auto()
    LARGE_RECORD = enum.auto()
    OTHER_NAME = enum.auto()
    INVALID_NAME = enum.auto()
    NO_ACCESS = enum.auto()
    LOST_RECORD = enum.auto()
    DEVICE_AS_SOCKET = enum.auto()
    TWO_ACCESSES = enum.auto()
    SHARED_ACCESS = enum.auto()
    BEHIND_SPECIAL = enum.auto()


@dataclass(frozen=True, slots=True)
class FileFault:
    """Why a file cannot be read."""

    defect: Defect
    what: str


class LostRecordError(FormatError):
    """The record of a directory is lost, though nothing is damaged: the program that wrote it lost it."""


def damaged(path: bytes, error: FormatError) -> FormatError:
    """Return an error that names the path of the damage."""
    name = printable(path) or "/"
    return FormatError(f"{name} is damaged: {error} ({ALL_FAULTS})")


def node_fault(node: Node, codec: Codec) -> str | None:
    """Return why a file cannot be read, a link followed, or an entry created; None if it can."""
    match node.kind:
        case Kind.FILE:
            fault = file_fault(node.size, node.blocks, node.chunk_size, codec)
            return None if fault is None else fault.what
        case Kind.LINK:
            return target_fault(node.target or b"")
        case Kind.DIRECTORY if not node.whole:
            return "its directory is not in the flist"
        case Kind.UNKNOWN:
            return "it is of an unknown kind"
        case kind if kind in DEVICES and node.device is None:
            return "it is a device without valid numbers"
    return None


def target_fault(target: bytes) -> str | None:
    """Return why a link cannot have this target; None if it can."""
    if not target or b"\0" in target:
        return "its target is not valid for a link"
    if len(target) > MAX_TARGET:
        return f"its target has {len(target)} bytes, more than {MAX_TARGET}"
    return None


def file_fault(size: int, blocks: Sequence[BlockRef], chunk_size: int, codec: Codec) -> FileFault | None:
    """Return why a file of `size` bytes cannot be read from its blocks of `chunk_size` plain bytes."""
    if not size and not blocks:
        return None
    if not chunk_size:
        return FileFault(Defect.NO_BLOCK_SIZE, "its block size is 0")
    if not blocks:
        return FileFault(Defect.NO_BLOCKS, f"it has {size} bytes but no blocks")
    wanted = -(-size // chunk_size)
    if len(blocks) != wanted:
        defect = Defect.TOO_FEW_BLOCKS if len(blocks) < wanted else Defect.TOO_MANY_BLOCKS
        return FileFault(defect, f"it has {len(blocks)} blocks instead of the {wanted} of {size} bytes")
    if all(map(codec.is_ref, blocks)):
        return None
    if any(not block.hash for block in blocks):
        return FileFault(Defect.NO_HASH, "it has a block with an empty hash")
    return FileFault(Defect.INVALID_REFERENCE, "it has a block whose hash or key is invalid")
