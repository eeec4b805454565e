"""Measure concept patching beside hooks of one's own, nnsight and TransformerLens.

The same work for all: word translations with five shots are patched at the concept's word, at every
layer and at all layers above, with several vectors a prompt, and give the log-probabilities of the
next token. Ways that batch run the rows of equal length together, one forward a layer; all take
the same rows. A seeded random model, one thread, CPU time, the ways interleaved in every round; a
token is one of the work's prompts, patches and layers, whether a way computes it or not. A peer
that is not installed, fails, or gives other log-probabilities is skipped with the reason.

Reads:  data/concept_probes.json, data/prompts.toml
Writes: benchmarks/results/patching.json

    uv run --group bench benchmarks/patching.py
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import machine
import models
from aya_probes import command_line, errors, probes, project, prompts
from aya_probes.patching import design, engine
from aya_probes.patching.engine import Plan, Prompt, Setup
from aya_probes.prompts import Cell
from models import Subject
from peers import Skip

ROUNDS = 3
PROMPTS, PATCHES = 8, 6  # of a case; six vectors a prompt, as for six source languages
CLOSE = 1e-3  # nats, of log-probabilities
ROWS = 32  # rows of the peers' batches

Run = Callable[[], torch.Tensor]
"""Does the work; returns log-probabilities ``[prompt, patch, layer, token]``."""


@dataclass(frozen=True)
class Case:
    """The work: prompts, and what is put into each."""

    subject: Subject
    asked: Sequence[Prompt]
    vectors: torch.Tensor
    """``[prompt, patch, layer, hidden]``."""

    @property
    def layers(self) -> range:
        """The layers at which a patch starts."""
        return range(self.subject.loaded.n_blocks)

    @property
    def tokens(self) -> int:
        """Tokens of all prompts, patches and layers."""
        each = sum(len(prompt.token_ids) for prompt in self.asked)
        return each * self.vectors.shape[1] * len(self.layers)


def make_case(subject: Subject, count: int, patches: int) -> Case:
    """Return translations from French into English, patched with what other prompts hold."""
    concepts = probes.load_probes(project.ROOT / "data" / "concept_probes.json")
    frames = prompts.load_prompts(prompts.DEFAULT_PATH, ("en", "fr"))
    queries, _ = design.one_a_concept(
        frames, concepts, Cell("translation", "fr", "en"), shots=prompts.SHOTS, seed=project.SEED
    )
    asked = design.tokenise(subject.loaded, queries[:count]).prompts
    own = engine.capture(Setup(subject.loaded, "alone"), asked)
    return Case(subject, asked, torch.stack([own.roll(n, 0) for n in range(patches)], dim=1))


def log_p(logits: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of the next token."""
    return torch.log_softmax(logits, dim=-1)


def ours(case: Case, way: engine.Way = "cached") -> Run:
    """Return the stage's own engine; what it keeps of shared shots is computed anew each time."""
    run = functools.partial(
        engine.patched, prompts=case.asked, vectors=case.vectors, read=log_p, layers=case.layers
    )
    return lambda: run(Setup(case.subject.loaded, way), onward=True)


def _batches(case: Case) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor, Plan]]:
    """Yield rows of equal length and position: (prompt, patch), tokens, and what is put in."""
    plain = [Prompt(p.token_ids, p.position) for p in case.asked]
    for group in engine.groups(plain):
        pairs = [(n, c) for n in group for c in range(case.vectors.shape[1])]
        for start in range(0, len(pairs), ROWS):
            part = pairs[start : start + ROWS]
            ids = torch.tensor([plain[n].token_ids for n, _ in part])
            chosen = torch.stack([case.vectors[n, c] for n, c in part])
            yield part, ids, Plan(tuple(case.layers), True, chosen, plain[group[0]].position)


Forward = Callable[[torch.Tensor, Plan, int], torch.Tensor]
"""Runs tokens with a plan that starts at a layer; returns logits ``[row, token]``."""


def batched(case: Case, forward: Forward) -> Run:
    """Return the work as whole prompts: one forward a batch and layer."""

    def run() -> torch.Tensor:
        out: dict[tuple[int, int], torch.Tensor] = {}
        for part, ids, plan in _batches(case):
            found = [log_p(forward(ids, plan, layer)) for layer in case.layers]
            out.update(zip(part, torch.stack(found, dim=1), strict=True))
        shape = case.vectors.shape[:2]
        rows = [torch.stack([out[n, c] for c in range(shape[1])]) for n in range(shape[0])]
        return torch.stack(rows)

    return run


def nnsight(case: Case) -> Run:
    """Return the work as traces: the input of each block is written to inside a trace."""
    if importlib.util.find_spec("nnsight") is None:
        raise Skip("nnsight is not installed: uv sync --group bench")
    import nnsight as library

    loaded = case.subject.loaded
    model = library.NNsight(models.twin(loaded.causal_lm))
    names = {id(module): name for name, module in loaded.causal_lm.named_modules()}
    blocks = names[id(loaded.blocks)]

    def forward(ids: torch.Tensor, plan: Plan, start: int) -> torch.Tensor:
        layers = engine.targets(plan, start, loaded.n_blocks)
        with torch.inference_mode(), model.trace(input_ids=ids, use_cache=False, logits_to_keep=1):
            seen = library.save([])
            for layer in layers:
                model.get(blocks)[layer].input[:, plan.position] = plan.vectors[:, layer]
            seen.append(model.output.logits[:, -1])
        return seen[0]

    return batched(case, forward)


