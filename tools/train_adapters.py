"""Train the regional LoRA adapters of an embedded suite on one pool of parallel news text.

Every adapter sees the same number of tokens and the same English tokens; only the other languages
differ (ADR-006), so a difference between adapters is a difference of languages. The loss is the
cross-entropy over the corpus's own vocabulary (a full 262k head is 50 times slower on a CPU).
Perplexity before and after is measured with the full vocabulary on held-out sentences.

Reads:  --parallel-dir (NTREX-128 text: newstest2019-{src.eng,ref.xxx}.txt), --flores-dir (held
        out: devtest/*.devtest), data/suites/<suite>.toml
Writes: data/adapters/<suite>/<variant>/{adapter_config.json,adapter_model.safetensors,card.json}

    uv run tools/train_adapters.py --parallel-dir NTREX-128 --flores-dir flores200
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_probes import command_line, errors, project, suites
from aya_probes.errors import StudyError
from aya_probes.models import fingerprints
from aya_probes.suites import Suite, Variant

TOTAL_TOKENS = 120_000  # per adapter
ENGLISH_SHARE = 0.25
RANK, ALPHA = 8, 16
LEARNING_RATE = 2e-4  # 1e-3 forgets English within 30 steps
BATCH_TOKENS = 768
WARMUP = 0.1  # share of the steps, then linear decay to zero
LICENCE = "NTREX-128, CC BY-SA 4.0; base model under the Gemma Terms of Use (see NOTICE)"


@dataclass(frozen=True)
class Config:
    suite: Suite
    variants: tuple[Variant, ...]
    parallel_dir: Path
    flores_dir: Path
    eval_limit: int
    tokens: int
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


def token_budget(languages: Sequence[str], pivot: str, total: int) -> dict[str, int]:
    """Split ``total`` tokens: a fixed English share, the rest equal over the other languages."""
    others = [code for code in languages if code != pivot]
    english = round(total * ENGLISH_SHARE)
    return {pivot: english} | {code: (total - english) // len(others) for code in others}


def adapter_languages(variant: Variant, suite: Suite) -> list[str]:
    """Return an adapter's training languages: the pivot and its targets, or all for a control."""
    wanted = suite.languages if variant.role == "control" else (suite.pivot, *variant.targets)
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


def batches(sequences: list[list[int]]) -> list[list[list[int]]]:
    """Cut the shuffled sequences into batches of about BATCH_TOKENS tokens."""
    result: list[list[list[int]]] = [[]]
    size = 0
    for sequence in sequences:
        if size + len(sequence) > BATCH_TOKENS and result[-1]:
            result.append([])
            size = 0
        result[-1].append(sequence)
        size += len(sequence)
    return result


def _packed(batch: list[list[int]]) -> tuple[Any, Any, Any]:
    """Return ids and positions ``[1, tokens]`` and the mask of tokens that predict the next."""
    import torch

    ids = torch.tensor([[token for sequence in batch for token in sequence]])
    positions = torch.cat([torch.arange(len(sequence)) for sequence in batch])[None]
    predicts = torch.ones(ids.shape[1], dtype=torch.bool)
    predicts[torch.tensor([len(s) for s in batch]).cumsum(0) - 1] = False
    return ids, positions, predicts


def perplexity(causal_lm: Any, tokenizer: Any, sentences: Sequence[str]) -> float:
    """Return the per-token perplexity over the full vocabulary (first token not predicted)."""
    import torch

    loss, count = 0.0, 0
    encoded = sorted((tokenizer(text)["input_ids"] for text in sentences), key=len)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in batches(encoded):
            ids, positions, predicts = _packed(batch)
            hidden = causal_lm.get_decoder()(
                input_ids=ids, position_ids=positions, use_cache=False
            ).last_hidden_state[0]
            where = predicts.nonzero()[:, 0]
            logits = causal_lm.get_output_embeddings()(hidden[where]).float()
            loss += float(
                torch.nn.functional.cross_entropy(logits, ids[0, where + 1], reduction="sum")
            )
            count += len(where)
    return math.exp(loss / count)


