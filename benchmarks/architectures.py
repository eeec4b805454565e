"""Try every architecture that transformers maps to a causal language model: exact, or refused.

Each type is built tiny and random from its own configuration class. Its texts are extracted as a
run extracts them, with packing, padding or one at a time as the start-up self-check chooses, and
compared at every layer and pooling with float64 forwards of one text, read by plain hooks. The
``hidden_states`` that the library returns itself are compared too: they come from no hook of ours.
docs/models.md shows the result.

Writes: benchmarks/results/architectures.json

    uv run benchmarks/architectures.py
    uv run report/fill.py
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import machine
import tiny_configs
from aya_probes import command_line, errors
from aya_probes.errors import StudyError
from aya_probes.extraction import encoding, packs, poolings
from aya_probes.extraction.encoding import Encoded
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.models.structure import block_input, block_output
from aya_probes.planted import tiny

EXACT = 1e-4  # largest relative deviation in float32 that counts as exact
PACK_TOKENS = 128
SECONDS, GIB = 120, 12  # what one type may take
QUICK = ("llama", "falcon", "bert", "mamba")


@dataclass(frozen=True)
class Outcome:
    """What was found for one model type."""

    type: str
    """Its name in a model's config.json (model_type)."""
    model_class: str
    """The class that AutoModelForCausalLM makes of it."""
    status: str
    """packed, padded, alone (all exact), refused, not built, or wrong."""
    reason: str = ""
    """Why it was refused, not built or wrong."""
    error: float | None = None
    """Largest relative deviation of a pooled vector from a forward of its text alone."""
    reference: str | None = None
    """Precision of that forward: float64, or float32 where the class cannot run in float64."""
    library: str | None = None
    """Whether the library's hidden_states agree: agree, differ, or none given."""


def make_texts() -> list[Encoded]:
    """Return the tiny study's sentences with their spans."""
    tokenizer, found = tiny.byte_tokenizer(), []
    for term, row in tiny.TERMS.items():
        for code, word in zip(tiny.LANGUAGES, row, strict=True):
            for frame in tiny.SENTENCES[code]:
                text = frame.format(word)
                start = frame.index("{")
                span = (start, start + len(word))
                found.append(encoding.encode_text(tokenizer, text, span, f"{term}-{code}"))
    return found


def randomise(model: nn.Module) -> None:
    """Give every weight a size that lets attention and every norm change the stream.

    The library's small initial weights leave the stream almost as the embedding made it: a leak
    between texts would not be seen.
    """
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if not weight.is_floating_point():
            continue
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            if weight.ndim > 1:
                weight.copy_(noise / np.sqrt(weight.shape[-1]))
            else:
                weight.add_(0.1 * noise)


Alone = tuple[np.ndarray, list[torch.Tensor]]


def pool_each(loaded: LoadedModel, texts: Sequence[Encoded]) -> list[Alone]:
    """Run each text alone; see ``pool_alone``."""
    return [pool_alone(loaded, text) for text in texts]


def pool_alone(loaded: LoadedModel, text: Encoded) -> Alone:
    """Run one text with plain hooks; returns ``[layer, pooling, hidden]`` and ``hidden_states``."""
    layers: dict[int, torch.Tensor] = {}

    def read_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layers[0] = block_input(args, kwargs)[0]

    def reader(layer: int) -> Callable[..., None]:
        def read_output(module: nn.Module, args: Any, output: Any) -> None:
            layers[layer] = block_output(output)[0]

        return read_output

    handles = [loaded.blocks[0].register_forward_pre_hook(read_input, with_kwargs=True)]
    for layer, module in enumerate((*loaded.blocks, loaded.final_norm), start=1):
        handles.append(module.register_forward_hook(reader(layer)))
    ids = torch.tensor([text.token_ids])
    with torch.inference_mode():
        try:
            out = loaded.decoder(input_ids=ids, use_cache=False, output_hidden_states=True)
        finally:
            for handle in handles:
                handle.remove()
    pooled = [
        [layers[layer][list(text.positions(name))].mean(0) for name in poolings.POOLINGS]
        for layer in sorted(layers)
    ]
    states = getattr(out, "hidden_states", None) or ()
    tensors = [state[0] for state in states if isinstance(state, torch.Tensor)]
    return torch.stack([torch.stack(rows) for rows in pooled]).numpy(), tensors


def compare_library(states: Sequence[torch.Tensor], truth: np.ndarray, text: Encoded) -> str:
    """Tell whether the library's own hidden states are layers that the hooks read, in this order.

    Most classes give the inputs of the blocks and the final norm, some the outputs of the blocks.
    """
    layer = -1
    for state in states:
        rows = [state[list(text.positions(name))].mean(0) for name in poolings.POOLINGS]
        found = torch.stack(rows).numpy()
        later = range(layer + 1, len(truth))
        layer = next((n for n in later if _deviation(found, truth[n]) < EXACT), -1)
        if layer < 0:
            return "differ"
    return "agree" if len(states) else "none given"


def _deviation(found: np.ndarray, truth: np.ndarray) -> float:
    scale = np.linalg.norm(truth, axis=-1)
    distance = np.linalg.norm(found - truth, axis=-1)
    return float((distance / np.where(scale > 0, scale, 1)).max())


