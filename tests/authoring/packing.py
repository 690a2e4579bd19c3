"""Flists of sources, made in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from flistfs import stores
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.request import AddRequest, SealRequest
from flistfs.authoring.session import open_session, seal_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import Settings
from flistfs.authoring.summaries import AddSummary
from flistfs.sources.item import TreeSource
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import quiet
from tests.generation1 import open_store
from tests.independent_reader import Get, Node, read_flist


def pack(
    work: Path, *sources: TreeSource, unique: bool = True, keep_going: bool = False
) -> tuple[dict[bytes, Node], Get, list[AddSummary]]:
    """Put sources into a tree, one after the other, and seal it; everything lies in `work`."""
    added = trio.run(partial(_seal, work, sources, format_="rocksdb", unique=unique, keep_going=keep_going))
    return read_flist(work / "out.flist"), open_store(f"dir://{work}/blocks").get, added


def seal_sources(work: Path, sources: Sequence[TreeSource], *, format_: str) -> Path:
    """Put sources into a tree and seal it in a format; return the flist, beside which its blocks lie."""
    trio.run(partial(_seal, work, sources, format_=format_, unique=True, keep_going=False))
    return work / "out.flist"


async def _seal(
    work: Path, sources: Sequence[TreeSource], *, format_: str, unique: bool, keep_going: bool
) -> list[AddSummary]:
    directory, url = SessionDirectory(work / "session"), f"dir://{work}/blocks"
    lock = directory.lock()
    directory.create(Settings("", url, format=format_, created=0))
    caller = Caller(os.geteuid(), os.getegid())
    request = AddRequest((), keep_going=keep_going)
    with unwrapped(), closing(stores.open_store(url, directory.format().codec)) as store:
        async with open_session(directory, directory.format(), store, caller) as session:
            added = [
                await session.add(source, request, quiet, owner=caller, unique=unique) for source in sources
            ]
            await seal_session(session, directory, SealRequest(work / "out.flist"), None, quiet)
    lock.release()
    return added
