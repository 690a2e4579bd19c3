"""Several servers asked at once, each in a thread of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from flistfs.errors import StoreError, StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_THREADS: Final = 32
"""Questions on their way at once; others wait. They are bounded in time, so waiting is, too."""

_K = TypeVar("_K")
_T = TypeVar("_T")


class Fanout:
    """Threads that ask servers. They ask one server each and never one another, so none waits for itself."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    def ask(self, questions: Mapping[_K, Callable[[], _T]]) -> dict[_K, _T | StoreError]:
        """Return each server's answer, or the error it ended with; the one question of one is asked here.

        Raises:
            StoreUnavailableError: `close` was called.
        """
        if len(questions) == 1:
            return {key: _answer(question) for key, question in questions.items()}
        try:
            asked = {key: self._threads.submit(_answer, question) for key, question in questions.items()}
        except RuntimeError as error:
            raise StoreUnavailableError("the store is no longer in use") from error
        return {key: future.result() for key, future in asked.items()}

    def close(self) -> None:
        """Take no more questions; those on their way end by themselves."""
        self._threads.shutdown(wait=False)


def most_telling(errors: Iterable[StoreError]) -> StoreError:
    """Choose the error to show of several (at least one): first what no waiting heals."""
    return min(errors, key=_patience)


def _patience(error: StoreError) -> int:
    if isinstance(error, StoreRefusedError):
        return 0
    return 2 if isinstance(error, StoreUnavailableError) else 1


def _answer(question: Callable[[], _T]) -> _T | StoreError:
    try:
        return question()
    except StoreError as error:
        return error
