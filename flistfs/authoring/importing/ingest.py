"""Import a source's items into a session without FUSE: read, store, and put into the tree concurrently.

What runs concurrently, and why it is safe:

- A thread of its own walks the source. It hands items to the event loop in batches, and chunks to the
  uploader after the batch with their file: `run_sync_soon` keeps the order, so the loop knows a file before
  its first chunk is reported.
- The task that runs `Ingest.run` does everything else alone: it receives items, counts reported chunks, and
  imports the next item when its last chunk is stored. So a file is in the tree with its whole content or not
  at all, and the result is that of the source's order: in an archive, entries may go through links that come
  before them, and replace others. Chunks are stored in that order too, so hardly any item waits for a file
  before it.
- A budget bounds the data in flight, in bytes of memory: the reader waits while it is used up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from flistfs.authoring.importing.importer import Imported, Importer, Ready, StoredPiece
from flistfs.authoring.summaries import LeftOut
from flistfs.authoring.upload.uploader import Failure, Finished, Job, Outcome
from flistfs.errors import FlistfsError, SourceError
from flistfs.sources.data import BytesSource
from flistfs.sources.item import Item, Note, Problem, TreeSource
from flistfs.sources.item import Piece as SourcePiece

# Memory for items and chunks in flight, and what an item, or a chunk that is not in memory, counts as.
_BUDGET = 32 << 20
_COST = 1 << 10

# The same for a chunk that is already stored, and for an extended attribute in addition to its bytes.
_STORED_COST = 1 << 8

# A batch is handed over at this many items or bytes of chunks.
_BATCH_ITEMS = 64
_BATCH_BYTES = 1 << 20

# Items in one change of the journal: 20 µs each, during which the event loop does nothing else.
_CHANGE_ITEMS = 128

# Problems, and replaced entries, that are kept with their names.
MAX_PROBLEMS = 10_000


@dataclass(slots=True)
class IngestCounts:
    """Progress: the entries, and bytes of content, that are in the tree."""

    entries: int = 0
    size: int = 0


@dataclass(slots=True)
class _Arrival:
    """An item that was read, with its number of chunks in flight, and its stored chunks."""

    item: Item
    waiting: int
    chunks: list[StoredPiece] = field(default_factory=list)
    failure: str | None = None
    is_cut_off: bool = False
    """Whether the source failed within it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk in flight: the owner of its job."""

    ingest: Ingest
    arrival: _Arrival
    number: int
    cost: int


class _StoppedError(Exception):
    """The ingest has ended, and nothing takes what the reader reads."""


class _Budget:
    """Bounds the data in flight; the reader takes, the event loop gives back."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()

    def has_room(self, cost: int) -> bool:
        return self._used == 0 or self._used + cost <= self._limit

    def take(self, cost: int) -> None:
        with self._changed:
            while not self._closed and not self.has_room(cost):
                self._changed.wait()
            if self._closed:
                raise _StoppedError
            self._used += cost

    def give(self, cost: int) -> None:
        with self._changed:
            self._used -= cost
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


_Message = _Arrival | Problem | Note


