"""Pairs of sentences that a visitor types, read by the suite's models."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aya_probes import errors, stimuli
from aya_probes.errors import StudyError
from aya_probes.extraction import store
from aya_probes.extraction.vectors import encode_texts, residual_vectors
from aya_probes.models import loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.page.typed import Placed, Reference, place, reference
from aya_probes.run_folder import RunPaths
from aya_probes.stimuli import Stimulus

MAX_CHARACTERS = 2_000
MAX_PAIRS = 20
MAX_BYTES = 200_000  # of a CSV
COLUMNS = ("language_a", "text_a", "language_b", "text_b")
KIND = {True: "probe", False: "parallel"}


@dataclass(frozen=True)
class TypedPair:
    """Two sentences with their languages."""

    language_a: str
    text_a: str
    language_b: str
    text_b: str


@dataclass(frozen=True)
class PairResult:
    """What a variant makes of a pair."""

    variant: str
    pieces: tuple[list[str], list[str]]
    """The tokens of both sentences, as the tokenizer writes them."""
    placed: Placed
    among: Reference


def read_pairs(content: bytes) -> list[TypedPair]:
    """Return the pairs of a CSV with the columns ``COLUMNS``.

    Raises StudyError for a file that is too large, is no UTF-8, or has other columns or no rows.
    """
    if len(content) > MAX_BYTES:
        raise StudyError(f"the file has {len(content)} bytes, at most {MAX_BYTES} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StudyError("the file is not UTF-8; save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text))
    found = tuple(reader.fieldnames or ())
    if set(found) != set(COLUMNS):
        shown = errors.escape_hidden(", ".join(map(str, found)))[:200] or "none"
        raise StudyError(f"the columns are {shown}; expected {', '.join(COLUMNS)}")
    pairs = [TypedPair(**{name: row[name] or "" for name in COLUMNS}) for row in reader]
    if not pairs:
        raise StudyError("the file has no pair below its header")
    if len(pairs) > MAX_PAIRS:
        raise StudyError(f"the file has {len(pairs)} pairs, at most {MAX_PAIRS} are computed")
    return pairs


class PairModel:
    """Places typed pairs among the run's own sentences; keeps the last variant in memory."""

    def __init__(self, paths: RunPaths, device: str) -> None:
        self.paths = paths
        self.manifest = stimuli.load_manifest(paths.manifest)
        self.suite = self.manifest.suite
        self.device = device
        self.loaded: tuple[str, LoadedModel] | None = None
        self.references: dict[tuple[str, str, str], Reference] = {}

    def check(self, pair: TypedPair) -> None:
        """Raise StudyError for a language that the suite lacks, or a sentence out of bounds."""
        for which, code, text in (
            ("first", pair.language_a, pair.text_a),
            ("second", pair.language_b, pair.text_b),
        ):
            if code not in self.suite.languages:
                raise StudyError(
                    f"the {which} sentence: the suite {self.suite.name} has no language {code!r}, "
                    "so nothing is known of how its vectors lie; "
                    f"choose one of {', '.join(self.suite.languages)}"
                )
            if not text.strip():
                raise StudyError("type a sentence in both boxes")
            if len(text) > MAX_CHARACTERS:
                raise StudyError(
                    f"the {which} sentence has {len(text)} characters; at most {MAX_CHARACTERS}"
                )
        if pair.language_a == pair.language_b:
            raise StudyError("both sentences are in one language; choose two languages")

    def compute(self, pair: TypedPair, variants: Sequence[str]) -> Iterator[PairResult]:
        """Yield what each variant makes of a pair; StudyError as ``check``, or unreadable text."""
        self.check(pair)
        for variant in variants:
            loaded = self._load(variant)
            a = self._vectors(loaded, f"the first sentence on {variant}", pair.text_a)
            b = self._vectors(loaded, f"the second sentence on {variant}", pair.text_b)
            among = self._reference(variant, pair.language_a, pair.language_b)
            pieces = self._pieces(loaded, pair.text_a), self._pieces(loaded, pair.text_b)
            yield PairResult(variant, pieces, place(a, b, among), among)

    def _reference(self, variant: str, left: str, right: str) -> Reference:
        """Return the run's own pairs of two languages, from its activations."""
        key = (variant, left, right)
        if key not in self.references:
            folder = self.paths.activations / variant
            activations = store.open_activations(folder, self.manifest.sha256)
            rows = {code: self._sentences(code) for code in (left, right)}
            shared = sorted(rows[left].keys() & rows[right].keys())
            items = sorted({item for item, _ in shared})
            meaning = np.array([items.index(item) for item, _ in shared])
            vectors = (
                activations.take("content_mean", [rows[code][k].stimulus_id for k in shared])
                for code in (left, right)
            )
            a, b = (found[:, :-1] for found in vectors)  # without final_norm
            self.references[key] = reference(a, b, meaning)
        return self.references[key]

    def _sentences(self, code: str) -> dict[tuple[str, int], Stimulus]:
        """Return the probes of a language by concept and wording, or the items of the corpus."""
        kind = KIND[any(s.kind == "probe" for s in self.manifest.stimuli)]
        return {
            (s.item_id, s.wording or 0): s
            for s in self.manifest.stimuli
            if s.kind == kind and s.language == code
        }

    def _vectors(self, loaded: LoadedModel, name: str, text: str) -> np.ndarray:
        """Return a sentence's vectors, ``[layer, hidden]``."""
        try:
            return residual_vectors(loaded, [text], pooling="content_mean")[0]
        except StudyError as error:
            reason = str(error).removeprefix("text 0: ")
            raise StudyError(f"{name}: {reason}") from None

    def _pieces(self, loaded: LoadedModel, text: str) -> list[str]:
        ids = encode_texts(loaded, [text])[0].token_ids
        return [str(piece) for piece in loaded.tokenizer.convert_ids_to_tokens(ids)]

    def _load(self, name: str) -> LoadedModel:
        if self.loaded is None or self.loaded[0] != name:
            self.loaded = None  # frees the memory of the other variant before loading
            variant = self.suite.variant(name)
            device, _ = loading.choose_device(self.device)
            dtype = loading.choose_dtype("auto", device)
            source = loading.resolve_source(variant)
            self.loaded = name, loading.load_variant(variant, source, device=device, dtype=dtype)
        return self.loaded[1]
