"""Train the regional LoRA adapters of an embedded suite on one pool of parallel news text.

Without ``--english``, every adapter sees the same number of tokens and the same English tokens;
only the other languages differ (ADR-006). A variant of role ``seed`` or ``dose`` is trained on the
languages of the variant that it repeats, with another ``--seed`` or another ``--tokens``. The loss
is the cross-entropy over the corpus's own vocabulary (a full 262k head is 50 times slower on a
CPU). Perplexity before and after is measured with the full vocabulary on held-out sentences.

Reads:  --parallel-dir (NTREX-128 text: newstest2019-{src.eng,ref.xxx}.txt), --flores-dir (held
        out: devtest/*.devtest), data/suites/<suite>.toml
Writes: data/adapters/<suite>/<variant>/{adapter_config.json,adapter_model.safetensors,card.json}

    uv run tools/train_adapters.py --parallel-dir NTREX-128 --flores-dir flores200
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aya_probes import command_line, errors, project, suites
from aya_probes.errors import StudyError
from aya_probes.models import fingerprints
from aya_probes.suites import Suite, Variant

if TYPE_CHECKING:
    from aya_probes.models.residuals import LoadedModel

PROG = "tools/train_adapters.py"
TOTAL_TOKENS = 120_000  # per adapter
ENGLISH_SHARE = 0.25
LICENCE = "NTREX-128, CC BY-SA 4.0; base model under the Gemma Terms of Use (see NOTICE)"


@dataclass(frozen=True)
class Config:
    suite: Suite
    variants: tuple[Variant, ...]
    parallel_dir: Path
    flores_dir: Path
    eval_limit: int
    tokens: int
    english: int
    bf16: bool
    seed: int
    overwrite: bool


def parallel_file(folder: Path, code: str, pivot: str) -> Path:
    """Return NTREX-128's file of a language."""
    ntrex = suites.load_languages()[code].ntrex
    return folder / f"newstest2019-{'src' if code == pivot else 'ref'}.{ntrex}.txt"


