"""Failures as losses of comprehension: what a change costs a variant beyond its reference.

::

    loss(v)   = margin(parent) − margin(text), in nats, on variant v
    excess(v) = loss(v) − loss(reference)

The margin is that of ``comprehension``: the pmi of the right sentence minus the mean pmi of the
mismatched ones. A category is tested over parents: their texts are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aya_probes.alignment import inference
from aya_probes.behaviour.contrasts import Contrasts
from aya_probes.results.behaviour import LossTest
from aya_probes.stimuli import Stimulus

MIN_PARENTS = 20  # with fewer there is no p-value
SIGN_FLIPS = 9_999
RESAMPLES = 2_000
SAME = 1e-3  # nats: contrasts this close come from the same tokens, packed beside other texts


@dataclass(frozen=True)
class LossInputs:
    """What the tests compare."""

    texts: tuple[Stimulus, ...]
    """The perturbed texts."""
    contrasts: Mapping[str, Contrasts]
    """Contrasts of texts and parents by variant."""
    reference: str
    """Variant that the others are compared with."""
    target: str
    """Language of the candidates."""
    untestable: Mapping[str, str]
    """Status of the languages that the reference does not comprehend."""


def losses(contrasts: Contrasts, texts: Sequence[Stimulus]) -> np.ndarray:
    """Return the loss of every text in every frame, ``[text, frame]``."""
    return np.stack(
        [
            contrasts[str(text.parent_id)].mean(1) - contrasts[text.stimulus_id].mean(1)
            for text in texts
        ]
    )


def compare_losses(inputs: LossInputs, variants: Sequence[str], seed: int) -> list[LossTest]:
    """Return a test for each category, language and variant; Holm's correction is over all.

    Untestable languages have a row without numbers. Texts that were not asked, or whose parent was
    not, are left out, and so are those that the tokenizer reads as their parent.
    """
    groups: dict[tuple[str, str, str], list[Stimulus]] = {}
    asked = inputs.contrasts[inputs.reference]
    for variant in variants:
        for text in inputs.texts:
            mine, parent = asked.get(text.stimulus_id), asked.get(str(text.parent_id))
            if mine is not None and parent is not None and not np.allclose(mine, parent, atol=SAME):
                key = (str(text.category), text.language, variant)
                groups.setdefault(key, []).append(text)
    tests = [
        _compare(inputs, group, variant, seed) for (_, _, variant), group in sorted(groups.items())
    ]
    adjusted = inference.holm(np.array([test.p for test in tests], dtype=float))
    return [
        replace(test, p_holm=None if np.isnan(p) else float(p))
        for test, p in zip(tests, adjusted, strict=True)
    ]


def _compare(inputs: LossInputs, group: Sequence[Stimulus], variant: str, seed: int) -> LossTest:
    first = group[0]
    parents = list(dict.fromkeys(str(text.parent_id) for text in group))
    row = LossTest(
        category=str(first.category),
        language=first.language,
        variant=variant,
        reference_variant=inputs.reference,
        target=inputs.target,
        n=len(group),
        parents=len(parents),
        mean_loss=None,
        mean_excess=None,
        lower=None,
        upper=None,
        lowest_frame=None,
        highest_frame=None,
        p=None,
        p_holm=None,
        status=inputs.untestable.get(first.language, ""),
    )
    if row.status:
        return row
    mine, theirs = (losses(inputs.contrasts[name], group) for name in (variant, inputs.reference))
    members = [[n for n, t in enumerate(group) if t.parent_id == name] for name in parents]
    loss, excess = (
        np.array([values[rows].mean(0) for rows in members]) for values in (mine, mine - theirs)
    )  # [parent, frame]
    by_frame, by_parent = excess.mean(0), excess.mean(1)
    row = replace(
        row,
        mean_loss=float(loss.mean()),
        mean_excess=float(excess.mean()),
        lowest_frame=float(by_frame.min()),
        highest_frame=float(by_frame.max()),
    )
    if len(parents) < MIN_PARENTS:
        return row
    weights = inference.resample_weights(len(parents), RESAMPLES, seed)
    lower, upper = inference.expanded_interval(by_parent, weights)
    p = inference.sign_flip_p(by_parent, count=SIGN_FLIPS, seed=seed)
    return replace(row, lower=float(lower), upper=float(upper), p=float(p))
