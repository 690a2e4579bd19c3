"""The location of each chunk of each file while the session is written.

One module of over 400 lines: all methods change the same tables between two awaits, under the contract below.

A chunk is in one of three states, recorded in the journal:

- a hole: no record; reads as zeros and costs nothing;
- spooled: its bytes are in a slot of the spool, newer than any block;
- stored: the store holds it as a block. A copy may still be in a slot, recorded in memory only.

A chunk's bytes end at the end of the file or of the chunk. A slot's bytes past that are undefined, so code
that extends a file zeroes the gap first. A stored chunk is always stored at its full length: if a file grows
or shrinks inside its last chunk, that chunk becomes spooled again.

What runs concurrently, and why it is safe:

- All methods run in the event loop's thread. Those that change anything are plain functions: between two
  awaits nothing else runs, so each is atomic. `bring` first fetches the chunks they need from the store, and
  returns only when, in the same step of the loop, every requested chunk is in a slot or a hole. Until then
  fetched chunks are pinned: however small the cache, callers that wait for several chunks each do not evict
  each other's.
- A read needs no slots. It holds the chunks it fetched, and checks in the step in which it returns that they
  are still the file's chunks.
- A spooled chunk is one `Chunk` object, and each write to it gives it a new version. The uploader works on
  a job with the chunk and its version; a stored block is accepted only if that chunk object is still in the
  table with the job's version. Otherwise the block is ignored, and the chunk, settled again later, is sent
  again.
- A slot is freed or reused while a worker may be reading it: see `uploader`.
- Concurrent callers that need the same block from the store share one fetch, and its failure.

Back-pressure: the spool has a limit in bytes and in chunks, and leaves part of the disk free. `room` waits
until the spool is below its limit; it settles every chunk first, since unsettled chunks are not uploaded. If
the disk is full and the store accepts nothing, waiting would not help, and it raises ENOSPC.

Power cuts: `sync_file` makes a file's slots, its blocks and the journal durable. From then on a chunk that it
covered keeps its slot until its block is durable too, and is not brought back into a slot before that slot is
durable. The journal, which the system may write to disk at any time, thus never names bytes that are missing.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import islice

import trio

from flistfs.authoring.filesystem.chunks import Chunk, ChunkId, ContentStatus, Copy, Counts, SpooledChunks
from flistfs.authoring.state.change import Change
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import Inode
from flistfs.authoring.state.spool import Spool
from flistfs.authoring.upload.uploader import Job, Outcome
from flistfs.errors import BlockCorruptError, FlistfsError, JournalError
from flistfs.sources.data import SpoolSource
from flistfs.stores import Store
from flistfs.stores.slow import SlowFailures
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef, Stored, chunk_length, pieces

log = logging.getLogger(__name__)

# A chunk not written to for this long is settled even if its file is still open (seconds).
SETTLE_AFTER = 2.0

# Most copies of stored chunks that are kept for reading back: in chunks, and in bytes of disk.
_CACHED_CHUNKS = 4096
_CACHED_BYTES = 256 << 20

# Most chunks fetched from the store at the same time.
_FETCHES = 8

# Most reads that wait for the store at the same time; each holds at most 3 fetched chunks of 512 KiB.
_READS = 16

# Chunks kept in memory for reading back while the disk is nearly full, since the kernel reads a quarter of a
# chunk at a time.
_IN_MEMORY = 16

# A waiting writer checks this often (seconds) whether the store is stuck.
_LOOK_AGAIN = 1.0

# The log reports at most this often (seconds) that writers wait.
_TELL_EVERY = 60.0

# Most spooled chunks, whatever their size: each costs about 400 bytes of memory.
_SPOOLED_CHUNKS = 100_000

# The journal setting with the hashes, in hex, of blocks that a seal found corrupt in the store.
_WRONG = b"wrong"


_Part = tuple[int, int, int]  # see `pieces`


@dataclass(slots=True)
class _Fetch:
    """A fetch of a chunk in progress, shared by its waiters; then its bytes, or its error."""

    done: trio.Event
    data: bytes | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A chunk's block at the time of the fetch, and the chunk's bytes."""

    stored: Stored
    data: bytes


