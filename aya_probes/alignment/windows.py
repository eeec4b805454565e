"""The windows of layers over which a contrast averages (ADR-016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes.alignment import inference

ALL, MIDDLE, PEAK = "all", "middle", "peak"
WINDOWS = (ALL, MIDDLE, PEAK)
"""Layers 1..L (the primary window), the middle third of them, and the reference's peak ± 2."""
HALF_WINDOW = 2


@dataclass(frozen=True)
class Windows:
    """Averages over layers of ``values[variant, language] [layer, n]``, final_norm last."""

    values: Mapping[tuple[str, str], np.ndarray]
    reference: str
    """The variant whose peak places the peak window."""
    groups: np.ndarray
    seed: int

    @property
    def last(self) -> int:
        """L, the last layer."""
        return len(next(iter(self.values.values()))) - 2

    @property
    def middle(self) -> tuple[int, int]:
        """First and last layer of the middle third of 1..L."""
        third = self.last / 3
        return int(np.floor(third)) + 1, int(np.ceil(2 * third))

    def read(self, variant: str, code: str, window: str) -> np.ndarray:
        """Return each item's mean over the window, ``[n]``."""
        curve = self.values[variant, code][:-1]
        if window == ALL:
            return np.asarray(curve[1:].mean(0))
        if window == MIDDLE:
            first, last = self.middle
            return np.asarray(curve[first : last + 1].mean(0))
        result = np.empty(curve.shape[1])
        for mine, peak in self.halves(code):
            low, high = max(1, peak - HALF_WINDOW), peak + HALF_WINDOW + 1
            result[mine] = curve[low:high, mine].mean(0)
        return result

    def halves(self, code: str) -> list[tuple[np.ndarray, int]]:
        """Return each half of the items (bool) with the peak of the reference on the other half.

        Whole groups go to one half, so that choosing the window is independent of measuring in it.
        """
        curve = self.values[self.reference, code][:-1]
        first, _ = inference.halves(int(self.groups.max()) + 1, self.seed)
        mine = np.isin(self.groups, first)
        return [
            (half, 1 + int(np.nanmean(curve[1:, ~half], axis=1).argmax())) for half in (mine, ~mine)
        ]

    def text(self, window: str, codes: Sequence[str]) -> str:
        """Return the layers of a window as text, such as ``7-12``."""
        if window == ALL:
            return f"1-{self.last}"
        if window == MIDDLE:
            return "{}-{}".format(*self.middle)
        if len(codes) > 1:
            return "per language"
        return " / ".join(
            f"{max(1, peak - HALF_WINDOW)}-{min(self.last, peak + HALF_WINDOW)}"
            for _, peak in self.halves(codes[0])
        )
