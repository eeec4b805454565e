"""Load one variant of a suite and describe it; with --text, also its tokens and vector norms.

Reads:  data/suites/<suite>.toml, the variant's weights
Writes: nothing

    uv run model_loader.py --suite mini --variant base --text "The eye was seen again."
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aya_probes import command_line, errors, suites

if TYPE_CHECKING:
    from aya_probes.models.describe import ModelDescription, TextDescription, TokenizerFacts

PROG = "model_loader.py"
# Texts in several scripts and lengths. Packing is checked on them as in the extraction.
CHECK_TEXTS = (
    "The eye.",
    "Nobody forgot that heart today.",
    "आज कोई दिल नहीं भूला।",
    "Hakuna aliyesahau moyo leo.",
    "لم ينس أحد ذلك القلب اليوم.",
    "ዛሬ ማንም ያንን ልብ አልረሳም።",
    "A longer sentence about the bone, " * 4 + "in English.",
)

PACKS = {
    "packed": "yes: texts run together without padding",
    "padded": "no: its attention cannot be limited to one text, so texts are padded",
    "alone": "no: packing and padding change its vectors, so each text runs alone",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = command_line.common_parser(
        PROG, "Load one variant of a suite and describe it.", "device", "dtype"
    )
    parser.add_argument(
        "--suite",
        default=suites.DEFAULT_SUITE,
        help=f"{', '.join(suites.suite_names())}, or a TOML path (default mini)",
    )
    parser.add_argument(
        "--variant", metavar="NAME", help="variant to load (default: the first of the suite)"
    )
    parser.add_argument("--text", help="print its tokens, and the norm of its vectors by layer")
    return parser


def run(args: argparse.Namespace) -> None:
    """Load the variant and print its description."""
    suite = suites.load_suite(args.suite)
    variant = suite.variant(args.variant or suite.names()[0])
    if args.text is not None and not args.text.strip():
        raise errors.UsageError("--text: the text is empty")

    from aya_probes.extraction import encoding, packs, vectors
    from aya_probes.models import describe, loading

    device, why = loading.choose_device(args.device)
    dtype = loading.choose_dtype(args.dtype, device)
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=device, dtype=dtype)
    limit = encoding.max_tokens(loaded)
    short = [text for text in CHECK_TEXTS if len(loaded.tokenizer(text)["input_ids"]) <= limit]
    texts = [*([args.text] if args.text else []), *(short or CHECK_TEXTS)]
    batching = packs.choose_batching(loaded, vectors.encode_texts(loaded, texts), variant.name)
    found = describe.describe_model(variant, source, loaded)
    lines = [f"{name:<15}{value}" for name, value in _model_facts(found, batching, why)]
    if args.text:
        lines += ["", *_text_lines(describe.describe_text(loaded, args.text))]
    print("\n".join(errors.escape_hidden(line) for line in lines))


def _model_facts(
    found: ModelDescription, batching: str, why_device: str
) -> Iterator[tuple[str, str]]:
    first, *blocks, last = found.hooks
    yield "variant", found.variant
    yield "source", ", ".join(f"{name} {value}" for name, value in found.identity.items())
    yield "folder", found.location
    yield "class", found.class_name
    yield "layers", f"0..{found.layers} and final_norm, hidden size {found.hidden_size}"
    yield "precision", found.dtype
    yield "device", f"{found.device} ({why_device})"
    yield "weights", f"{found.weight_bytes / 1e6:,.1f} MB in memory"
    yield "layer 0", f"{first.side} of {first.module}"
    yield f"layers 1..{found.layers}", f"outputs of {blocks[0].module} .. {blocks[-1].module}"
    yield "final_norm", f"{last.side} of {last.module}"
    yield "packs", PACKS[batching]
    yield from _tokenizer_facts(found.tokenizer)


def _tokenizer_facts(found: TokenizerFacts) -> Iterator[tuple[str, str]]:
    yield "tokenizer", f"{found.class_name}, {found.size:,} tokens"
    yield "BOS", _special_token(found.bos, found.adds_bos)
    yield "EOS", _special_token(found.eos, found.adds_eos)
    yield "normaliser", found.normaliser or "none"
    yield "padding", found.padding_side
    yield "offsets", "yes" if found.offsets else "no"


def _special_token(token: str | None, added: bool) -> str:
    return "none" if token is None else f"{token}, {'added' if added else 'not added'}"


def _text_lines(found: TextDescription) -> Iterator[str]:
    yield f"{len(found.pieces)} tokens"
    width = max(len(piece.token) for piece in found.pieces) + 2
    for piece in found.pieces:
        yield f"{piece.token_id:>9}  {piece.token:<{width}}{piece.characters!r}"
    yield ""
    yield "mean norm of the tokens that are not special"
    for layer, norm in found.norms.items():
        yield f"{layer:>10}  " + (f"{norm:,.0f}" if norm >= 1000 else f"{norm:.4g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, load and print; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(PROG, lambda: run(args))


if __name__ == "__main__":
    command_line.exit_process(main())