class Content:
    """The chunks of all files of a session."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        store: Store,
        submit: Callable[[Job[Chunk]], None],
        sync_store: Callable[[], None],
        *,
        max_size: int,
        disk: Disk,
        spool_limit: int,
        is_stuck: Callable[[], bool],
    ) -> None:
        """Load the spooled chunks from the journal.

        Args:
            journal: Records where chunks are.
            spool: Holds the bytes of chunks.
            store: The store that chunks without a slot are fetched from.
            submit: Called with every settled chunk, to upload it.
            sync_store: Makes the stored blocks survive a power cut (blocks the thread).
            max_size: Size in bytes of the largest file the format can hold; beyond it, EFBIG.
            disk: The disk that holds the spool.
            spool_limit: Writers wait while more bytes than this are not stored yet.
            is_stuck: Returns whether the store accepts nothing now.
        """
        self.max_size = max_size
        self._journal = journal
        self._spool = spool
        self._store = store
        self._submit = submit
        self._sync_store = sync_store
        self._disk = disk
        self._limit = spool_limit
        self.trouble: str | None = None  # why stored chunks cannot be recorded and are stored again
        self._is_stuck = is_stuck
        self._synced = False  # whether any fsync was ever requested
        self._chunks = SpooledChunks()
        self._unsettled: OrderedDict[ChunkId, Chunk] = OrderedDict()
        self._cached: OrderedDict[ChunkId, Copy] = OrderedDict()
        self._cached_bytes = 0
        self._spooled_bytes = 0
        self._fetches: dict[Stored, _Fetch] = {}
        self._failures = SlowFailures()
        self._fetch_limiter = trio.CapacityLimiter(_FETCHES)
        self._reads = trio.CapacityLimiter(_READS)
        self._in_memory: OrderedDict[Stored, bytes] = OrderedDict()
        self._pins: Counter[ChunkId] = Counter()  # chunks that a write waits for
        self._waiting = 0
        self._tell_again = 0.0
        self._failure: JournalError | None = None
        self._less = trio.Event()
        self.counts = Counts(*json.loads(journal.setting(b"counts") or b"[]"))
        self._wrong = set(map(bytes.fromhex, json.loads(journal.setting(_WRONG) or b"[]")))
        self._resume()

    def _resume(self) -> None:
        for spooled in self._journal.spooled():
            inode = self._journal.inode(spooled.ino)
            length = 0 if inode is None else chunk_length(inode.size, spooled.index)
            self._add_chunk(Chunk(spooled.ino, spooled.index, spooled.slot, length))
        self.settle_all()

    # Reading

    async def read(self, ino: int, offset: int, length: int) -> bytes:
        """Read up to `length` bytes of a file at `offset`, fewer only at its end.

        Raises:
            OSError: EIO if a chunk cannot be fetched from the store, ESTALE if there is no such file.
        """
        parts = self._parts(ino, offset, length)
        if not self._lacking(
            ino, parts, {}
        ):  # the usual case: no waiting behind reads that wait for the store
            return self._join(ino, parts, {})
        async with self._reads:
            fetched: dict[int, _Fetched] = {}
            # During a fetch the file may change or be truncated: past its end a slot's bytes are undefined.
            while lacking := self._lacking(ino, parts := self._parts(ino, offset, length), fetched):
                for index, stored in lacking:
                    data = await self._fetch(ino, stored)
                    fetched[index] = _Fetched(stored, data)
                    self._keep_fetched((ino, index), stored, data)
            return self._join(ino, parts, fetched)

    def _parts(self, ino: int, offset: int, length: int) -> list[_Part]:
        """Return the pieces of chunks that a read covers (see `pieces`), within the file's present size."""
        inode = self._journal.inode(ino)
        if inode is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return list(pieces(offset, max(0, min(length, inode.size - offset))))

    def _lacking(
        self, ino: int, parts: Iterable[_Part], fetched: Mapping[int, _Fetched]
    ) -> list[tuple[int, Stored]]:
        """Return the chunks that are only in the store and were not fetched in their present version."""
        away = [(index, stored) for index, _, _ in parts if (stored := self._away(ino, index))]
        return [each for each in away if each[0] not in fetched or fetched[each[0]].stored != each[1]]

    def _away(self, ino: int, index: int) -> Stored | None:
        """Return the block of a chunk that is only in the store."""
        if self._chunks.get(ino, index) or (ino, index) in self._cached:
            return None
        return self._journal.stored(ino, index)

    def _join(self, ino: int, parts: Iterable[_Part], fetched: Mapping[int, _Fetched]) -> bytes:
        """Join the pieces, from slots, holes and fetched chunks."""
        found = [self._read_piece(ino, *part, fetched) for part in parts]
        return found[0] if len(found) == 1 else b"".join(found)

    def _read_piece(
        self, ino: int, index: int, start: int, end: int, fetched: Mapping[int, _Fetched]
    ) -> bytes:
        if chunk := self._chunks.get(ino, index):
            return self._spool.read(chunk.slot, start, end - start)
        if copy := self._cached.get((ino, index)):
            self._cached.move_to_end((ino, index))
            return self._spool.read(copy.slot, start, end - start)
        if index in fetched and self._away(ino, index):
            return fetched[index].data[start:end]
        return bytes(end - start)

    async def _fetch(self, ino: int, stored: Stored) -> bytes:
        """Return a chunk of a file from the store, or from the recently fetched ones."""
        while (data := self._in_memory.get(stored)) is None:
            if (running := self._fetches.get(stored)) is None:
                return await self._fetch_anew(ino, stored)
            await running.done.wait()
            if running.failure is not None:
                raise OSError(errno.EIO, running.failure)
            if running.data is not None:
                return running.data
        self._in_memory.move_to_end(stored)
        return data

    async def _fetch_anew(self, ino: int, stored: Stored) -> bytes:
        fetch = self._fetches[stored] = _Fetch(trio.Event())
        try:
            with self._failures.watched(stored.hash):
                fetch.data = await trio.to_thread.run_sync(self._load, stored, limiter=self._fetch_limiter)
        except FlistfsError as error:
            log.error("reading back a chunk of inode %d failed: %s", ino, error)  # noqa: TRY400
            fetch.failure = str(error)
            raise OSError(errno.EIO, str(error)) from error
        finally:
            del self._fetches[stored]
            fetch.done.set()
        return fetch.data

    def _load(self, stored: Stored) -> bytes:
        data = self._store.codec.decode(self._store.get(stored.hash), BlockRef(stored.hash, stored.key))
        if len(data) != stored.length:  # possible for a base's blocks, which were never read before
            raise BlockCorruptError(
                f"block {stored.hash.decode()} has {len(data)} bytes instead of {stored.length}"
            )
        return data

    def _keep_fetched(self, chunk_id: ChunkId, stored: Stored, data: bytes) -> None:
        """Cache a chunk for the next read: in a slot, or in memory if the disk has no space for one."""
        if self._away(*chunk_id) != stored:
            return
        if not self._disk.is_low():
            with suppress(OSError):
                self._keep(chunk_id, self._fill_slot(data), stored.length)
        if chunk_id not in self._cached:
            self._in_memory[stored] = data
            if len(self._in_memory) > _IN_MEMORY:
                self._in_memory.popitem(last=False)

    def _fill_slot(self, data: bytes) -> int:
        slot = self._spool.allocate()
        try:
            self._spool.write(slot, 0, data)
        except OSError:
            self._free(slot)
            raise
        return slot

    # Writing

    async def bring(self, ino: int, indexes: Iterable[int]) -> None:
        """Bring a file's chunks that will be partly overwritten into slots; holes stay holes.

        None can be evicted before all are present, and none is lost to a power cut.

        Raises:
            OSError: EIO if the store cannot return one or the disk fails; ENOSPC if the disk is full, as in
                `room`.
        """
        wanted = [(ino, index) for index in indexes]
        if any(self._away(*chunk_id) for chunk_id in wanted):
            await self.room()  # each takes a slot
        self._pins.update(wanted)
        try:
            while True:
                await self._bring_away(wanted)
                copies = [copy for chunk_id in wanted if (copy := self._cached.get(chunk_id))]
                unsafe = [copy for copy in copies if self._synced and not copy.durable]
                if not unsafe:
                    return
                await trio.to_thread.run_sync(self._spool.sync)
                for copy in unsafe:
                    copy.durable = True
        finally:
            self._pins -= Counter(wanted)

    async def _bring_away(self, wanted: Iterable[ChunkId]) -> None:
        while away := [(chunk_id, stored) for chunk_id in wanted if (stored := self._away(*chunk_id))]:
            for chunk_id, stored in away:
                data = await self._fetch(chunk_id[0], stored)
                if self._away(*chunk_id) == stored:
                    self._keep(chunk_id, self._fill_slot(data), stored.length)

    async def room(self) -> None:
        """Wait while the spool is full.

        A write may then add a few chunks, so the limit is exceeded by at most one write per writer.

        Raises:
            OSError: ENOSPC if the disk is full and the store accepts nothing.
        """
        while self._spooled_bytes > self._limit or len(self._chunks) > _SPOOLED_CHUNKS:
            await self._wait_for_less("the spool is full")
        while self._disk.is_low():
            self._make_room()
            if not self._disk.is_low():
                return
            if not self._chunks or self._is_stuck():
                self._warn("the disk is nearly full: writing fails until there is room")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            await self._wait_for_less("the disk is nearly full")

    def check_names(self) -> None:
        """Check that the disk has room for another name.

        Raises:
            OSError: ENOSPC if it is full.
        """
        if self._disk.is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def _wait_for_less(self, reason: str) -> None:
        """Wait until something was stored, or for a moment, since the store may have got stuck."""
        self._warn(f"{reason}: writers are waiting until the store has accepted more")
        self.settle_all()
        self._waiting += 1
        try:
            with trio.move_on_after(_LOOK_AGAIN):
                await self._less.wait()
        finally:
            self._waiting -= 1

    def _warn(self, reason: str) -> None:
        if time.monotonic() >= self._tell_again:
            self._tell_again = time.monotonic() + _TELL_EVERY
            log.warning("%s", reason)

    def border(self, inode: Inode, new_size: int) -> list[int]:
        """Return the chunk to bring before the file's size changes: the partial one at the border."""
        border = min(inode.size, new_size)
        if new_size == inode.size or border % CHUNK_SIZE == 0:
            return []
        return [border // CHUNK_SIZE]

    def needs(self, inode: Inode, offset: int, length: int) -> list[int]:
        """Return the chunks to bring before a write: those it covers partly."""
        wanted = [
            index
            for index, start, end in pieces(offset, length)
            if start > 0 or end < chunk_length(inode.size, index)
        ]
        if offset > inode.size:
            wanted += self.border(inode, offset)
        return wanted

    def write(self, change: Change, inode: Inode, offset: int, data: bytes) -> Inode:
        """Write `data` at `offset`; `needs` was brought. Return the inode with its new size.

        Raises:
            OSError: the disk is full or failing. The file is unchanged, except that bytes inside the range
                may have been written already.
        """
        if offset > inode.size:
            inode = self.resize(change, inode, offset)
        view = memoryview(data)
        position = 0
        chunks = inode.chunks
        for index, start, end in pieces(offset, len(data)):
            part = view[position : position + end - start]
            chunks += self._write_piece(change, inode, index, start, part)
            position += end - start
        return inode._replace(size=max(inode.size, offset + len(data)), chunks=chunks)

    def _write_piece(self, change: Change, inode: Inode, index: int, start: int, part: memoryview) -> int:
        """Write into one chunk; return how many chunks the file gained (0 or 1)."""
        old_length = chunk_length(inode.size, index)
        end = start + len(part)
        chunk = self._chunks.get(inode.ino, index)
        was_hole = chunk is None and self._is_hole(inode, index)
        if chunk is None:
            chunk = self._make_spooled(change, inode.ino, index, old_length, start, end, was_hole=was_hole)
        self._set_length(change, chunk, max(old_length, end))
        self._spool.write(chunk.slot, start, part)
        if end == CHUNK_SIZE:
            change.on_commit(lambda: self._settle(chunk))
        return int(was_hole)

    def _is_hole(self, inode: Inode, index: int) -> bool:
        """Return whether a chunk that is not spooled is a hole."""
        if inode.chunks == 0:  # a new file: no lookup needed
            return True
        return (inode.ino, index) not in self._cached and self._journal.stored(inode.ino, index) is None

    def _make_spooled(
        self, change: Change, ino: int, index: int, length: int, start: int, end: int, *, was_hole: bool
    ) -> Chunk:
        """Copy a chunk into a slot, except the bytes from `start` to `end`, which will be overwritten."""
        copy = self._cached.pop((ino, index), None)
        if copy is not None:
            slot = copy.slot
            self._cached_bytes -= copy.length
        elif was_hole or (start == 0 and end >= length):
            slot = self._spool.allocate()
        else:
            raise RuntimeError(f"chunk {index} of inode {ino} was not brought before it was changed")
        chunk = Chunk(ino, index, slot, length)
        self._add_chunk(chunk)
        change.on_abort(lambda: self._discard(chunk))
        if copy is None:
            self._spool.zero(slot, 0, min(start, length))
            self._spool.zero(slot, end, length)
        change.put_spooled(ino, index, slot)
        if not was_hole:
            change.drop_stored(ino, index)
        return chunk

    def _set_length(self, change: Change, chunk: Chunk, length: int) -> None:
        """Record that a chunk's bytes, and perhaps its length, are about to change."""
        old_length = chunk.length
        self._touch(chunk, length)
        if length != old_length:
            change.on_abort(lambda: self._touch(chunk, old_length))

    def resize(self, change: Change, inode: Inode, size: int) -> Inode:
        """Extend or truncate a file; `border` was brought.

        Returns the inode with its new size.
        """
        chunks = inode.chunks
        if size < inode.size:
            chunks -= self._drop_from(change, inode, -(-size // CHUNK_SIZE))
        for index in self.border(inode, size):
            self._resize_chunk(change, inode, index, chunk_length(size, index))
        return inode._replace(size=size, chunks=chunks)

    def _resize_chunk(self, change: Change, inode: Inode, index: int, length: int) -> None:
        """Change the length of a chunk at the end of a file; a hole stays one."""
        old_length = chunk_length(inode.size, index)
        chunk = self._chunks.get(inode.ino, index)
        if chunk is None:
            if (inode.ino, index) not in self._cached:
                return
            chunk = self._make_spooled(change, inode.ino, index, old_length, 0, old_length, was_hole=False)
        self._set_length(change, chunk, length)
        self._spool.zero(chunk.slot, old_length, length)

    def drop(self, change: Change, inode: Inode) -> None:
        """Remove all of a file's content."""
        self._drop_from(change, inode, 0)

    def _drop_from(self, change: Change, inode: Inode, first: int) -> int:
        """Turn the chunks from index `first` on into holes; return how many were not holes."""
        spooled = self._chunks.of(inode.ino)
        dropped = [chunk for index, chunk in spooled.items() if index >= first]
        for chunk in dropped:
            change.drop_spooled(inode.ino, chunk.index)
            change.on_commit(partial(self._discard, chunk))
        # Not one step further than needed: removed records of other files follow a file's chunks.
        most = inode.chunks - len(spooled)
        behind = -(-inode.size // CHUNK_SIZE)
        count = len(dropped)
        if most and first < behind:
            for index, _ in islice(self._journal.stored_chunks(inode.ino, first, behind), most):
                change.drop_stored(inode.ino, index)
                change.on_commit(partial(self._forget_copy, (inode.ino, index)))
                count += 1
        return count

    # Settling and storing

    def settle_file(self, ino: int, size: int) -> None:
        """Settle a file's chunks after its last writer closed it."""
        # Almost every file has one chunk; only other files need a scan of all unsettled chunks.
        indexes = [0] if size <= CHUNK_SIZE else [i for owner, i in self._unsettled if owner == ino]
        for index in indexes:
            if chunk := self._unsettled.get((ino, index)):
                self._settle(chunk)

    def settle_idle(self) -> None:
        """Settle the chunks not written to for `SETTLE_AFTER` seconds."""
        before = time.monotonic() - SETTLE_AFTER
        while self._unsettled:
            chunk = next(iter(self._unsettled.values()))
            if chunk.written > before:
                return
            self._settle(chunk)

    def settle_all(self) -> None:
        """Settle every chunk."""
        while self._unsettled:
            self._settle(next(iter(self._unsettled.values())))

    def _settle(self, chunk: Chunk) -> None:
        self._unsettled.pop((chunk.ino, chunk.index), None)
        source = SpoolSource(chunk.slot * CHUNK_SIZE, chunk.length)
        self._submit(Job(chunk, chunk.version, source, chunk.durable, check_content=bool(self._wrong)))

    def stored(self, outcomes: list[Outcome[Chunk]]) -> None:
        """Record the chunks that the uploader stored."""
        counts = replace(self.counts)
        try:
            uncounted = (each for each in outcomes if each.job.owner.counted != each.job.version)
            counts.add(uncounted, self._journal)
            with self._journal.change(makes_room=True) as change:
                done = self._note_stored(change, outcomes)
                change.put_setting(b"counts", json.dumps(astuple(counts)).encode())
        except OSError as error:
            self.trouble = error.strerror
            log.error("cannot record %d stored chunks, storing them again: %s", len(outcomes), error)  # noqa: TRY400
            for outcome in outcomes:
                self._store_again(outcome.job)
            if error.errno != errno.ENOSPC:  # after damage RocksDB accepts no more writes
                self._failure = JournalError(f"the session cannot continue: {error}")
            self._signal()
            return
        except JournalError as error:  # they stay spooled
            self._failure = error
            self._signal()
            return
        self.counts = counts
        self.trouble = None
        self._wrong.difference_update(each.stored.hash for each in outcomes if each.job.check_content)
        for outcome in outcomes:
            chunk = outcome.job.owner
            chunk.counted = outcome.job.version
            if not self._must_be_durable(outcome.job):
                chunk.reported = max(chunk.reported, outcome.job.version)
        for chunk, stored in done:
            self._remove_chunk(chunk)
            self._keep((chunk.ino, chunk.index), chunk.slot, stored.length)
        for outcome in outcomes:
            if self._is_current(outcome.job) and self._must_be_durable(outcome.job):
                self._settle(outcome.job.owner)
        self._signal()

    def _note_stored(self, change: Change, outcomes: list[Outcome[Chunk]]) -> list[tuple[Chunk, Stored]]:
        done = []
        for outcome in outcomes:
            chunk, stored = outcome.job.owner, outcome.stored
            change.put_block(stored.key, stored.hash, outcome.size)
            if self._is_current(outcome.job) and not self._must_be_durable(outcome.job):
                change.drop_spooled(chunk.ino, chunk.index)
                change.put_stored(chunk.ino, chunk.index, stored)
                done.append((chunk, stored))
        return done

    def _is_current(self, job: Job[Chunk]) -> bool:
        """Return whether a job's chunk still exists and is unchanged since the job was made."""
        chunk = job.owner
        return self._chunks.get(chunk.ino, chunk.index) is chunk and chunk.version == job.version

    def _must_be_durable(self, job: Job[Chunk]) -> bool:
        """Return whether an fsync has covered a chunk since the job was made.

        It is then submitted again, to be reported once its block is durable; that encodes and sends nothing.
        """
        return job.owner.durable and not job.durable

    def _store_again(self, job: Job[Chunk]) -> None:
        if self._is_current(job):
            self._unsettled[job.owner.ino, job.owner.index] = job.owner

    async def sync_file(self, ino: int) -> None:
        """Make a file's bytes survive a power cut, wherever they are.

        Raises:
            OSError: EIO if this disk or the store's disk fails.
        """
        self._synced = True
        for chunk in self._chunks.of(ino).values():
            chunk.durable = True
        await trio.to_thread.run_sync(self._spool.sync)
        try:
            await trio.to_thread.run_sync(self._sync_store)
        except FlistfsError as error:
            raise OSError(errno.EIO, str(error)) from error

    async def drain(self) -> None:
        """Wait until every chunk spooled now is stored, in this or a later version, or removed.

        Raises:
            JournalError: the journal can no longer be written.
        """
        self.settle_all()
        pending = [(chunk, chunk.version) for chunk in self._chunks]
        for chunk, version in pending:
            while self._chunks.get(chunk.ino, chunk.index) is chunk and chunk.reported < version:
                if self._failure is not None:
                    raise self._failure
                await self._less.wait()
        if self._failure is not None:
            raise self._failure

    def status(self) -> ContentStatus:
        """Return the use of the spool."""
        return ContentStatus(len(self._chunks), self._spooled_bytes, len(self._cached), self._waiting)

    def at_hand(self, hashes: set[bytes]) -> Iterator[tuple[Stored, bytes]]:
        """Yield the stored chunks with a local copy whose blocks have one of these hashes."""
        for chunk_id in list(self._cached):
            stored = self._journal.stored(*chunk_id)
            copy = self._cached.get(chunk_id)
            if stored is not None and copy is not None and stored.hash in hashes:
                yield stored, self._spool.read(copy.slot, 0, stored.length)

    def store_again(self, lost: set[bytes]) -> set[bytes]:
        """Make chunks spooled again whose blocks the store lost, if a copy is still kept.

        Args:
            lost: Hashes of blocks.

        Returns:
            The hashes that are being uploaded again.
        """
        saved: set[bytes] = set()
        with self._journal.change() as change:
            for ino, index in list(self._cached):
                stored = self._journal.stored(ino, index)
                if stored is not None and stored.hash in lost:
                    again = self._make_spooled(
                        change, ino, index, stored.length, 0, stored.length, was_hole=False
                    )
                    again.counted = again.version
                    saved.add(stored.hash)
        return saved

    def note_wrong(self, hashes: set[bytes]) -> None:
        """Record the blocks that a seal found corrupt in the store, also for later daemons.

        Until each is stored again, uploads are compared with the blocks in the store.
        """
        self._wrong = set(hashes)
        if hashes or self._journal.setting(_WRONG):
            # On a full disk later daemons lack this; the seal still names the files.
            with suppress(OSError), self._journal.change() as change:
                change.put_setting(_WRONG, json.dumps([each.hex() for each in sorted(hashes)]).encode())

    # Bookkeeping

    def _add_chunk(self, chunk: Chunk) -> None:
        self._chunks.add(chunk)
        self._spooled_bytes += chunk.length
        self._unsettled[chunk.ino, chunk.index] = chunk

    def _remove_chunk(self, chunk: Chunk) -> None:
        self._chunks.remove(chunk)
        self._unsettled.pop((chunk.ino, chunk.index), None)
        self._spooled_bytes -= chunk.length

    def _discard(self, chunk: Chunk) -> None:
        self._remove_chunk(chunk)
        self._free(chunk.slot)
        self._signal()

    def _signal(self) -> None:
        """Wake the tasks that wait for fewer spooled chunks."""
        self._less.set()
        self._less = trio.Event()

    def _touch(self, chunk: Chunk, length: int) -> None:
        """Record that a chunk's bytes or length changed."""
        self._spooled_bytes += length - chunk.length
        chunk.length = length
        chunk.version += 1
        chunk.written = time.monotonic()
        self._unsettled[chunk.ino, chunk.index] = chunk
        self._unsettled.move_to_end((chunk.ino, chunk.index))

    def _keep(self, chunk_id: ChunkId, slot: int, length: int) -> None:
        """Keep a stored chunk's slot for reading back, and evict the oldest ones."""
        self._cached[chunk_id] = Copy(slot, length)
        self._cached_bytes += length
        while len(self._cached) > _CACHED_CHUNKS or self._cached_bytes > _CACHED_BYTES:
            if not self._evict():
                break
        if self._disk.is_low():
            self._make_room()

    def _evict(self) -> bool:
        """Evict the oldest copy that no write waits for; return whether there was one."""
        oldest = next((chunk_id for chunk_id in self._cached if chunk_id not in self._pins), None)
        if oldest is None:
            return False
        self._forget_copy(oldest)
        return True

    def _make_room(self) -> None:
        """Drop all copies on a nearly full disk: reads then use memory."""
        while self._evict():
            pass
        self._spool.give_back()

    def forget_copies(self) -> None:
        """Drop all copies that are kept only for reading."""
        for chunk_id in list(self._cached):
            self._forget_copy(chunk_id)

    def _forget_copy(self, chunk_id: ChunkId) -> None:
        if copy := self._cached.pop(chunk_id, None):
            self._cached_bytes -= copy.length
            self._free(copy.slot)

    def _free(self, slot: int) -> None:
        """Free a slot; on a nearly full disk, release its space at once."""
        self._spool.free(slot)
        if self._disk.is_low():
            self._spool.give_back()
