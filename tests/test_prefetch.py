"""The next variant's files are fetched while one computes, in order, errors at their turn."""

from __future__ import annotations

import threading

import pytest

from aya_probes import errors
from aya_probes.extraction import prefetch


def test_the_next_fetch_runs_while_an_item_is_in_use() -> None:
    begun = {name: threading.Event() for name in "abc"}
    use = threading.Event()

    def fetch(name: str) -> str:
        begun[name].set()
        if name != "a":
            assert use.wait(10)
        return name.upper()

    ahead = prefetch.one_ahead("abc", fetch)
    assert next(ahead) == ("a", "A")
    assert begun["b"].wait(10)  # although nobody has asked for it yet
    assert not begun["c"].is_set()  # one ahead, not all
    use.set()
    assert list(ahead) == [("b", "B"), ("c", "C")]


def test_a_failed_fetch_raises_at_its_turn() -> None:
    def fetch(name: str) -> str:
        if name == "b":
            raise errors.StudyError("b is gated")
        return name

    ahead = prefetch.one_ahead("ab", fetch)
    assert next(ahead) == ("a", "a")
    with pytest.raises(errors.StudyError, match="b is gated"):
        next(ahead)


def test_nothing_to_do_fetches_nothing() -> None:
    assert list(prefetch.one_ahead([], lambda item: pytest.fail("fetched"))) == []
