"""Merge a LoRA adapter into a model, or refuse it if any of its weights would be left out.

PEFT warns of weights that an adapter lacks and passes over those that fit nowhere: the model would
stay the base, bit for bit, under the adapter's name.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from torch import nn

from aya_probes import errors
from aya_probes.errors import StudyError

WEIGHTS = "adapter_model.safetensors"


@contextlib.contextmanager
def _adapter_errors(folder: Path, variant: str) -> Iterator[None]:
    try:
        yield
    except (StudyError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the library raises of every kind
        if errors.is_disk_error(error):
            raise
        raise _refused(folder, variant, errors.summarise(error)) from None


def _refused(folder: Path, variant: str, reason: str) -> StudyError:
    return StudyError(
        f"{folder}: the adapter does not fit the model of variant {variant}: {reason}; use the "
        "adapter that was trained on this model, or name its model in the suite file"
    )


def merge(causal_lm: nn.Module, folder: Path, variant: str) -> nn.Module:
    """Return the model with the adapter of ``folder`` merged into its weights.

    Raises StudyError naming the folder if a weight of the adapter fits nowhere in the model, if the
    adapter lacks a weight that its configuration asks for, or if it cannot be merged.
    """
    with _adapter_errors(folder, variant), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own; what they say is checked below
        adapted = PeftModel.from_pretrained(causal_lm, folder)
        _check_weights(adapted, folder, variant)
        if not hasattr(adapted.base_model, "merge_and_unload"):
            kind = adapted.active_peft_config.peft_type
            raise _refused(folder, variant, f"its type {kind} cannot be merged into weights")
        merged: nn.Module = adapted.merge_and_unload(safe_merge=True)
    return merged


def _check_weights(adapted: PeftModel, folder: Path, variant: str) -> None:
    """Compare every weight of the file with the one in the model."""
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    whole = adapted.state_dict()
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = set(file.keys())
        left_over = {name for name in names if name not in wanted and name not in whole}
        _refuse_if(left_over, "weights that fit nowhere in the model", folder, variant)
        _refuse_if(wanted.keys() - names, "weights missing from the adapter", folder, variant)
        for name in sorted(names):
            there = wanted[name] if name in wanted else whole[name]
            given = file.get_tensor(name).to(there.device, there.dtype)
            _refuse_if(
                [] if torch.equal(given, there) else [name],
                "weights that were not loaded",
                folder,
                variant,
            )


def _refuse_if(names: Collection[str], what: str, folder: Path, variant: str) -> None:
    if names:
        raise _refused(folder, variant, f"{what}: {len(names)} (first: {min(names)})")
