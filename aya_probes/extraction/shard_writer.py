"""Shards on their way to the disk: rounded and written beside the computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aya_probes.extraction import poolings, store
from aya_probes.extraction.encoding import Encoded


class ShardWriter:
    """Round packs and write shards in a second thread while the next pack is computed.

    At most one pack waits, so memory holds one shard (float16) and two packs (float32). An error
    of the thread is raised by the next call or on leaving the context. Shards are written in
    order: a killed run leaves whole ones, and the next run computes the rest.
    """

    def __init__(self, folder: Path, plan_sha256: str) -> None:
        self._folder, self._sha = folder, plan_sha256
        self._parts: list[dict[str, np.ndarray]] = []  # of the second thread alone
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard-writer")
        self._last: Future[None] | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, pack: Sequence[Encoded], pooled: np.ndarray, absmax: np.ndarray) -> None:
        """Add a pack's vectors (see ``packs.pool_pack``) to the shard."""
        self._next(lambda: self._parts.append(pack_tensors(pack, pooled, absmax)))

    def save(self, number: int) -> None:
        """End the shard and write it under ``number``."""
        self._next(lambda: self._write(number))

    def _write(self, number: int) -> None:
        tensors = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        self._parts.clear()
        store.save_shard(store.shard_path(self._folder, number), tensors, self._sha)

    def _next(self, work: Callable[[], None]) -> None:
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(work)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None and self._last is not None:
                self._last.result()
        finally:
            self._pool.shutdown(wait=True)


def pack_tensors(
    pack: Sequence[Encoded], pooled: np.ndarray, absmax: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a pack's part of each of a shard's tensors, rounded for storage."""
    every = pooled.transpose(1, 0, 2, 3)  # [text, layer, pooling, hidden]
    has_span = np.array([bool(item.span) for item in pack])
    tensors = {"absmax": absmax.T.astype(np.float32)}
    for kind, (name, pooling) in enumerate(poolings.BY_NAME.items()):
        chosen = every[has_span, :, kind] if pooling.needs_span else every[:, :, kind]
        tensors[name], tensors[f"{name}.exponent"] = store.to_float16(chosen)
    return tensors
