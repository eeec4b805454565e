"""What the patching stage would measure on a planted translator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aya_probes.patching import donors, engine, vectors
from aya_probes.patching.analysis import Measurement
from aya_probes.patching.engine import Setup, Way
from aya_probes.planted import patchable

TARGET, GIVEN, SOURCES = "en", "fr", ("sw", "hi")


def measure(kind: patchable.Kind, gather: int, read: int, way: Way = "cached") -> Measurement:
    """Return what patching measures on the planted translator, in the arrays of the stage."""
    loaded = patchable.model(kind, gather, read)
    setup, n = Setup(loaded, way), patchable.CONCEPTS
    names = [f"C{c:02d}" for c in range(n)]
    asked = [patchable.prompt(GIVEN, TARGET, c) for c in range(n)]
    streams = {
        code: engine.capture(setup, [patchable.prompt(code, code, c) for c in range(n)])
        for code in SOURCES
    }
    own = engine.capture(setup, asked)
    donor = torch.from_numpy(donors.donors(np.arange(n) % 2, seed=0))
    named = vectors.sources(streams, own, donor) | vectors.controls(streams, own, donor, seed=0)
    conditions, stacked = vectors.stack(named)

    def read_words(logits: torch.Tensor) -> torch.Tensor:
        first = patchable.word_token(patchable.LANGUAGES[0], 0)
        count = len(patchable.LANGUAGES) * n
        return torch.log_softmax(logits, -1)[:, first : first + count]

    def table(log_p: torch.Tensor) -> np.ndarray:
        shaped = log_p.unflatten(-1, (len(patchable.LANGUAGES), n)).numpy()
        return shaped[donor.argsort().numpy()]

    layers = range(loaded.n_blocks)
    place = list(conditions).index(f"{vectors.MEAN}:{vectors.ALL_SOURCES}")
    onward, single = (
        table(
            engine.patched(setup, asked, chosen, read_words, layers=layers, onward=mode)
        ).transpose(1, 2, 0, 3, 4)
        for chosen, mode in ((stacked, True), (stacked[:, [place]], False))
    )
    arrays = {
        f"{TARGET}/onward": onward,
        f"{TARGET}/single": single,
        f"{TARGET}/before": table(engine.unpatched(setup, asked, read_words)),
    }
    rows: list[dict[str, Any]] = [
        {
            "kind": "tokens",
            "way": way,
            "languages": list(patchable.LANGUAGES),
            "concepts": names,
            "layers": loaded.n_blocks,
        },
        {
            "kind": "patch",
            "target": TARGET,
            "given": GIVEN,
            "sources": list(SOURCES),
            "conditions": list(conditions),
            "concepts": names,
            "asked": [names[j] for j in donor.argsort().tolist()],
            "exact": [],
        },
    ]
    return Measurement(kind, rows, arrays)
