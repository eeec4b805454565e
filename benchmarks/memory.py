"""Peak memory of the full Tiny Aya shape (3.35B parameters), with random weights made on the fly.

Writes a model folder of 6.7 GB into a temporary folder, extracts a few texts from it with the
command line that users type, and reads the peak from the operating system. The numbers of the
vectors mean nothing; shapes, dtype, loading and packing are the real ones.

    uv run benchmarks/memory.py --work-dir DIR          # 7 GB of disk, some minutes
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from aya_probes import project
from aya_probes.planted.tiny import byte_tokenizer, write_study

PAGE = project.ROOT / "docs" / "memory.md"
PARAMETERS = 3_349_227_520
SHAPE: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "intermediate_size": 11_008,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "sliding_window": 4096,
    "logit_scale": 1.0,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
SHARD_BYTES = 2_000_000_000
LIMIT_GIB = 9.0


def make_model(folder: Path) -> int:
    """Write random bf16 weights of the full shape, shard by shard; returns the parameters."""
    config = AutoConfig.for_model("cohere2", **SHAPE, dtype="bfloat16")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    block = torch.empty(1 << 22).normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    block = block.to(torch.bfloat16)
    shards: list[dict[str, torch.Tensor]] = [{}]
    weight_map, room = {}, SHARD_BYTES
    folder.mkdir(parents=True)
    for name, parameter in model.named_parameters():  # a tied head is listed once
        size = parameter.numel() * 2
        if size > room and shards[-1]:
            save_file(shards[-1], folder / f"model-{len(shards):05d}.safetensors", {"format": "pt"})
            shards[-1] = {}
            shards.append({})
            room = SHARD_BYTES
        repeats = -(-parameter.numel() // block.numel())
        values = block.repeat(repeats)[: parameter.numel()].reshape(parameter.shape)
        shards[-1][name] = torch.ones_like(values) if "norm" in name else values
        weight_map[name] = f"model-{len(shards):05d}.safetensors"
        room -= size
    save_file(shards[-1], folder / f"model-{len(shards):05d}.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": count * 2}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return count


def measure(work: Path, dtype: str) -> dict[str, float]:
    """Build stimuli and extract in child processes; returns seconds and peak GiB."""
    suite = write_study(work, {"base": {"path": "model", "role": "base"}})
    run = ["--run-dir", str(work / "run")]
    stages = [
        ["build_stimuli.py", "--suite", str(suite), *run, "--limit", "10"],
        ["batch_runner.py", "--local", *run, "--device", "cpu", "--dtype", dtype],
    ]
    seconds = 0.0
    for stage in stages:
        started = time.monotonic()
        subprocess.run([sys.executable, str(project.ROOT / stage[0]), *stage[1:]], check=True)
        seconds = time.monotonic() - started
    tokens = json.loads((work / "run/activations/base/tokens.json").read_text("utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # kB on Linux
    return {
        "seconds": seconds,
        "peak": peak,
        "texts": len(tokens),
        "tokens": sum(len(entry["token_ids"]) for entry in tokens.values()),
    }


def page(dtype: str, found: dict[str, float], count: int) -> str:
    """Return the text of docs/memory.md."""
    peak = f"{found['peak']:.2f} GiB" + ("" if found["peak"] <= LIMIT_GIB else " (ABOVE)")
    texts = f"{found['texts']:.0f} | {found['tokens']:,.0f} | {found['seconds']:.0f} s"
    return f"""# Memory of the full Tiny Aya shape

This page is written by `uv run benchmarks/memory.py --work-dir DIR`. The model has {count:,}
random parameters in the published shape (36 blocks, hidden size 2048, vocabulary 262,144), and
`batch_runner.py --local` extracts its activations.

| device | dtype | peak resident memory | limit | texts | tokens | wall time |
| --- | --- | --- | --- | --- | --- | --- |
| CPU, {platform.machine()} | {dtype} | {peak} | {LIMIT_GIB:.0f} GiB | {texts} |
| GPU | bf16 | not measured | 12 GiB | | | |

The peak is the one that the operating system reports for the whole process (`ru_maxrss`). It
includes the weights (6.24 GiB in bf16), the libraries, and the buffers of packing and pooling.
The weights are memory-mapped, so rows of the embedding matrix that no text uses are never read.
The wall time covers start-up, hashing and loading 6.7 GB, the self-check and the texts. Other
jobs ran on the machine, so it does not measure speed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Make the model, measure, write the page; returns 1 if the peak is above the limit."""
    parser = argparse.ArgumentParser(description="Peak memory of the full Tiny Aya shape.")
    parser.add_argument("--work-dir", type=Path, help="where 7 GB may be written for a while")
    parser.add_argument("--dtype", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--output", type=Path, default=PAGE, help="default docs/memory.md")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.work_dir) as name:
        # In a child: its memory must not count as the extraction's.
        code = (
            "import pathlib, sys; from benchmarks import memory; "
            "print(memory.make_model(pathlib.Path(sys.argv[1])))"
        )
        made = subprocess.Popen(
            [sys.executable, "-c", code, str(Path(name) / "model")],
            cwd=project.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        out, _ = made.communicate()
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        if made.returncode:
            return int(made.returncode)
        count = int(out.split()[-1])
        if count != PARAMETERS:
            print(f"the shape has {count:,} parameters, published are {PARAMETERS:,}")
            return 1
        found = measure(Path(name), args.dtype)
    if found["peak"] <= before:
        print(f"making the weights took {before:.2f} GiB, more than the extraction: no measure")
        return 1
    args.output.write_text(page(args.dtype, found, count), encoding="utf-8")
    print(f"peak {found['peak']:.2f} GiB, {found['seconds']:.0f} s ({args.output})")
    return 0 if found["peak"] <= LIMIT_GIB else 1


if __name__ == "__main__":
    sys.exit(main())
