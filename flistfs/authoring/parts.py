"""What an open session consists of; those who work on it share it."""

from __future__ import annotations

from dataclasses import dataclass

from flistfs.authoring.base import Base
from flistfs.authoring.filesystem.chunks import Chunk
from flistfs.authoring.filesystem.content import Content
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.importing.ingest import Piece
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.upload.uploader import Uploader
from flistfs.format.base import Format
from flistfs.stores import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """An open session, in parts."""

    directory: SessionDirectory
    format: Format
    journal: Journal
    store: Store
    uploader: Uploader[Chunk | Piece]
    content: Content
    vfs: Vfs
    base: Base
