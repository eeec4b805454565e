"""Fetch the next variant's files while the current one computes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Fetch(Generic[Result]):
    """One fetch in a thread of its own, which does not keep the process alive."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:
            self._error = error

    def result(self) -> Result:
        """Wait for the fetch; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]


def one_ahead(
    items: Sequence[Item], fetch: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Yield every item with ``fetch(item)``; the next item's fetch runs while one is in use.

    Only one is fetched ahead, so at most two variants' files are new on disk when a run stops. A
    failed fetch is raised when its item is reached, so that earlier items still finish.
    """
    ahead: _Fetch[Result] | None = None
    for number, item in enumerate(items):
        result = ahead.result() if ahead is not None else fetch(item)
        following = items[number + 1 : number + 2]
        ahead = _Fetch(functools.partial(fetch, following[0])) if following else None
        yield item, result