def transformer_lens(case: Case) -> Run:
    """Return the work through ``run_with_hooks``, a hook on each block's input."""
    if importlib.util.find_spec("transformer_lens") is None:
        raise Skip("transformer_lens is not installed: uv sync --group bench")
    from transformer_lens.model_bridge import TransformerBridge

    loaded = case.subject.loaded
    causal_lm = models.twin(loaded.causal_lm)
    causal_lm.config.architectures = [type(causal_lm).__name__]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(
            "local",
            hf_model=causal_lm,
            tokenizer=case.subject.tokenizer,
            device="cpu",
            dtype=loaded.dtype,
        )

    def forward(ids: torch.Tensor, plan: Plan, start: int) -> torch.Tensor:
        def write(hidden: torch.Tensor, hook: Any, *, layer: int) -> torch.Tensor:
            hidden = hidden.clone()
            hidden[:, plan.position] = plan.vectors[:, layer]
            return hidden

        hooks = [
            (f"blocks.{layer}.hook_resid_pre", functools.partial(write, layer=layer))
            for layer in engine.targets(plan, start, loaded.n_blocks)
        ]
        with torch.inference_mode():
            return bridge.run_with_hooks(ids, fwd_hooks=hooks, return_type="logits")[:, -1]

    return batched(case, forward)


WAYS: dict[str, tuple[str, Callable[[Case], Run]]] = {
    "ours": ("ours", ours),
    "hooks": ("own hooks, whole prompts", functools.partial(ours, way="whole")),
    "alone": ("own hooks, one by one", functools.partial(ours, way="alone")),
    "nnsight": ("nnsight, batched", nnsight),
    "transformer_lens": ("TransformerLens, batched", transformer_lens),
}


def prepare(case: Case, names: Sequence[str]) -> tuple[dict[str, Run], dict[str, dict[str, Any]]]:
    """Return the ways that do the work, each run once, and a record of the others' reasons."""
    runs: dict[str, Run] = {}
    records: dict[str, dict[str, Any]] = {}
    reference = ours(case, "alone")()
    for name in names:
        try:
            run = WAYS[name][1](case)
            deviation = float((run() - reference).abs().max())
        except Skip as reason:
            records[name] = {"skip": str(reason)}
            continue
        except Exception as error:  # a peer may fail in any way
            records[name] = {"skip": f"fails: {errors.summarise(error, 160)}"}
            continue
        if deviation <= CLOSE:
            runs[name], records[name] = run, {"deviation": float(f"{deviation:.2g}")}
        else:
            records[name] = {"skip": f"its log-probabilities differ by {deviation:.2g}"}
    return runs, records


def measure(case: Case, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Run every way in every round, in an order that turns; returns tokens/s and ratios."""
    runs, records = prepare(case, names)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for number in range(rounds):
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            seconds[name].append(machine.cpu_seconds(runs[name]))
        print(f"  round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    for name, values in seconds.items():
        pairs = zip(values, seconds["ours"], strict=True)
        records[name] |= {
            "tokens_per_s": machine.spread([case.tokens / s for s in values]),
            "ours_faster_by": machine.spread([theirs / mine for theirs, mine in pairs]),
        }
    return {"label": case.subject.label, "tokens": case.tokens, "ways": records}


def lines(result: dict[str, Any]) -> list[str]:
    """Return one line a way, for people."""
    out = [f"{result['label']}: {result['tokens']} tokens of work"]
    for name, record in result["ways"].items():
        title = WAYS[name][0]
        if "skip" in record:
            out.append(f"{title:<26} SKIP: {record['skip']}")
            continue
        speed, ratio = record["tokens_per_s"], record["ours_faster_by"]
        out.append(
            f"{title:<26} {speed['median']:9.0f} tokens/s  ours is {ratio['median']:5.2f} x as "
            f"fast ({ratio['min']:.2f}-{ratio['max']:.2f})"
        )
    return out


def build_parser() -> argparse.ArgumentParser:
    """Return the benchmark's parser."""
    parser = machine.parser("benchmarks/patching.py", "Measure patching.", "patching.json")
    parser.add_argument(
        "--ways", type=command_line.comma_list, metavar="ours,nnsight", help="only these, and ours"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print one line a way, save the numbers."""
    machine.run_on_one_thread()
    args = build_parser().parse_args(argv)
    wanted = command_line.choose("way", args.ways and (*args.ways, "ours"), list(WAYS))
    torch.set_num_threads(1)
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    subject = models.build("tiny" if args.quick else "A")
    case = make_case(subject, *((4, 2) if args.quick else (PROMPTS, PATCHES)))
    result = measure(case, wanted, rounds)
    print("\n".join(lines(result)), flush=True)
    described = machine.describe("torch", "transformers", "nnsight", "transformer-lens")
    machine.save(
        args,
        "patching.json",
        {"machine": described | {"threads": 1}, "rounds": rounds, "case": result},
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/patching.py", main))
