"""Poolings: which tokens of a text a stored vector averages. A new one is a line of the table.

A new pooling changes what a shard holds: raise EXTRACTION_VERSION with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aya_probes.extraction.encoding import Encoded


@dataclass(frozen=True)
class Pooling:
    """One way to average the tokens of a text."""

    name: str
    """Its name in shards, results and flags."""
    positions: Callable[[Encoded], Sequence[int]]
    """Return the positions of the tokens that it averages."""
    needs_span: bool = False
    """Whether only texts with a span have it."""


BY_NAME = {
    pooling.name: pooling
    for pooling in (
        Pooling("span_mean", lambda text: text.span, needs_span=True),
        Pooling("content_mean", lambda text: text.content),
        Pooling("last_content", lambda text: text.content[-1:]),
        Pooling("last", lambda text: [text.last]),
    )
}
POOLINGS = tuple(BY_NAME)
