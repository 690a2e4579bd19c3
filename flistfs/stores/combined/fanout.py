"""Query several servers at once, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flistfs.format.base import Codec

_THREADS: Final = 16
"""Servers queried at the same time; more of them take turns."""

_K = TypeVar("_K")
_T = TypeVar("_T")


class _Holder(Protocol):
    """A store or server that may hold a block."""

    def copies(self, hash: bytes, /) -> list[bytes]: ...  # noqa: A002 - the format's word

    def get(self, hash: bytes, deadline: float, /) -> bytes: ...  # noqa: A002 - the format's word


def ask_all(questions: Mapping[_K, Callable[[], _T]]) -> dict[_K, _T | StoreError]:
    """Return each server's answer, or the error that it failed with.

    The threads live for this call: starting one takes some 50 µs, a small part of any exchange, and none is
    left that the process would have to wait for at exit.
    """
    answers: dict[_K, _T | Exception] = {}
    left = deque(questions.items())

    def work() -> None:
        while left:
            try:
                key, question = left.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                answers[key] = question()
            except Exception as error:  # noqa: BLE001  raised again below
                answers[key] = error

    threads = [
        threading.Thread(target=work, name="store", daemon=True)
        for _ in range(min(len(questions), _THREADS) - 1)
    ]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    return {key: _expected(answer) for key, answer in answers.items()}


def first_that_has(
    hash_: bytes, holders: Sequence[_Holder], codec: Codec, url: str, deadline: float
) -> bytes:
    """Return a block from the first holder with a valid copy; those that fail or are corrupt are skipped.

    Each gets an equal share of the time until the deadline, so that one which hangs does not keep the next
    from being tried.

    Raises:
        BlockMissingError: none has it; `url` names the holders in the message.
        StoreError: none has it, but it may be on one that failed.
    """
    errors: list[StoreError] = []
    wrong: bytes | None = None
    for number, holder in enumerate(holders):
        now = time.monotonic()
        share = (deadline - now) / (len(holders) - number)
        try:
            value = holder.get(hash_, now + share)
        except BlockMissingError:
            continue
        except StoreError as error:
            errors.append(error)
        else:
            if len(holders) == 1 or codec.has_hash(value, hash_):
                return value
            wrong = wrong or value
    if errors:
        raise most_telling(errors)
    if wrong is not None:  # decoding it will report what is wrong
        return wrong
    raise BlockMissingError(f"{url} does not hold block {codec.show(hash_)}")


def only_copy(hash_: bytes, get: Callable[[bytes], bytes]) -> list[bytes]:
    """Return the copies of a block where there is at most one."""
    try:
        return [get(hash_)]
    except BlockMissingError:
        return []


def all_copies(hash_: bytes, holders: Iterable[_Holder]) -> list[bytes]:
    """Return a block from each holder that has it.

    Raises:
        StoreError: none has it, and a server that may have it could not be asked.
    """
    found: list[bytes] = []
    errors: list[StoreError] = []
    for holder in holders:
        try:
            found += holder.copies(hash_)
        except StoreError as error:
            errors.append(error)
    if errors and not found:
        raise most_telling(errors)
    return found


def most_telling(errors: Iterable[StoreError]) -> StoreError:
    """Return the error to show of several (at least one): first those that waiting does not cure."""
    return min(errors, key=_rank)


def _rank(error: StoreError) -> int:
    if isinstance(error, StoreRefusedError):
        return 0
    return 2 if isinstance(error, StoreUnavailableError) else 1


def _expected(answer: _T | Exception) -> _T | StoreError:
    if isinstance(answer, Exception) and not isinstance(answer, StoreError):
        raise answer
    return answer