def train(causal_lm: Any, sequences: list[list[int]], seed: int) -> tuple[Any, list[float]]:
    """Train a LoRA adapter on all linear layers; returns the peft model and the loss per step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tqdm import tqdm

    torch.manual_seed(seed)
    random.seed(seed)
    model = get_peft_model(
        causal_lm,
        LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear"),
    )
    vocabulary = sorted({token for sequence in sequences for token in sequence})
    remap = torch.zeros(vocabulary[-1] + 1, dtype=torch.long)
    remap[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))
    head = causal_lm.get_output_embeddings().weight[torch.tensor(vocabulary)].detach()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0)
    steps = batches(sequences)
    ramp = max(1, round(WARMUP * len(steps)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / ramp, (len(steps) - step) / max(1, len(steps) - ramp)),
    )
    losses = []
    model.train()
    for batch in tqdm(steps, unit="step", desc="train"):
        ids, positions, predicts = _packed(batch)
        where = predicts.nonzero()[:, 0]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = (
                model.get_base_model()
                .get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
                .last_hidden_state[0, where]
            )
            logits = hidden @ head.T
        loss = torch.nn.functional.cross_entropy(logits.float(), remap[ids[0, where + 1]])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return model.eval(), losses


def save_adapter(model: Any, target: Path, card: dict[str, Any], base: str | None) -> None:
    """Write the adapter and its card to ``target``, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        model.save_pretrained(work)
        settings = json.loads((work / "adapter_config.json").read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = base  # peft writes the folder on this machine
        (work / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        (work / "README.md").unlink(missing_ok=True)  # peft's empty template
        text = json.dumps(card, indent=1, ensure_ascii=False, sort_keys=True)
        (work / "card.json").write_text(text + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        work.chmod(0o755)
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(config: Config) -> list[Path]:
    """Train and save every asked adapter; returns their folders."""
    targets = {v.name: suites.resolve_path(v.adapter or "") for v in config.variants}
    todo = [
        v
        for v in config.variants
        if config.overwrite or not (targets[v.name] / "card.json").is_file()
    ]
    for variant in config.variants:
        if variant not in todo:
            print(f"{targets[variant.name]} is there; --overwrite trains it again")
    if not todo:
        return list(targets.values())
    suite, languages = config.suite, suites.load_languages()
    files = {c: parallel_file(config.parallel_dir, c, suite.pivot) for c in suite.languages}
    text = {code: read_lines(path) for code, path in files.items()}
    if len({len(lines) for lines in text.values()}) != 1:
        counts = {str(files[c]): len(lines) for c, lines in text.items()}
        raise StudyError(f"--parallel-dir: files have unequal line counts: {counts}")
    held_out = {
        code: read_lines(config.flores_dir / "devtest" / f"{languages[code].flores}.devtest")[
            : config.eval_limit
        ]
        for code in suite.languages
    }

    import torch

    base_variant = suite.by_role("base")[0]
    from aya_probes.models import loading

    source = loading.resolve_source(base_variant)
    cpu = torch.device("cpu")

    def load() -> Any:
        return loading.load_variant(base_variant, source, device=cpu, dtype=torch.float32)

    base = load()
    encoded = {c: [base.tokenizer(line)["input_ids"] for line in text[c]] for c in text}
    data_hash = hashlib.sha256("\n".join("\n".join(text[c]) for c in sorted(text)).encode())
    before = {c: round(perplexity(base.causal_lm, base.tokenizer, held_out[c]), 2) for c in text}
    print("perplexity of base:", before, flush=True)
    for variant in todo:
        loaded = load()
        budget = token_budget(adapter_languages(variant, suite), suite.pivot, config.tokens)
        sequences, used = training_sequences(encoded, budget, config.seed)
        model, losses = train(loaded.causal_lm, sequences, config.seed)
        after = {
            c: round(perplexity(loaded.causal_lm, loaded.tokenizer, held_out[c]), 2) for c in text
        }
        print(f"perplexity of {variant.name}:", after, flush=True)
        tenth = max(1, len(losses) // 10)
        save_adapter(
            model,
            targets[variant.name],
            {
                "what": f"LoRA adapter {suite.name}/{variant.name}; not Tiny Aya",
                "command": f"uv run tools/train_adapters.py --suite {suite.name} "
                f"--variants {variant.name} "
                f"--tokens {config.tokens} --seed {config.seed} "
                f"--eval-limit {config.eval_limit} --parallel-dir NTREX-128 "
                "--flores-dir flores200",
                "base": dict(source.identity),
                "data": LICENCE,
                "data_sha256": data_hash.hexdigest(),
                "seed": config.seed,
                "threads": torch.get_num_threads(),
                "steps": len(losses),
                "tokens": used,
                "tokens_total": sum(used.values()),
                "lora": {"r": RANK, "alpha": ALPHA, "target_modules": "all-linear"},
                "learning_rate": LEARNING_RATE,
                "batch_tokens": BATCH_TOKENS,
                "loss_vocabulary": len({t for s in sequences for t in s}),
                "loss_first_tenth": round(sum(losses[:tenth]) / tenth, 4),
                "loss_last_tenth": round(sum(losses[-tenth:]) / tenth, 4),
                "held_out": f"FLORES devtest, first {config.eval_limit} sentences per language",
                "perplexity_before": before,
                "perplexity_after": after,
                "code_sha256": project.source_hash(),
            },
            base_variant.repo,
        )
    return list(targets.values())


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = command_line.common_parser(
        "tools/train_adapters.py",
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
                args.seed,
                args.overwrite,
            )
        )
        for folder in folders:
            sha = fingerprints.adapter_sha256(folder, folder.name)
            print(f'{folder}: adapter_sha256 = "{sha}"')
        print(f"{len(folders)} adapters; the suite file gives their hashes")

    return command_line.run_stage("tools/train_adapters.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
