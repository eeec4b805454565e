"""Measure the parts that the extraction's speed comes from, on the shape of one layer of A.

How fast the weight matrices run by the number of tokens; attention of a packed row, cut at the
texts against the library's mask; pooling as a sum over few tokens against a matrix product. One
thread, CPU time, the two sides interleaved.

Writes: benchmarks/results/parts.json

    uv run benchmarks/parts.py
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import machine

machine.one_thread()

import torch  # noqa: E402
from torch.nn.functional import embedding_bag, linear, scaled_dot_product_attention  # noqa: E402

import study  # noqa: E402
from extraction import packed_attention  # noqa: E402

HIDDEN, FFN, HEADS = 512, 2048, 8
ROW = 512  # tokens of a pack
SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
LENGTHS = (4, 15, 40)  # tokens a text
POOLINGS = len(study.POOLINGS)


def compare(sides: dict[str, Callable[[], object]], rounds: int, repeat: int) -> dict[str, Any]:
    """Time the sides in turn; return each one's seconds and the last's over the first's."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()  # warm-up
    for _ in range(rounds):
        for name, work in sides.items():
            many = machine.cpu_seconds(lambda work=work: [work() for _ in range(repeat)])  # type: ignore[misc]
            seconds[name].append(many / repeat)
    first, last = (seconds[name] for name in (next(iter(sides)), list(sides)[-1]))
    return {
        "cpu_s": {name: machine.spread(values) for name, values in seconds.items()},
        "ratio": machine.spread([b / a for a, b in zip(first, last, strict=True)]),
    }


def rates(rounds: int) -> dict[str, dict[str, Any]]:
    """Return GFLOP/s of a layer's matrices by the number of tokens, and the share of 512's."""
    shapes = [(HIDDEN, HIDDEN)] * 4 + [(FFN, HIDDEN)] * 2 + [(HIDDEN, FFN)]
    weights = [torch.randn(shape) for shape in shapes]
    flop = sum(2 * out * into for out, into in shapes)
    out: dict[str, dict[str, Any]] = {}

    def layer(tokens: int, inputs: dict[int, torch.Tensor]) -> None:
        for weight in weights:
            linear(inputs[weight.shape[1]], weight)

    for tokens in SIZES:
        inputs = {width: torch.randn(tokens, width) for width in (HIDDEN, FFN)}
        work = functools.partial(layer, tokens, inputs)
        repeat = max(1, 1024 // tokens)
        seconds = compare({"layer": work}, rounds, repeat)["cpu_s"]["layer"]
        rate = {key: tokens * flop / seconds[key] / 1e9 for key in ("min", "median", "max")}
        out[str(tokens)] = machine.spread([rate["max"], rate["median"], rate["min"]])
    return out


def attention(length: int, rounds: int, repeat: int) -> dict[str, Any]:
    """Compare attention of a packed row: cut at the texts, and under the library's mask."""
    texts = ROW // length
    tokens = texts * length
    query, key, value = (
        torch.randn(1, tokens, HEADS, HIDDEN // HEADS).transpose(1, 2) for _ in "qkv"
    )
    owner = torch.arange(tokens) // length
    mask = (owner[:, None] == owner) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    module = torch.nn.Module()

    def cut() -> object:
        token = packed_attention._runs.set(((texts, length),))
        try:
            return packed_attention._forward(module, query, key, value, None)
        finally:
            packed_attention._runs.reset(token)

    def masked() -> object:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask[None, None])

    return compare({"cut at the texts": cut, "one mask": masked}, rounds, repeat)


def pooling(length: int, rounds: int, repeat: int) -> dict[str, Any]:
    """Compare pooling: sums over the tokens of each pooling, and one matrix product."""
    texts = ROW // length
    hidden = torch.randn(texts * length, HIDDEN)
    bags = [
        [text * length + position for position in positions]
        for text in range(texts)
        for positions in (
            range(1, 3), range(1, max(2, length - 1)), [max(0, length - 2)], [length - 1]
        )
    ]  # fmt: skip
    chosen = torch.tensor([position for bag in bags for position in bag])
    weights = torch.tensor([1 / len(bag) for bag in bags for _ in bag])
    first = torch.tensor([0, *torch.tensor([len(bag) for bag in bags]).cumsum(0)[:-1].tolist()])
    matrix = torch.zeros(texts * POOLINGS, len(hidden))
    for row, bag in enumerate(bags):
        matrix[row, bag] = 1 / len(bag)

    def sums() -> torch.Tensor:
        return embedding_bag(chosen, hidden, first, mode="sum", per_sample_weights=weights)

    def product() -> torch.Tensor:
        return matrix @ hidden

    torch.testing.assert_close(sums(), product(), rtol=1e-4, atol=1e-5)
    return compare({"sums": sums, "matrix product": product}, rounds, repeat)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    args = machine.parser(
        "benchmarks/parts.py", "Measure the parts of the extraction.", "parts.json"
    ).parse_args(argv)
    torch.set_num_threads(1)
    rounds = args.rounds or (1 if args.quick else 7)
    repeat = 1 if args.quick else 10
    with torch.inference_mode():
        data: dict[str, Any] = {
            "machine": machine.describe("torch") | {"threads": 1},
            "rounds": rounds,
            "rates": rates(rounds),
            "attention": {str(n): attention(n, rounds, repeat) for n in LENGTHS},
            "pooling": {str(n): pooling(n, rounds, repeat) for n in LENGTHS},
        }
    for tokens, rate in data["rates"].items():
        print(f"{tokens:>5} tokens: {rate['median']:6.1f} GFLOP/s")
    for part in ("attention", "pooling"):
        for length, found in data[part].items():
            print(f"{part}, texts of {length}: {found['ratio']['median']:.1f} x less")
    machine.save(args, "parts.json", data)
    return 0


if __name__ == "__main__":
    raise SystemExit(study.run_stage("benchmarks/parts.py", main))
