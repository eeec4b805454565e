"""Measure what overlapping fetch, compute and shard writes saves on one run of three variants.

The run is ``batch_runner.run_local`` itself, as it is and with everything one after the other. The
variants are seeded models in local folders, so a fetch is the hashing of their weights; a download
from the hub is longer and hidden in the same way, but not measured here. Wall time, one compute
thread: the overlap needs a second core.

Writes: benchmarks/results/overlap.json

    uv run benchmarks/overlap.py
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import machine

machine.one_thread()

import torch  # noqa: E402

import artifacts  # noqa: E402
import batch_runner  # noqa: E402
import study  # noqa: E402
from benchmarks import models  # noqa: E402
from extraction import prefetch, runner, shard_writer  # noqa: E402

VARIANTS = ("first", "second", "third")
TEXTS, SHARD = 120, 32  # several shards a variant, as a full run has


def save_models(shape: str, folder: Path) -> study.Suite:
    """Save three copies of a seeded model with the mini suite's tokenizer; return their suite."""
    subject = models.build(shape)
    causal_lm: Any = subject.loaded.causal_lm
    causal_lm.resize_token_embeddings(len(subject.tokenizer))  # ids are not folded here
    variants = []
    for name in VARIANTS:
        causal_lm.save_pretrained(folder / name)
        subject.tokenizer.save_pretrained(folder / name)
        variants.append(study.Variant(name=name, role="base", path=str(folder / name)))
    mini = study.load_suite("mini")
    return study.Suite("overlap", mini.pivot, mini.languages, mini.corpus, tuple(variants))


def one_by_one(items: Sequence[Any], fetch: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Fetch every item only when its turn comes."""
    for item in items:
        yield item, fetch(item)


@contextlib.contextmanager
def nothing_overlaps() -> Iterator[None]:
    """Fetch, compute and write one after the other."""

    def at_once(self: shard_writer.ShardWriter, work: Callable[[], None]) -> None:
        work()

    with (
        mock.patch.object(prefetch, "one_ahead", one_by_one),
        mock.patch.object(shard_writer.ShardWriter, "_next", at_once),
    ):
        yield


def wall_seconds(manifest: artifacts.Manifest, around: Any) -> float:
    """Return the wall time of extracting every variant into a new folder."""
    with tempfile.TemporaryDirectory() as scratch, around:
        config: Any = mock.Mock(
            paths=study.RunPaths(Path(scratch)), options=runner.Options(device="cpu")
        )
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            started = time.perf_counter()
            variants = [manifest.suite.variant(name) for name in VARIANTS]
            batch_runner.run_local(config, manifest, variants)
            return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    args = machine.parser(
        "benchmarks/overlap.py", "Measure overlapping.", "overlap.json"
    ).parse_args(argv)
    torch.set_num_threads(1)
    rounds = args.rounds or (1 if args.quick else 2)
    seconds: dict[str, list[float]] = {"one after the other": [], "overlapped": []}
    with tempfile.TemporaryDirectory() as scratch:
        suite = save_models("tiny" if args.quick else "A", Path(scratch))
        texts = models.probes(12 if args.quick else TEXTS)
        manifest = artifacts.Manifest(suite, {"schema_version": study.SCHEMA_VERSION}, tuple(texts))
        with mock.patch.object(runner, "SHARD_STIMULI", SHARD):
            for number in range(rounds):
                for name in list(seconds)[:: 1 if number % 2 else -1]:
                    around = (
                        contextlib.nullcontext() if name == "overlapped" else nothing_overlaps()
                    )
                    seconds[name].append(wall_seconds(manifest, around))
    before, after = seconds["one after the other"], seconds["overlapped"]
    saved = [1 - b / a for a, b in zip(before, after, strict=True)]
    print(f"one after the other {before}, overlapped {after}: saved {saved}")
    data = {
        "what": f"{len(VARIANTS)} variants, {len(texts)} texts each, {SHARD} texts a shard",
        "machine": machine.describe("torch", "transformers") | {"threads": 1},
        "rounds": rounds,
        "wall_s": {name: machine.spread(values) for name, values in seconds.items()},
        "saved": machine.spread(saved),
    }
    machine.save(args, "overlap.json", data)
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run_stage("benchmarks/overlap.py", main))
