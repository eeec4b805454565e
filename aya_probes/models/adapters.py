"""LoRA adapters: training on token sequences, held-out perplexity, and saving."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tqdm import tqdm

RANK, ALPHA = 8, 16
LEARNING_RATE = 2e-4  # 1e-3 forgets English within 30 steps
BATCH_TOKENS = 768
WARMUP = 0.1  # share of the steps, then linear decay to zero


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
    ids = torch.tensor([[token for sequence in batch for token in sequence]])
    positions = torch.cat([torch.arange(len(sequence)) for sequence in batch])[None]
    predicts = torch.ones(ids.shape[1], dtype=torch.bool)
    predicts[torch.tensor([len(s) for s in batch]).cumsum(0) - 1] = False
    return ids, positions, predicts


def perplexity(
    causal_lm: Any, tokenizer: Any, sentences: Sequence[str], *, bf16: bool = True
) -> float:
    """Return the per-token perplexity over the full vocabulary (first token not predicted).

    ``bf16`` multiplies matrices in bfloat16, which is slow on a CPU that only emulates it.
    """
    loss, count = 0.0, 0
    encoded = sorted((tokenizer(text)["input_ids"] for text in sentences), key=len)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
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


def train(
    causal_lm: Any, sequences: list[list[int]], seed: int, *, bf16: bool = True
) -> tuple[Any, list[float]]:
    """Train a LoRA adapter on all linear layers; returns the peft model and the loss of each step.

    The loss is over the tokens that the training text has, not over the whole vocabulary.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    model = get_peft_model(
        causal_lm,
        LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear"),
    )
    head, remap = _head(causal_lm, sequences)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0)
    steps = batches(sequences)
    schedule = _warmup_then_decay(optimizer, len(steps))
    losses = []
    model.train()
    for batch in tqdm(steps, unit="step", desc="train"):
        ids, positions, predicts = _packed(batch)
        where = predicts.nonzero()[:, 0]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
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


def _head(causal_lm: Any, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the language-model head of the tokens that occur, and token id -> its row there."""
    vocabulary = torch.tensor(sorted({token for sequence in sequences for token in sequence}))
    remap = torch.zeros(int(vocabulary[-1]) + 1, dtype=torch.long)
    remap[vocabulary] = torch.arange(len(vocabulary))
    return causal_lm.get_output_embeddings().weight[vocabulary].detach(), remap


def _warmup_then_decay(optimizer: Any, steps: int) -> Any:
    """Return the schedule: up in a straight line over WARMUP of the steps, then down to zero."""
    ramp = max(1, round(WARMUP * steps))

    def factor(step: int) -> float:
        return min((step + 1) / ramp, (steps - step) / max(1, steps - ramp))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def card(sequences: list[list[int]], losses: Sequence[float]) -> dict[str, object]:
    """Return what an adapter's card says of its training."""
    tenth = max(1, len(losses) // 10)
    return {
        "threads": torch.get_num_threads(),
        "steps": len(losses),
        "lora": {"r": RANK, "alpha": ALPHA, "target_modules": "all-linear"},
        "learning_rate": LEARNING_RATE,
        "batch_tokens": BATCH_TOKENS,
        "loss_vocabulary": len({token for sequence in sequences for token in sequence}),
        "loss_first_tenth": round(sum(losses[:tenth]) / tenth, 4),
        "loss_last_tenth": round(sum(losses[-tenth:]) / tenth, 4),
    }


def save_adapter(model: Any, target: Path, card: Mapping[str, object], base: str | None) -> None:
    """Write the adapter and its card to ``target``, whole or not at all.

    ``base`` names the base model's hub repository in the adapter's configuration.
    """
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
