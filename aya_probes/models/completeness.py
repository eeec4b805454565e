"""Whether a folder's weights make the whole model: none missing, misshapen or left out.

The library fills gaps with random weights and passes over what it has no place for, such as the
scales of quantised weights: the model would run, and its vectors would be wrong.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from aya_probes.errors import StudyError

# Scales of activations and of the cache: they quantise what we do not store.
_NOT_OF_WEIGHTS = re.compile(r"\.(input|output|activation|k|v|q|prob)_scale$")


def check(causal_lm: nn.Module, report: dict[str, Any], weights: str) -> None:
    """Refuse what the library's loading report calls incomplete.

    ``weights`` names them in the message. A tensor that is left out counts if its layer is in the
    model: those of other parts (an image encoder, a second head) play no part.
    """
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise StudyError(
            f"{weights} lack {len(missing)} tensors of the model (first: {missing[0]}); fetch or "
            "save them again"
        )
    misshapen = sorted((str(key), *map(list, shapes)) for key, *shapes in report["mismatched_keys"])
    if misshapen:
        name, stored, wanted = misshapen[0]
        raise StudyError(
            f"{weights} do not fit config.json: {len(misshapen)} tensors have another shape "
            f"(first: {name} has {stored}, not {wanted}); fix config.json, or give the model "
            "without quantisation"
        )
    roots = (causal_lm, getattr(causal_lm, "base_model", causal_lm))  # a file may lack the prefix
    left_out = sorted(
        key for key in report["unexpected_keys"] if any(_has_layer(root, key) for root in roots)
    )
    if left_out:
        raise StudyError(
            f"{weights} have {len(left_out)} tensors that the model's layers would leave out "
            f"(first: {left_out[0]}); give the model without quantisation, or fix config.json"
        )


def _has_layer(module: nn.Module, key: str) -> bool:
    """Tell whether a tensor belongs to a module that holds all its weights itself."""
    if _NOT_OF_WEIGHTS.search(key):
        return False
    for part in key.split(".")[:-1]:
        inner = dict(module.named_children()).get(part)
        if inner is None:
            break
        module = inner
    own = sum(1 for _ in module.parameters(recurse=False))
    return own > 0 and own == sum(1 for _ in module.parameters())
