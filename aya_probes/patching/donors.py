"""Which concept's vector is put into the prompt of which other."""

from __future__ import annotations

import numpy as np

from aya_probes.errors import StudyError

LEAST_OF_A_HALF = 3


def donors(half: np.ndarray, seed: int) -> np.ndarray:
    """Return for each concept the number of the one whose vector is put into its prompt, ``[n]``.

    A random cycle within each half: it is never the concept asked for, and never one whose answer
    the shots show. Raises StudyError for a half of fewer than three concepts: the one asked for,
    the one put in, and a wrong one.
    """
    rng = np.random.default_rng([seed, len(half), 12])
    found = np.empty(len(half), dtype=int)
    for label in np.unique(half):
        members = np.flatnonzero(half == label)
        if len(members) < LEAST_OF_A_HALF:
            raise StudyError(
                f"{len(members)} concepts share their shots, at least {LEAST_OF_A_HALF} are needed "
                "to put one into the prompt of another; take more concepts"
            )
        cycle = rng.permutation(members)
        found[cycle] = np.roll(cycle, 1)
    return found
