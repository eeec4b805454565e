"""Measure what overlapping download, compute and shard writes saves on one run of three variants.

The run is ``batch_runner.run_local`` in a process of its own, as it is and with everything one
after the other, the two in turn. The variants are seeded models on the loopback hub of the tests,
which sends at a given rate from a process of its own: every run downloads them into an empty cache.
Wall time, one compute thread: the overlap needs a second core.

Writes: benchmarks/results/overlap.json

    uv run benchmarks/overlap.py
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import artifacts
import study
from benchmarks import machine

VARIANTS = ("first", "second", "third")
TEXTS, SHARD = 60, 16  # several shards a variant, as a full run has
MB_PER_S = 25.0  # 200 Mbit/s
WAYS = ("one after the other", "overlapped")
CHILD = "from benchmarks import overlap; import sys; overlap.child(sys.argv[1], sys.argv[2])"


def save_model(shape: str, folder: Path) -> int:
    """Save a seeded model with the tests' byte tokenizer; returns the bytes of its weights."""
    from benchmarks import models
    from tests.conftest import byte_tokenizer

    tokenizer = byte_tokenizer()
    causal_lm: Any = models.build(shape, tokenizer).loaded.causal_lm
    causal_lm.resize_token_embeddings(len(tokenizer))
    causal_lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def serve(folder: str, rate: float, pipe: Connection) -> None:
    """Serve the model under every variant's name until the other side says so."""
    from tests import loopback_hub

    with loopback_hub.serve() as hub:
        hub.bytes_per_s = rate
        hub.repos |= {f"o/{name}": loopback_hub.Repo(Path(folder)) for name in VARIANTS}
        pipe.send(hub.url)
        pipe.recv()


def one_by_one(items: Sequence[Any], fetch: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """Fetch every item only when its turn comes."""
    for item in items:
        yield item, fetch(item)


@contextlib.contextmanager
def nothing_overlaps() -> Iterator[None]:
    """Fetch, compute and write one after the other."""
    from extraction import prefetch, shard_writer

    def at_once(self: shard_writer.ShardWriter, work: Callable[[], None]) -> None:
        work()

    with (
        mock.patch.object(prefetch, "one_ahead", one_by_one),
        mock.patch.object(shard_writer.ShardWriter, "_next", at_once),
    ):
        yield


def child(way: str, folder: str) -> None:
    """Extract every variant into ``folder`` and print the wall seconds, imports aside."""
    import torch

    import batch_runner
    import model_loader  # noqa: F401  (its imports are not timed)
    from extraction import runner

    torch.set_num_threads(1)
    paths = study.RunPaths(Path(folder))
    manifest = artifacts.load_manifest(paths.manifest)
    config: Any = mock.Mock(paths=paths, options=runner.Options(device="cpu"))
    around = contextlib.nullcontext() if way == "overlapped" else nothing_overlaps()
    variants = [manifest.suite.variant(name) for name in VARIANTS]
    with around, mock.patch.object(runner, "SHARD_STIMULI", SHARD):
        started = time.perf_counter()
        batch_runner.run_local(config, manifest, variants)
        print(f"\n{time.perf_counter() - started}")


def wall_seconds(way: str, manifest: artifacts.Manifest, endpoint: str) -> float:
    """Return the wall time of one run with an empty cache."""
    from tests import loopback_hub

    with tempfile.TemporaryDirectory() as scratch:
        artifacts.save_manifest(study.RunPaths(Path(scratch)).manifest, manifest)
        environment = loopback_hub.client_environment(endpoint, Path(scratch) / "hf")
        done = subprocess.run(
            [sys.executable, "-c", CHILD, way, scratch], cwd=study.ROOT, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise study.StudyError(f"{way}: {done.stderr.strip().splitlines()[-1:]}")
        return float(json.loads(done.stdout.strip().splitlines()[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    args = machine.parser(
        "benchmarks/overlap.py", "Measure overlapping.", "overlap.json"
    ).parse_args(argv)
    from benchmarks import models

    rounds = args.rounds or (1 if args.quick else 3)
    texts = models.probes(6 if args.quick else TEXTS)
    variants = tuple(study.Variant(name, "base", repo=f"o/{name}") for name in VARIANTS)
    mini = study.load_suite("mini")
    suite = study.Suite("overlap", mini.pivot, mini.languages, mini.corpus, variants)
    manifest = artifacts.Manifest(suite, {"schema_version": study.SCHEMA_VERSION}, tuple(texts))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        size = save_model("tiny" if args.quick else "A", Path(scratch))
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        hub = context.Process(target=serve, args=(scratch, MB_PER_S * 1e6, there))
        hub.start()
        there.close()  # else a hub that dies would be waited for
        try:
            endpoint = here.recv()
            for number in range(rounds):
                for way in WAYS[:: 1 if number % 2 else -1]:
                    seconds[way].append(wall_seconds(way, manifest, endpoint))
        finally:
            here.send("stop")
            hub.join()
    before, after = (seconds[way] for way in WAYS)
    saved = [1 - b / a for a, b in zip(before, after, strict=True)]
    print(f"{seconds}: saved {saved}")
    data = {
        "what": f"{len(VARIANTS)} variants of {size / 1e6:.0f} MB from a hub that sends "
        f"{MB_PER_S:.0f} MB/s, {len(texts)} texts each, {SHARD} texts a shard",
        "machine": machine.describe("torch", "transformers", "huggingface_hub") | {"threads": 1},
        "rounds": rounds,
        "wall_s": {name: machine.spread(values) for name, values in seconds.items()},
        "saved": machine.spread(saved),
    }
    machine.save(args, "overlap.json", data)
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run_stage("benchmarks/overlap.py", main))