def _cost(item: Item) -> int:
    texts = [item.path, item.target, item.link or b"", *item.xattrs, *item.xattrs.values()]
    cost = _COST + _STORED_COST * (len(item.stored) + len(item.xattrs)) + sum(map(len, texts))
    # It is given back when its chunks are stored: there must be room for them as well.
    return min(cost, _BUDGET // 2) if item.count else cost


class Ingest:
    """Puts the items of one source into a session's tree."""

    def __init__(
        self,
        source: TreeSource,
        importer: Importer,
        submit: Callable[[Job[Piece]], None],
        changed: Callable[[Imported], Awaitable[None]],
        *,
        max_size: int,
        keep_going: bool,
        check_content: bool = False,
    ) -> None:
        """Prepare the import of `source`.

        Args:
            source: The source of items.
            importer: Puts them into the tree.
            submit: Gets every chunk, to be stored; `report` is to get what became of it.
            changed: Called with what each batch changed in the tree.
            max_size: Bytes of the largest file that the format can hold.
            keep_going: Whether to skip what cannot be imported, instead of stopping there.
            check_content: Whether blocks that are already stored are compared.
        """
        self._source = source
        self._importer = importer
        self._submit = submit
        self._notify_changed = changed
        self._max_size = max_size
        self._keep_going = keep_going
        self._check_content = check_content
        self._budget = _Budget(_BUDGET)
        self._token = trio.lowlevel.current_trio_token()
        self._queue: deque[_Arrival | Problem] = deque()  # in the order of the source
        self._wake = trio.Event()
        self._is_read = False
        self._error: FlistfsError | None = None
        self.counts = IngestCounts()
        self.notes: list[str] = []
        self.left_out: list[LeftOut] = []
        self.left_out_count = 0
        self.replaced: list[bytes] = []
        self.replaced_count = 0

    async def run(self) -> None:
        """Put everything into the tree; return when it is there, with all its blocks stored.

        What was imported before an error stays; that is everything before, if it is the source's.

        Raises:
            SourceError: something could not be added, and `keep_going` is not set; or the source
                cannot be read at all.
            OSError: the journal cannot be written.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            try:
                await self._work()
            finally:
                self._budget.close()

    def report(self, piece: Piece, report: Finished[Piece]) -> None:
        """Record the outcome of a chunk (in the event loop's thread)."""
        self._budget.give(piece.cost)
        match report:
            case Outcome(stored=stored, size=size, is_new=is_new, replaced=replaced):
                # Not the report itself, whose job has the chunk's bytes.
                piece.arrival.chunks.append(StoredPiece(piece.number, stored, size, is_new, replaced))
            case Failure(reason=reason):
                piece.arrival.failure = reason
        self._count_down(piece.arrival, 1)

    # Reading, in a thread

    async def _read(self) -> None:
        try:
            # A silent pipe must not keep a cancelled ingest waiting.
            await trio.to_thread.run_sync(self._walk, abandon_on_cancel=True)
        except _StoppedError:
            return
        self._receive([None])

    def _walk(self) -> None:
        parcel = _Parcel()
        try:
            self._walk_items(parcel)
        except FlistfsError as error:
            self._hand_over(parcel)
            self._token.run_sync_soon(self._note_error, error)

    def _walk_items(self, parcel: _Parcel) -> None:
        for entry in self._source.items():
            if not isinstance(entry, Item):
                parcel.messages.append(entry)
            elif entry.size > self._max_size and entry.link is None:
                parcel.messages.append(_too_large(entry, self._max_size))
            else:
                self._take_budget(_cost(entry), parcel)
                self._split(entry, parcel)
            if isinstance(entry, Problem) or len(parcel.messages) >= _BATCH_ITEMS:
                self._hand_over(parcel)
        self._hand_over(parcel)

    def _split(self, item: Item, parcel: _Parcel) -> None:
        arrival = _Arrival(item, item.count)
        parcel.messages.append(arrival)
        submitted = 0
        try:
            for piece in item.pieces:
                self._submit_later(arrival, piece, parcel)
                submitted += 1
        except SourceError as error:
            self._hand_over(parcel)
            self._token.run_sync_soon(self._note_missing_chunks, arrival, item.count - submitted, str(error))
        except FlistfsError:
            self._hand_over(parcel)
            self._token.run_sync_soon(self._note_cut_off, arrival, item.count - submitted)
            raise

    def _submit_later(self, arrival: _Arrival, piece: SourcePiece, parcel: _Parcel) -> None:
        cost = _COST + (piece.source.length if isinstance(piece.source, BytesSource) else 0)
        self._take_budget(cost, parcel)
        owner = Piece(self, arrival, piece.number, cost)
        parcel.jobs.append(Job(owner, 0, piece.source, check_content=self._check_content))
        parcel.size += piece.source.length
        if parcel.size >= _BATCH_BYTES:
            self._hand_over(parcel)

    def _take_budget(self, cost: int, parcel: _Parcel) -> None:
        if not self._budget.has_room(cost):
            self._hand_over(parcel)  # the parcel's share is only given back once it has left
        self._budget.take(cost)

    def _hand_over(self, parcel: _Parcel) -> None:
        if parcel.messages:
            self._token.run_sync_soon(self._receive, parcel.messages)
        for job in parcel.jobs:
            self._submit(job)
        parcel.clear()

    # Everything else, in the event loop

    def _receive(self, messages: Sequence[_Message | None]) -> None:
        """Receive the reader's messages at once: a chunk that is reported next may belong to them."""
        for message in messages:
            match message:
                case None:
                    self._is_read = True
                case Note(text=text):
                    self.notes.append(text)
                case _:
                    self._queue.append(message)
        self._wake.set()

    async def _work(self) -> None:
        while not self._is_read or self._queue:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._is_next_ready():
                await self._put_next()
        if self._error is not None:
            raise self._error

    def _is_next_ready(self) -> bool:
        """Return whether no chunk of the next item is still in flight."""
        return bool(self._queue) and (isinstance(first := self._queue[0], Problem) or not first.waiting)

    async def _put_next(self) -> None:
        """Import the next items, up to a problem or an item with chunks in flight."""
        batch: list[Ready] = []
        problem: Problem | None = None
        while problem is None and len(batch) < _CHANGE_ITEMS and self._is_next_ready():
            first = self._queue.popleft()
            if isinstance(first, Problem):
                problem = first
            elif first.is_cut_off:
                self._budget.give(_cost(first.item))
            elif first.failure is not None:
                self._budget.give(_cost(first.item))
                problem = Problem(first.item.path, first.failure)
            else:
                batch.append(Ready(first.item, sorted(first.chunks)))
        if batch:
            await self._import(batch)
        if problem is not None:
            self._note_problem(problem)

    def _note_missing_chunks(self, arrival: _Arrival, missing: int, reason: str) -> None:
        """Record that the last chunks of a file could not be read."""
        arrival.failure = reason
        self._count_down(arrival, missing)

    def _note_cut_off(self, arrival: _Arrival, missing: int) -> None:
        arrival.is_cut_off = True
        self._count_down(arrival, missing)

    def _note_error(self, error: FlistfsError) -> None:
        """Record that the source has failed; it is raised once everything before is in the tree."""
        self._error = error

    def _count_down(self, arrival: _Arrival, chunks: int) -> None:
        arrival.waiting -= chunks
        if arrival.waiting == 0:
            self._wake.set()

    async def _import(self, batch: Sequence[Ready]) -> None:
        done = self._importer.import_(batch)
        self._budget.give(sum(_cost(ready.item) for ready in batch))
        refused = {problem.path for problem in done.problems}
        for ready in batch:
            if ready.item.path not in refused:
                self.counts.entries += 1
                self.counts.size += ready.item.size if ready.item.link is None else 0
        self.replaced_count += len(done.replaced)
        self.replaced += done.replaced[: MAX_PROBLEMS - len(self.replaced)]
        for problem in done.problems:
            self._note_problem(problem)
        await self._notify_changed(done)

    def _note_problem(self, problem: Problem) -> None:
        left_out = LeftOut(self._source.named(problem.path), problem.reason)
        if not self._keep_going:
            raise SourceError(str(left_out))
        self.left_out_count += 1
        if len(self.left_out) < MAX_PROBLEMS:
            self.left_out.append(left_out)


def _too_large(item: Item, most: int) -> Problem:
    return Problem(item.path, f"it has {item.size:,} bytes; an flist allows at most {most:,} per file")


@dataclass(slots=True)
class _Parcel:
    """The messages that the reader hands over next."""

    messages: list[_Message] = field(default_factory=list)
    jobs: list[Job[Piece]] = field(default_factory=list)
    size: int = 0

    def clear(self) -> None:
        self.messages, self.jobs, self.size = [], [], 0