def read_lines(path: Path) -> list[str]:
    """Return the lines of a corpus file; raises StudyError if it is missing or has a blank one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StudyError(
            f"{path}: {error.strerror}; give the corpus folder with --parallel-dir or --flores-dir"
        ) from None
    if not lines or not all(line.strip() for line in lines):
        raise StudyError(f"{path}: blank line or empty file")
    return lines


def token_budget(languages: Sequence[str], pivot: str, total: int, english: int) -> dict[str, int]:
    """Split ``total`` tokens: ``english`` for the pivot, the rest equally over the others."""
    others = [code for code in languages if code != pivot]
    return {pivot: english} | {code: (total - english) // len(others) for code in others}


def adapter_languages(variant: Variant, suite: Suite) -> list[str]:
    """Return an adapter's training languages: the pivot and its targets, or all for a control.

    A variant of role seed or dose has the languages of the variant that it repeats.
    """
    origin = suite.variant(variant.of) if variant.of else variant
    wanted = suite.languages if origin.role == "control" else (suite.pivot, *origin.targets)
    return [code for code in suite.languages if code in wanted]


def training_sequences(
    encoded: dict[str, list[list[int]]], budget: dict[str, int], seed: int
) -> tuple[list[list[int]], dict[str, int]]:
    """Draw whole sentences until each language's budget is met, the last one cut to fit.

    The order of sentences is the same permutation of line numbers for every language and adapter.
    Returns the shuffled sequences and the tokens drawn per language.
    """
    order = list(range(len(next(iter(encoded.values())))))
    random.Random(seed).shuffle(order)
    drawn, used = [], {}
    for code, limit in budget.items():
        left = limit
        for line in order:
            if left < 2:
                break
            drawn.append(encoded[code][line][:left])
            left -= len(drawn[-1])
        if left >= 2:
            raise StudyError(f"--tokens: {code} has too little text, {left} tokens are missing")
        used[code] = limit - left
    random.Random(seed + 1).shuffle(drawn)
    return drawn, used


@dataclass(frozen=True)
class _Corpus:
    """The sentences that the adapters are trained on, and those that they are judged by."""

    training: dict[str, list[str]]
    """NTREX-128 by language, line by line parallel."""
    held_out: dict[str, list[str]]
    """FLORES devtest by language."""

    @property
    def sha256(self) -> str:
        """Hash of the training text."""
        lines = ("\n".join(self.training[code]) for code in sorted(self.training))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_corpus(config: Config) -> _Corpus:
    """Read both corpora; raises StudyError if a file is missing or has another number of lines."""
    suite, languages = config.suite, suites.load_languages()
    files = {c: parallel_file(config.parallel_dir, c, suite.pivot) for c in suite.languages}
    training = {code: read_lines(path) for code, path in files.items()}
    if len({len(lines) for lines in training.values()}) != 1:
        counts = {str(files[code]): len(lines) for code, lines in training.items()}
        raise StudyError(f"--parallel-dir: files have unequal line counts: {counts}")
    folder = config.flores_dir / "devtest"
    held_out = {
        code: read_lines(folder / f"{languages[code].flores}.devtest")[: config.eval_limit]
        for code in suite.languages
    }
    return _Corpus(training, held_out)


def run(config: Config) -> list[Path]:
    """Train and save every adapter that was asked for; returns their folders."""
    targets = {v: suites.resolve_path(v.adapter or "") for v in config.variants}
    finished = {v for v, folder in targets.items() if (folder / "card.json").is_file()}
    todo = [v for v in config.variants if config.overwrite or v not in finished]
    for variant in config.variants:
        if variant not in todo:
            print(f"{targets[variant]} is there; --overwrite trains it again")
    if todo:
        _train_all(config, todo, read_corpus(config))
    return list(targets.values())


def _train_all(config: Config, todo: Sequence[Variant], corpus: _Corpus) -> None:
    """Train and save the adapters of ``todo``, each on a base model of its own."""
    import torch  # after the files are checked: it takes seconds

    from aya_probes.models import adapters, loading

    base = config.suite.by_role("base")[0]
    source = loading.resolve_source(base)

    def load() -> LoadedModel:
        cpu = torch.device("cpu")
        return loading.load_variant(base, source, device=cpu, dtype=torch.float32)

    def perplexities(loaded: LoadedModel) -> dict[str, float]:
        model, tokenizer = loaded.causal_lm, loaded.tokenizer
        pairs = corpus.held_out.items()
        return {
            c: round(adapters.perplexity(model, tokenizer, text, bf16=config.bf16), 2)
            for c, text in pairs
        }

    untouched = load()
    tokenizer, before = untouched.tokenizer, perplexities(untouched)
    del untouched
    print("perplexity of base:", before, flush=True)
    lines = corpus.training.items()
    encoded = {code: [tokenizer(line)["input_ids"] for line in text] for code, text in lines}
    for variant in todo:
        loaded = load()
        languages = adapter_languages(variant, config.suite)
        budget = token_budget(languages, config.suite.pivot, config.tokens, config.english)
        sequences, used = training_sequences(encoded, budget, config.seed)
        model, losses = adapters.train(loaded.causal_lm, sequences, config.seed, bf16=config.bf16)
        after = perplexities(loaded)
        print(f"perplexity of {variant.name}:", after, flush=True)
        card = {
            **_settings(config, variant),
            **adapters.card(sequences, losses),
            "base": dict(source.identity),
            "data_sha256": corpus.sha256,
            "tokens": used,
            "tokens_total": sum(used.values()),
            "perplexity_before": before,
            "perplexity_after": after,
        }
        adapters.save_adapter(model, suites.resolve_path(variant.adapter or ""), card, base.repo)


def _settings(config: Config, variant: Variant) -> dict[str, object]:
    """Return what an adapter's card says of how it was asked for."""
    return {
        "what": f"LoRA adapter {config.suite.name}/{variant.name}; not Tiny Aya",
        "command": (
            f"uv run {PROG} --suite {config.suite.name} --variants {variant.name} "
            f"--tokens {config.tokens} --english {config.english} --seed {config.seed} "
            f"--eval-limit {config.eval_limit} {'' if config.bf16 else '--float32 '}"
            "--parallel-dir NTREX-128 --flores-dir flores200"
        ),
        "data": LICENCE,
        "held_out": f"FLORES devtest, first {config.eval_limit} sentences per language",
        "seed": config.seed,
        "precision": "bfloat16 autocast" if config.bf16 else "float32",
        "code_sha256": project.source_hash(),
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        PROG,
        "Train the regional LoRA adapters of an embedded suite.",
        "variants",
        "seed",
        "overwrite",
    )
    parser.add_argument("--suite", default=suites.DEFAULT_SUITE, help="suite name or TOML path")
    parser.add_argument(
        "--parallel-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with NTREX-128's newstest2019-*.txt",
    )
    parser.add_argument(
        "--flores-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with devtest/*.devtest (held out)",
    )
    parser.add_argument(
        "--eval-limit",
        type=command_line.positive_int,
        default=100,
        metavar="N",
        help="held-out sentences per language (default 100)",
    )
    parser.add_argument(
        "--tokens",
        type=command_line.positive_int,
        default=TOTAL_TOKENS,
        metavar="N",
        help=f"training tokens per adapter (default {TOTAL_TOKENS})",
    )
    parser.add_argument(
        "--english",
        type=command_line.positive_int,
        metavar="N",
        help=f"of these, tokens in the pivot language (default {ENGLISH_SHARE:.0%}% of --tokens)",
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="multiply in float32, on a CPU that only emulates bfloat16",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and train; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        suite = suites.load_suite(args.suite)
        trainable = [v.name for v in suite.variants if v.adapter]
        names = command_line.choose("variant with an adapter", args.variants, trainable)
        if not names:
            raise errors.UsageError(f"suite {suite.name} has no variant with an adapter")
        folders = run(
            Config(
                suite,
                tuple(suite.variant(n) for n in names),
                args.parallel_dir,
                args.flores_dir,
                args.eval_limit,
                args.tokens,
                args.english or round(args.tokens * ENGLISH_SHARE),
                not args.float32,
                args.seed,
                args.overwrite,
            )
        )
        for folder in folders:
            sha = fingerprints.adapter_sha256(folder, folder.name)
            print(f'{folder}: adapter_sha256 = "{sha}"')
        print(f"{len(folders)} adapters; the suite file gives their hashes")

    return command_line.run_stage(PROG, stage)


if __name__ == "__main__":
    raise SystemExit(main())
