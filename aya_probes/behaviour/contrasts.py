"""How much better the right sentence fits a text than each mismatched one, by variant and frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aya_probes.results.behaviour import COMPREHENSION, Behaviour

# Stimulus id -> pmi of the right sentence minus that of each mismatched one [frame, mismatched].
Contrasts = Mapping[str, np.ndarray]

PMI = "pmi"  # name of the array beside the rows: [question, candidate], NaN beyond a group's size


def pack_pmi(pmi: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the pmi of every question's candidates as one array, filled up with NaN."""
    if not pmi:
        return {}
    table = np.full((len(pmi), max(map(len, pmi))), np.nan)
    for line, values in enumerate(pmi):
        table[line, : len(values)] = values
    return {PMI: table}


def collect(rows: Sequence[Behaviour], pmi: np.ndarray, target: str) -> dict[str, np.ndarray]:
    """Return the contrasts of one variant's texts with the candidates of one target.

    ``pmi [question, candidate]`` belongs to the comprehension rows, in their order. Frames are in
    the order of their names.
    """
    asked = [row for row in rows if row.measure == COMPREHENSION]
    if len(asked) != len(pmi):
        raise ValueError(f"{len(pmi)} lines of pmi for {len(asked)} questions")
    found: dict[str, dict[str, np.ndarray]] = {}
    for row, values in zip(asked, pmi, strict=True):
        if row.target == target:
            known = values[~np.isnan(values)]
            found.setdefault(row.stimulus_id, {})[row.frame] = known[0] - known[1:]
    return {
        name: np.stack([by_frame[frame] for frame in sorted(by_frame)])
        for name, by_frame in found.items()
    }


def level(contrast: np.ndarray) -> float:
    """Return the mean of a text's contrast: how well it is understood, in nats."""
    return float(contrast.mean())
