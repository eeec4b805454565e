"""The curve of a sentence pair that a visitor types, computed with the suite's model."""

from __future__ import annotations

import numpy as np

from aya_probes import stimuli
from aya_probes.errors import StudyError
from aya_probes.extraction.vectors import residual_vectors
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.run_folder import RunPaths

MAX_CHARACTERS = 2_000


class PairModel:
    """Computes the curve of a sentence pair; keeps the last variant in memory."""

    def __init__(self, paths: RunPaths, device: str) -> None:
        self.suite = stimuli.load_manifest(paths.manifest).suite
        self.device = device
        self.loaded: tuple[str, LoadedModel] | None = None

    def cosine(self, variant: str, left: str, right: str) -> list[float]:
        """Return the raw cosine of two sentences at layers 0..L; StudyError for unusable text."""
        for text in (left, right):
            if not text.strip():
                raise StudyError("type a sentence in both boxes")
            if len(text) > MAX_CHARACTERS:
                raise StudyError(f"a sentence has at most {MAX_CHARACTERS} characters")
        a, b = (
            self._vectors(variant, which, text)
            for which, text in (("first", left), ("second", right))
        )
        norms = (a * a).sum(-1) ** 0.5 * (b * b).sum(-1) ** 0.5
        return [float(c) for c in (a * b).sum(-1) / norms]

    def _vectors(self, variant: str, which: str, text: str) -> np.ndarray:
        """Return a sentence's vectors, ``[layer, hidden]``."""
        loaded = self._load(variant)
        try:
            return residual_vectors(loaded, [text], pooling="content_mean")[0]
        except StudyError as error:
            reason = str(error).removeprefix("text 0: ")
            raise StudyError(f"the {which} sentence on {variant}: {reason}") from None

    def _load(self, name: str) -> LoadedModel:
        if self.loaded is None or self.loaded[0] != name:
            self.loaded = None  # frees the memory of the other variant before loading
            variant = self.suite.variant(name)
            device, _ = loading.choose_device(self.device)
            dtype = loading.choose_dtype("auto", device)
            source = loading.resolve_source(variant)
            self.loaded = name, loading.load_variant(variant, source, device=device, dtype=dtype)
        return self.loaded[1]
