"""Load one variant of a suite and print what it is; with --text, how it reads a text.

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
# Texts of several scripts and lengths, on which packing is checked as extraction checks it.
CHECK_TEXTS = (
    "The eye.",
    "Nobody forgot that heart today.",
    "आज कोई दिल नहीं भूला।",
    "Hakuna aliyesahau moyo leo.",
    "لم ينس أحد ذلك القلب اليوم.",
    "ዛሬ ማንም ያንን ልብ አልረሳም።",
    "A longer sentence about the bone, " * 4 + "in English.",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = command_line.common_parser(
        PROG, "Load one variant of a suite and print what it is.", "device", "dtype"
    )
    parser.add_argument(
        "--suite",
        default=suites.DEFAULT_SUITE,
        help=f"{', '.join(suites.suite_names())}, or a TOML path (default mini)",
    )
    parser.add_argument(
        "--variant", metavar="NAME", help="the variant to load (default: the suite's first)"
    )
    parser.add_argument("--text", help="print its tokens, and the norm of its vectors per layer")
    return parser


def run(args: argparse.Namespace) -> None:
    """Load the variant and print what it is."""
    suite = suites.load_suite(args.suite)
    variant = suite.variant(args.variant or suite.names()[0])
    if args.text is not None and not args.text.strip():
        raise errors.UsageError("--text: want a text that is not empty")

    from aya_probes.extraction import packs, vectors
    from aya_probes.models import describe, loading

    device, why = loading.choose_device(args.device)
    dtype = loading.choose_dtype(args.dtype, device)
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=device, dtype=dtype)
    texts = [*([args.text] if args.text else []), *CHECK_TEXTS]
    packed = packs.can_pack(loaded, vectors.encode_texts(loaded, texts), variant.name)
    lines = [*_model_lines(describe.describe_model(variant, source, loaded), packed, why)]
    if args.text:
        lines += ["", *_text_lines(describe.describe_text(loaded, args.text))]
    print("\n".join(errors.escape_hidden(line) for line in lines))


def _model_lines(found: ModelDescription, packed: bool, why: str) -> Iterator[str]:
    source = ", ".join(f"{name} {value}" for name, value in found.identity.items())
    yield f"variant      {found.variant}"
    yield f"source       {source}"
    yield f"folder       {found.location}"
    yield f"class        {found.class_name}"
    yield f"layers       0..{found.layers} and final_norm, hidden size {found.hidden_size}"
    yield f"precision    {found.dtype}"
    yield f"device       {found.device} ({why})"
    yield f"weights      {found.weight_bytes / 1e6:,.1f} MB in memory"
    first, *blocks, last = found.hooks
    yield f"layer 0      {first.side} of {first.module}"
    yield f"layers 1..{found.layers}".ljust(13) + (
        f"{blocks[0].side}s of {blocks[0].module} .. {blocks[-1].module}"
    )
    yield f"final_norm   {last.side} of {last.module}"
    yield "packs        " + (
        "yes: texts are run together without padding"
        if packed
        else "no: its attention cannot be cut at the texts, so they are padded"
    )
    yield from _tokenizer_lines(found.tokenizer)


def _tokenizer_lines(found: TokenizerFacts) -> Iterator[str]:
    yield f"tokenizer    {found.class_name}, {found.size:,} tokens"
    for label, token, added in (
        ("BOS", found.bos, found.adds_bos),
        ("EOS", found.eos, found.adds_eos),
    ):
        said = "none" if token is None else f"{token}, {'added' if added else 'not added'}"
        yield f"{label:<13}{said}"
    yield f"normaliser   {found.normaliser or 'none'}"
    yield f"padding      {found.padding_side}"
    yield f"offsets      {'yes' if found.offsets else 'no'}"


def _text_lines(found: TextDescription) -> Iterator[str]:
    yield f"{len(found.pieces)} tokens"
    width = max(len(piece.token) for piece in found.pieces) + 2
    for piece in found.pieces:
        yield f"{piece.token_id:>9}  {piece.token:<{width}}{piece.characters!r}"
    yield ""
    yield "mean norm of the tokens that are not special"
    for layer, norm in found.norms.items():
        yield f"{layer:>10}  {norm:.4g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, load and print; returns the exit code."""
    args = build_parser().parse_args(argv)
    return command_line.run_stage(PROG, lambda: run(args))


if __name__ == "__main__":
    command_line.exit_process(main())
