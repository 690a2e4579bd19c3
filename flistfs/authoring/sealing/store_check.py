"""Check, before a seal, that the store holds every block, and holds it uncorrupted."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable
from dataclasses import replace

import trio

from flistfs.authoring.parts import Parts
from flistfs.authoring.sealing import blocks, healing
from flistfs.authoring.state.view import View
from flistfs.errors import (
    BlockMissingError,
)
from flistfs.sources.excludes import Filter
from flistfs.stores import Store
from flistfs.util.progress import Progress

log = logging.getLogger(__name__)

# Files named in a message.
_NAMED_FILES = 5

# How many files an error lists for programs.
_LISTED_FILES = 10_000


class StoreCheck:
    """Checks the store of a session, and sends lost blocks again as far as possible."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def all_stored(
        self, view: View, excluded: Filter, progress: Progress, *, check_content: bool
    ) -> bool:
        """Check that the store has every block; return False if some are being sent again.

        Blocks of a base, which the store was never said to have, are copied where it lacks them. With
        `check_content` every block is fetched, and wrong ones are replaced.

        Raises:
            BlockMissingError: the store lost blocks, or holds corrupt ones, that cannot be sent again.
        """
        await trio.to_thread.run_sync(self._parts.uploader.sync_store)
        if self._parts.base.store is not None:
            await trio.to_thread.run_sync(
                blocks.copy_base_blocks, view, self._parts.base.store, self._parts.store, excluded, progress
            )
        lost = await trio.to_thread.run_sync(blocks.lost_blocks, view, self._parts.store, excluded, progress)
        if check_content:
            await self._heal(view, excluded, progress)
        if not lost:
            return True
        log.warning("the store lost %d blocks", len(lost))
        with self._parts.journal.change() as change:
            for key in lost.values():
                change.drop_block(key)
        saved = self._parts.content.store_again(set(lost))
        gone = await trio.to_thread.run_sync(
            blocks.copy_replicas,
            self._parts.store,
            {block_hash: key for block_hash, key in lost.items() if block_hash not in saved},
        )
        files = await trio.to_thread.run_sync(blocks.files_lacking, view, gone, excluded)
        for name, hashes in files.items():
            log.warning(
                "blocks of %s that the store lost: %s", os.fsdecode(name), _listed(self._parts.store, hashes)
            )
        if files:
            raise BlockMissingError(
                _lost_message(len(gone), files, self._remedy(view)),
                paths=_listed_paths(files),
                count=len(files),
            )
        return gone == lost.keys()  # no file needs those

    async def _heal(self, view: View, excluded: Filter, progress: Progress) -> None:
        """Replace each corrupt block in the store with a valid one.

        Raises:
            BlockMissingError: files need blocks of which there is no valid copy.
        """
        wrong = await trio.to_thread.run_sync(
            healing.wrong_blocks, view, self._parts.store, excluded, progress
        )
        self._parts.content.note_wrong(set(wrong))
        if not wrong:
            return
        log.warning("the store holds %d corrupt blocks", len(wrong))
        healed: set[bytes] = set()
        for stored, chunk in self._parts.content.at_hand(set(wrong)):
            block = await trio.to_thread.run_sync(self._parts.store.codec.encode, chunk)
            if block.hash == stored.hash and block.hash not in healed:
                await trio.to_thread.run_sync(self._parts.store.put, [block])
                healed.add(block.hash)
        left = {block_hash: key for block_hash, key in wrong.items() if block_hash not in healed}
        sources = (
            [self._parts.store]
            if self._parts.base.store is None
            else [self._parts.store, self._parts.base.store]
        )
        healed |= await trio.to_thread.run_sync(healing.heal, self._parts.store, left, sources)
        await trio.to_thread.run_sync(self._parts.store.sync)
        counts = self._parts.content.counts
        self._parts.content.counts = replace(counts, replaced_blocks=counts.replaced_blocks + len(healed))
        gone = wrong.keys() - healed
        self._parts.content.note_wrong(gone)
        files = await trio.to_thread.run_sync(blocks.files_lacking, view, gone, excluded)
        for name, hashes in files.items():
            log.warning(
                "blocks of %s that are corrupt in the store: %s",
                os.fsdecode(name),
                _listed(self._parts.store, hashes),
            )
        if files:
            raise BlockMissingError(
                f"the store holds {_of_files(len(gone), 'corrupt block', files)}. {self._cure(view)}, and "
                f"seal again with `check_content`; the session's log names the blocks",
                paths=_listed_paths(files),
                count=len(files),
            )

    def _cure(self, view: View) -> str:
        """Return what the user can do about corrupt blocks."""
        again = "Add them again with `check_content`, or write them again"
        return (
            f"{again}, or repair those of the base with flistfs verify --repair" if view.has_base() else again
        )

    def _remedy(self, view: View) -> str:
        """Return what the user can do about lost blocks."""
        if not view.has_base():
            return "Write them again"
        searched = f", which {self._parts.base.store.url} lacks too," if self._parts.base.store else ""
        return f"Write them again, or copy those of the base{searched} with flistfs push"


def _lost_message(blocks: int, files: Iterable[bytes], remedy: str) -> str:
    return (
        f"the store has lost {_of_files(blocks, 'block', files)}. {remedy} and seal again; the session's log "
        f"names the blocks"
    )


def _of_files(blocks: int, word: str, files: Iterable[bytes]) -> str:
    """Return how many blocks of which files: "2 blocks of 1 file: name"."""
    names = [os.fsdecode(name) for name in files]
    more = f" and {len(names) - _NAMED_FILES} more" if len(names) > _NAMED_FILES else ""
    counted = f"{blocks} {word if blocks == 1 else f'{word}s'}"
    of = f"{len(names)} {'file' if len(names) == 1 else 'files'}"
    return f"{counted} of {of}: {', '.join(names[:_NAMED_FILES])}{more}"


def _listed_paths(files: Iterable[bytes]) -> list[str]:
    return [os.fsdecode(name) for name in itertools.islice(files, _LISTED_FILES)]


def _listed(store: Store, hashes: Iterable[bytes]) -> str:
    return ", ".join(map(store.codec.show, hashes))