def extract(loaded: LoadedModel, texts: Sequence[Encoded], way: packs.Batching) -> np.ndarray:
    """Extract as a run does; returns ``[layer, text, pooling, hidden]`` in the texts' order."""
    lengths = [len(text.token_ids) for text in texts]
    budget = 1 if way == "alone" else PACK_TOKENS
    order, parts = [], []
    for pack in packs.make_packs(lengths, budget, packable=way == "packed"):
        chosen = [texts[position] for position in pack]
        parts.append(packs.finite_pool(loaded, chosen, "tiny", packed=way == "packed")[0])
        order += pack
    return np.concatenate(parts, axis=1)[:, np.argsort(order)]


def compare(
    loaded: LoadedModel, texts: Sequence[Encoded], found: np.ndarray
) -> tuple[str, list[Alone], float]:
    """Return the reference's precision, its forwards, and the largest deviation from them.

    float64, or float32 where a class computes a part in float32, or where it chooses tokens or
    experts by a score: nearly equal scores are ordered otherwise in another precision.
    """
    best: tuple[str, list[Alone], float] = ("none", [], np.inf)
    for name, make in (("float64", float64_copy), ("float32", lambda same: same)):
        try:
            alone = pool_each(make(loaded), texts)
        except (StudyError, RuntimeError):
            continue
        truth = np.stack([pooled for pooled, _ in alone], axis=1)
        best = min(best, (name, alone, _deviation(found, truth)), key=lambda row: row[2])
        if best[2] < EXACT:
            break
    return best


def float64_copy(loaded: LoadedModel) -> LoadedModel:
    """Return a copy of the model in float64, its blocks and norm found as they were before."""
    model = copy.deepcopy(loaded.causal_lm).double()
    for part in model.modules():  # the library's fast matrix products of experts know no float64
        if getattr(getattr(part, "config", None), "_experts_implementation", None):
            part.config._experts_implementation = "eager"
    return loading.wrap(model, None, loaded.device, torch.float64)


def try_type(kind: str) -> Outcome:
    """Build one model type and compare its extraction with the truth."""
    class_name = class_of(kind)
    try:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_configs.build(kind), dtype=torch.float32)
    except Exception as error:  # a class raises of every kind on a small configuration
        return Outcome(kind, class_name, "not built", errors.summarise(error))
    class_name = type(model).__name__
    randomise(model)
    texts, cpu = make_texts(), torch.device("cpu")
    try:
        loaded = loading.wrap(model, None, cpu, torch.float32)
        way = packs.choose_batching(loaded, texts, "tiny")
        found = extract(loaded, texts, way)
    except StudyError as error:
        return Outcome(kind, class_name, "refused", str(error))
    reference, alone, deviation = compare(loaded, texts, found)
    said = Counter(
        compare_library(states, pooled, text)
        for text, (pooled, states) in zip(texts, alone, strict=True)
    )
    library = "differ" if said["differ"] else next(iter(said))
    reason = ""
    if deviation >= EXACT:
        reason = f"run {way}, it deviates from forwards of one text"
    elif library == "differ":  # blocks or norm that are not the library's would show nowhere else
        reason = "the library's hidden_states are not the layers that were read"
    status = "wrong" if reason else way
    return Outcome(kind, class_name, status, reason, float(f"{deviation:.2g}"), reference, library)


def class_of(kind: str) -> str:
    """Return the class name that transformers maps a type to."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    return name if isinstance(name, str) else name[0]


def _work(kind: str, end: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIB << 30, GIB << 30))
    warnings.simplefilter("ignore")
    try:
        end.send(try_type(kind))
    except BaseException as error:  # shown as a fault of ours, with its place
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {error}"
        end.send(Outcome(kind, class_of(kind), "wrong", " ".join(reason.split())[:300]))


def try_in_process(kind: str) -> Outcome:
    """Try one type in a process of its own: a type that crashes or never ends harms no other."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, theirs))
    process.start()
    theirs.close()
    try:
        if ours.poll(SECONDS):
            return ours.recv()
        reason = f"not ready within {SECONDS} s"
    except EOFError:
        process.join()
        code = -(process.exitcode or 0)
        reason = f"its process ended ({signal.Signals(code).name if code > 0 else -code})"
    finally:
        process.kill()
        process.join()
    return Outcome(kind, class_of(kind), "not built", reason)


def main(argv: Sequence[str] | None = None) -> int:
    """Try the types; exits 1 if one is wrong."""
    parser = machine.parser(
        "benchmarks/architectures.py", "Try every causal language model.", "architectures.json"
    )
    parser.add_argument("types", nargs="*", metavar="TYPE", help="model types (default: all)")
    args: argparse.Namespace = parser.parse_args(argv)
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for kind in args.types:
        if kind not in known:
            raise errors.UsageError(errors.unknown("TYPE", kind, known))
    torch.set_num_threads(1)
    outcomes = []
    for kind in args.types or (QUICK if args.quick else known):
        outcomes.append(try_in_process(kind))
        row = outcomes[-1]
        print(f"{kind}: {row.status} {row.reason}{row.error or ''} {row.library or ''}".rstrip())
    counts = Counter(row.status for row in outcomes)
    print(", ".join(f"{count} {status}" for status, count in counts.most_common()))
    described = machine.describe("torch", "transformers")
    if args.types and not args.out:
        print("chosen types only: not saved")
    else:
        rows = [asdict(row) for row in outcomes]
        machine.save(args, "architectures.json", {"machine": described, "types": rows})
    if counts["wrong"]:
        names = ", ".join(row.type for row in outcomes if row.status == "wrong")
        print(f"wrong: {names}", file=sys.stderr)
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/architectures.py", main))
