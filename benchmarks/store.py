"""Measure the activation store beside plain npy files and one npz a text.

The same pooled vectors of suite mini's shape, written and read three ways. Ours rounds with an
exponent a vector, hashes, fsyncs and renames; the others do what one writes first: ``astype`` to
float16 and ``numpy.save``. Wall time, because disks are part of it; files are in the page cache
when read.

Writes: benchmarks/results/store.json

    uv run benchmarks/store.py
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine

machine.one_thread()

import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402

import study  # noqa: E402
from extraction import store  # noqa: E402

ROWS, HIDDEN = 20, 640  # suite mini: 18 blocks, row 0, final norm
TEXTS, SHARD = 768, 256
LAYER = 12
PLAN = "0" * 64  # the hash of a plan; its content is no matter here


def vectors(texts: int) -> dict[str, np.ndarray]:
    """Return seeded vectors by pooling, ``[text, row, hidden]`` float32."""
    draw = np.random.default_rng([study.SEED, 12])
    return {
        name: draw.standard_normal((texts, ROWS, HIDDEN), dtype=np.float32)
        for name in study.POOLINGS
    }


class Shards:
    """The store of the pipeline."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, data: dict[str, np.ndarray]) -> None:
        """Write every text, a shard at a time."""
        texts = len(next(iter(data.values())))
        for number, start in enumerate(range(0, texts, SHARD)):
            tensors: dict[str, np.ndarray] = {}
            for name, values in data.items():
                part = values[start : start + SHARD]
                tensors[name], tensors[f"{name}.exponent"] = store.to_float16(part)
                tensors["absmax"] = np.abs(part).max(axis=-1)
            store.save_shard(store.shard_path(self._folder, number), tensors, PLAN)

    def read(self, pooling: str) -> np.ndarray:
        """Read a pooling of every text, hashes checked."""
        shards = (store.read_shard(path, PLAN) for path in sorted(self._folder.iterdir()))
        return np.concatenate(
            [store.from_float16(s[pooling], s[f"{pooling}.exponent"]) for s in shards]
        )

    def read_row(self, pooling: str, row: int) -> np.ndarray:
        """Read one row of a pooling: only its bytes, so without the hash."""
        parts = []
        for path in sorted(self._folder.iterdir()):
            with safe_open(path, framework="numpy") as shard:
                stored = shard.get_slice(pooling)[:, row : row + 1]
                exponents = shard.get_slice(f"{pooling}.exponent")[:, row : row + 1]
            parts.append(store.from_float16(stored, exponents)[:, 0])
        return np.concatenate(parts)


class Npy:
    """One float16 npy a pooling."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, data: dict[str, np.ndarray]) -> None:
        """Write every pooling."""
        for name, values in data.items():
            np.save(self._folder / f"{name}.npy", values.astype(np.float16))

    def read(self, pooling: str) -> np.ndarray:
        """Read a pooling of every text."""
        values: np.ndarray = np.load(self._folder / f"{pooling}.npy").astype(np.float32)
        return values

    def read_row(self, pooling: str, row: int) -> np.ndarray:
        """Read one row through a memory map."""
        mapped = np.load(self._folder / f"{pooling}.npy", mmap_mode="r")
        values: np.ndarray = mapped[:, row].astype(np.float32)
        return values


class NpzPerText:
    """One npz a text with its poolings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, data: dict[str, np.ndarray]) -> None:
        """Write every text."""
        for text in range(len(next(iter(data.values())))):
            arrays = {name: values[text].astype(np.float16) for name, values in data.items()}
            np.savez(self._folder / f"{text:05d}.npz", **arrays)

    def read(self, pooling: str) -> np.ndarray:
        """Read a pooling of every text."""
        parts = []
        for path in sorted(self._folder.iterdir()):
            with np.load(path) as one:
                parts.append(one[pooling].astype(np.float32))
        return np.stack(parts)

    def read_row(self, pooling: str, row: int) -> np.ndarray:
        """Read one row: npz gives whole arrays."""
        return self.read(pooling)[:, row]


WAYS: dict[str, Callable[[Path], Any]] = {"ours": Shards, "npy": Npy, "npz a text": NpzPerText}


def measure(texts: int, rounds: int) -> dict[str, Any]:
    """Time every way in every round and compare what comes back with what went in."""
    data = vectors(texts)
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"write": [], "read": [], "read_row": []} for name in WAYS
    }
    out: dict[str, dict[str, Any]] = {name: {} for name in WAYS}
    wanted = data["content_mean"]
    for number in range(rounds):
        names = list(WAYS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory() as scratch:
                way, folder = WAYS[name](Path(scratch)), Path(scratch)
                taken, found = seconds[name], list[np.ndarray]()
                taken["write"].append(_wall(functools.partial(way.write, data)))
                taken["read"].append(_wall(functools.partial(_read, way, found)))
                taken["read_row"].append(
                    _wall(functools.partial(way.read_row, "content_mean", LAYER))
                )
                row = way.read_row("content_mean", LAYER)
                out[name]["disk_mb"] = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
                out[name]["relative_error"] = float(
                    (np.abs(found[0] - wanted).max(-1) / np.abs(wanted).max(-1)).max()
                )
                assert np.array_equal(row, found[0][:, LAYER])
    for name, taken in seconds.items():
        out[name]["wall_s"] = {what: machine.spread(values) for what, values in taken.items()}
        out[name]["of_ours"] = {
            what: machine.spread(
                [a / b for a, b in zip(values, seconds["ours"][what], strict=True)]
            )
            for what, values in taken.items()
        }
    return out


def _read(way: Any, found: list[np.ndarray]) -> None:
    found.append(way.read("content_mean"))


def _wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    args = machine.parser(
        "benchmarks/store.py", "Measure the activation store.", "store.json"
    ).parse_args(argv)
    rounds = args.rounds or (1 if args.quick else 7)
    texts = 40 if args.quick else TEXTS
    ways = measure(texts, rounds)
    for name, way in ways.items():
        shown = "  ".join(
            f"{what} {way['wall_s'][what]['median'] * 1e3:7.1f} ms "
            f"({way['of_ours'][what]['median']:.2f} x ours)"
            for what in way["wall_s"]
        )
        print(f"{name:<12} {way['disk_mb']:6.1f} MB  {shown}")
    machine.save(
        args,
        "store.json",
        {
            "machine": machine.describe("numpy", "safetensors"),
            "rounds": rounds,
            "texts": texts,
            "shape": {"rows": ROWS, "hidden": HIDDEN, "poolings": len(study.POOLINGS)},
            "ways": ways,
        },
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run_stage("benchmarks/store.py", main))
