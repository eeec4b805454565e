"""Measure extraction on a GPU: the full Tiny Aya shape (3.35B random weights) over a real manifest.

Per variant: seconds cold (hash, load, self-check, extract, as ``batch_runner.py`` does) and warm
(extract again with the model loaded), tokens a second, share of the matrix rate measured in the
same run, peak memory of the device; and the smallest cosine of its float32 vectors with the CPU's.
The texts are the committed probes and perturbations with CLDR names, or the study's FLORES
sentences, in the embedded suite's tokenizer (the same vocabulary size). ``--device cpu --quick``
shows anywhere that it runs.

Writes: benchmarks/results/gpu.json

    uv run benchmarks/gpu.py --work-dir DIR --flores-dir PATH          # 9 GB of disk
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import machine
import memory
import models
from aya_probes import command_line, project, run_folder, stimuli, suites
from aya_probes.errors import StudyError
from aya_probes.extraction import packs, runner
from aya_probes.extraction.encoding import encode
from aya_probes.models import loading, residuals

CHECKED = 20  # texts compared with the CPU in float32, which takes minutes at the full size
VARIANTS, SENTENCES = 3, 200  # of the job that the bar is set on


def wall_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of ``work``, the device's queue emptied before and after."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def make_model(folder: Path, *, quick: bool) -> None:
    """Write a random model, of the published shape or tiny, with the mini suite's tokenizer."""
    source = models.mini_folder()
    if quick:
        subject = models.build("tiny")
        whole: Any = subject.loaded.causal_lm
        whole.resize_token_embeddings(len(subject.tokenizer))
        whole.save_pretrained(folder)
    else:
        memory.make_model(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)


def manifest_of(folder: Path, model: Path, corpus: Sequence[str]) -> stimuli.Manifest:
    """Build the committed stimuli and a parallel corpus for a suite of the one model."""
    text = (suites.SUITE_DIR / "mini.toml").read_text("utf-8")
    text = text[: text.index("[variants")].replace('"../', f'"{project.ROOT / "data"}/')
    suite = folder / "gpu.toml"
    suite.write_text(f'{text}\n[variants.base]\npath = "{model}"\nrole = "base"\n', "utf-8")
    flags = ["--suite", str(suite), "--run-dir", str(folder / "run")]
    stage = [sys.executable, str(project.ROOT / "build_stimuli.py"), *flags, *corpus]
    if subprocess.run(stage, stdout=subprocess.DEVNULL, check=False).returncode:
        raise StudyError("the stimuli could not be built")
    return stimuli.load_manifest(run_folder.RunPaths(folder / "run").manifest)


def gemm_flop_per_s(loaded: residuals.LoadedModel, tokens: int) -> float:
    """Return the device's rate on the decoder's own matrices and nothing else."""
    layers = models.linear_layers(loaded.decoder)
    flop = sum(2 * tokens * layer.weight.numel() for layer in layers)
    inputs = {
        size: torch.randn(tokens, size, device=loaded.device, dtype=loaded.dtype)
        for size in {layer.in_features for layer in layers}
    }

    def products() -> None:
        with torch.inference_mode():
            for layer in layers:
                torch.nn.functional.linear(inputs[layer.in_features], layer.weight)

    products()
    return flop / min(wall_seconds(products, loaded.device) for _ in range(3))


def parity(variant: suites.Variant, manifest: stimuli.Manifest, device: torch.device) -> float:
    """Return the smallest cosine of a float32 vector on the device with the CPU's."""
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)
    step = max(1, len(manifest.stimuli) // CHECKED)
    texts = [encode(loaded.tokenizer, s) for s in manifest.stimuli[::step][:CHECKED]]
    here = packs.one_by_one(loaded, texts, variant.name)
    with residuals.on_device(loaded, device):
        there, _ = packs.finite_pool(loaded, texts, variant.name, packed=True)
    norms = np.linalg.norm(here, axis=-1) * np.linalg.norm(there, axis=-1)
    return float(((here * there).sum(-1)[norms > 0] / norms[norms > 0]).min())


def measure(
    work: Path, device: torch.device, corpus: Sequence[str], *, quick: bool, rounds: int
) -> dict[str, Any]:
    """Extract with a cold and a warm model; return the numbers."""
    make_model(work / "model", quick=quick)
    manifest = manifest_of(work, work / "model", corpus)
    variant = manifest.suite.variant("base")
    options = runner.Options(device=device.type, dtype="bf16", overwrite=True)
    job = runner.Job(manifest, variant, work / "activations", options)
    counted: list[int] = []
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    cold = wall_seconds(lambda: runner.extract(job, progress=counted.append), device)
    peak = round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None
    tokens = sum(counted)
    found = {
        "texts": len(manifest.stimuli),
        "tokens": tokens,
        "cold_s": round(cold, 2),
        "peak_gib": peak,
        **_warm(job, device, tokens, rounds),
    }
    if cuda:
        torch.cuda.empty_cache()
    return found | {"parity_cosine": parity(variant, manifest, device)}


def _warm(job: runner.Job, device: torch.device, tokens: int, rounds: int) -> dict[str, Any]:
    source = loading.resolve_source(job.variant)
    loaded = loading.load_variant(job.variant, source, device=device, dtype=torch.bfloat16)
    seconds = [
        wall_seconds(lambda: runner.extract_loaded(job, loaded, source.identity), device)
        for _ in range(rounds)
    ]
    flop = sum(2 * layer.weight.numel() for layer in models.linear_layers(loaded.decoder))
    rate = gemm_flop_per_s(loaded, runner.TOKEN_BUDGET[device.type])
    return {
        "warm_s": machine.spread(seconds),
        "job_s": machine.spread([VARIANTS * value for value in seconds]),
        "tokens_per_s": machine.spread([tokens / value for value in seconds]),
        "gemm_tflop_per_s": rate / 1e12,
        "share_of_gemm": machine.spread([tokens * flop / value / rate for value in seconds]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    parser = machine.parser("benchmarks/gpu.py", "Measure extraction on a GPU.", "gpu.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--work-dir", type=Path, help="where 9 GB may be written for a while")
    parser.add_argument("--flores-dir", metavar="PATH", help="FLORES-200 folder (default: CLDR)")
    args = parser.parse_args(argv)
    limit = ["--limit", "5" if args.quick else str(SENTENCES)]
    corpus = ["--corpus", "flores", "--flores-dir", args.flores_dir] if args.flores_dir else []
    device, _ = loading.choose_device(args.device)
    with tempfile.TemporaryDirectory(dir=args.work_dir) as name:
        rounds = args.rounds or (1 if args.quick else 5)
        found = measure(Path(name), device, [*corpus, *limit], quick=args.quick, rounds=rounds)
    for field, value in found.items():
        print(f"{field:<18} {value}")
    if device.type != "cuda" and args.out is None:
        print("not a GPU: not saved")
        return 0
    card = torch.cuda.get_device_name(0) if device.type == "cuda" else "CPU"
    data = {"machine": machine.describe("torch", "transformers"), "device": card, **found}
    machine.save(args, "gpu.json", data)
    return 0


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/gpu.py", main))
