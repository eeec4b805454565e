"""Re-analysis of the original study's published curves, which are not a run of this project.

The published numbers are raw cosines of the last token, one for each concept, language, variant and
layer, without a control. This module computes what follows from them, with intervals over the
20 concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aya_probes import files, project, records
from aya_probes.alignment import inference
from aya_probes.errors import StudyError

MAKE_PUBLISHED = "uv run viz/published_reanalysis.py"
PUBLISHED = project.ROOT / "data" / "published" / "tiny_aya_alignment_curves.json"
MAKE = "git checkout data/published"
FINE_TUNED = ("fire", "earth")
# The regions that the original study names for its two variants; neither targets fr and es.
SOUTH_ASIA, AFRICA_WEST_ASIA, UNTARGETED = (
    ("hi", "bn", "ta"),
    ("sw", "am", "yo", "ar"),
    ("fr", "es"),
)
MATCHED_LAYER = 20  # the peak that the original study reports ("layers 18-20")
CLAIMS = {"hi": 0.15, "am": 0.40}  # its headline claims: fire (hi) or earth (am) over base
CONSTANT = 1e-3  # concepts whose cosines differ by less have the same value
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate over the concepts, with its 95% interval."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Difference(Interval):
    """A mean difference over ``n`` concepts."""

    n: int


@dataclass(frozen=True)
class RegionDifference(Difference):
    """fire − earth in South Asia, minus fire − earth in Africa and West Asia."""

    p_language: float
    """p-value of the permutation test that exchanges regions between languages."""
    p_language_floor: float
    """Smallest p-value possible with so few languages."""


@dataclass(frozen=True)
class Claim:
    """A variant's mean cosine divided by base's, minus 1, for one language."""

    own_peaks: Interval
    """Each variant at its own peak layer, as the original study compared them."""
    layers_compared: tuple[int, int]
    """The two peak layers: the variant's and base's."""
    at_its_peak: Interval
    """Both at the variant's peak layer."""
    at_matched_layer: Interval
    """Both at ``MATCHED_LAYER``."""


@dataclass(frozen=True)
class Start:
    """The cosine at layer 0."""

    cosine: float
    constant: bool
    """Whether all concepts have the same cosine, which then comes from identical inputs."""


@dataclass(frozen=True)
class Peak:
    """The peak layer of a language, without layer 0 and final_norm."""

    layer: int
    cosine: float
    norm_step: float
    """Change of the cosine from the last block to final_norm."""


@dataclass(frozen=True)
class Reanalysis:
    """The content of ``results/published_reanalysis.json``."""

    __pydantic_config__ = records.STRICT

    source: str
    what: str
    layers: str
    """Description of the layers in the published file."""
    seed: int
    n_bootstrap: int
    code_sha256: str
    matched_layer: int
    claims: dict[str, dict[str, Claim]]
    """By fine-tuned variant and language."""
    difference: dict[str, dict[str, Difference]]
    """Variant − base at the matched layer, by variant and language."""
    difference_in_differences: dict[str, RegionDifference]
    """At the matched layer, and as the mean over all blocks."""
    layer_0: dict[str, dict[str, Start]]
    """By variant and language."""
    peaks: dict[str, dict[str, Peak]]
    """By variant and language."""


def load(path: Path = PUBLISHED) -> tuple[dict[str, str], list[str], dict[str, np.ndarray]]:
    """Return metadata, languages and cosines ``{variant: [concept, language, layer]}``.

    Raises StudyError if the file is missing, or lacks curves of a variant, concept or language.
    """
    raw = files.load_json(path, MAKE)
    try:
        curves = raw["curves"]
        languages = list(next(iter(next(iter(curves.values())).values())))
        cosines = {
            variant: np.array(
                [[row[code] for code in languages] for row in concepts.values()], float
            )
            for variant, concepts in curves.items()
        }
        shapes = {values.shape for values in cosines.values()}
        metadata = {key: str(raw["metadata"][key]) for key in ("source", "what", "layers")}
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise StudyError(
            f"{path}: curves: expected variant -> concept -> language -> layers "
            f"({error}); restore it with: {MAKE}"
        ) from None
    whole = all(np.isfinite(values).all() for values in cosines.values())
    if len(shapes) != 1 or not {"base", *FINE_TUNED} <= set(cosines) or not whole:
        raise StudyError(
            f"{path}: curves: variants are missing, differ in shape or have a number that is not "
            f"finite; restore it with: {MAKE}"
        )
    return metadata, languages, cosines


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _difference(values: np.ndarray, weights: np.ndarray) -> Difference:
    """Return the mean of ``values [n]`` over concepts, with its interval."""
    lower, upper = inference.expanded_interval(values, weights)
    return Difference(
        _round(float(values.mean())), _round(float(lower)), _round(float(upper)), len(values)
    )


def _ratio(top: np.ndarray, bottom: np.ndarray, weights: np.ndarray) -> Interval:
    """Return mean(top) / mean(bottom) − 1 with its bootstrap interval over concepts."""
    draws = (weights @ top) / (weights @ bottom) - 1
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return Interval(
        _round(float(top.mean() / bottom.mean() - 1)), _round(float(lower)), _round(float(upper))
    )


def analyse(seed: int, path: Path = PUBLISHED) -> Reanalysis:
    """Return the whole re-analysis; raises StudyError as ``load`` does."""
    metadata, languages, cosines = load(path)
    weights = inference.resample_weights(len(cosines["base"]), RESAMPLES, seed)
    peaks = {name: _peaks(languages, values) for name, values in cosines.items()}
    claims: dict[str, dict[str, Claim]] = {}
    differences: dict[str, dict[str, Difference]] = {}
    for variant in FINE_TUNED:
        claims[variant], differences[variant] = {}, {}
        for position, code in enumerate(languages):
            own, base = cosines[variant][:, position], cosines["base"][:, position]
            peak, base_peak = (peaks[name][code].layer for name in (variant, "base"))
            at_matched = own[:, MATCHED_LAYER], base[:, MATCHED_LAYER]
            claims[variant][code] = Claim(
                own_peaks=_ratio(own[:, peak], base[:, base_peak], weights),
                layers_compared=(peak, base_peak),
                at_its_peak=_ratio(own[:, peak], base[:, peak], weights),
                at_matched_layer=_ratio(*at_matched, weights),
            )
            differences[variant][code] = _difference(at_matched[0] - at_matched[1], weights)
    return Reanalysis(
        source=metadata["source"],
        what=metadata["what"],
        layers=metadata["layers"],
        seed=seed,
        n_bootstrap=RESAMPLES,
        code_sha256=project.source_hash(),
        matched_layer=MATCHED_LAYER,
        claims=claims,
        difference=differences,
        difference_in_differences=_regions(languages, cosines, weights),
        layer_0={name: _layer_0(languages, values) for name, values in cosines.items()},
        peaks=peaks,
    )


def _layer_0(languages: Sequence[str], values: np.ndarray) -> dict[str, Start]:
    start = values[:, :, 0]
    return {
        code: Start(_round(float(start[:, n].mean())), bool(np.ptp(start[:, n]) < CONSTANT))
        for n, code in enumerate(languages)
    }


def _peaks(languages: Sequence[str], values: np.ndarray) -> dict[str, Peak]:
    means = values.mean(0)
    last = means.shape[1] - 1
    return {
        code: Peak(
            layer=int(mean[1:last].argmax()) + 1,
            cosine=_round(float(mean[1:last].max())),
            norm_step=_round(float(mean[last] - mean[last - 1])),
        )
        for code, mean in zip(languages, means, strict=True)
    }


def _regions(
    languages: Sequence[str], cosines: dict[str, np.ndarray], weights: np.ndarray
) -> dict[str, RegionDifference]:
    chosen = [languages.index(code) for code in (*SOUTH_ASIA, *AFRICA_WEST_ASIA)]
    targeted = np.arange(len(chosen)) < len(SOUTH_ASIA)
    gap = (cosines["fire"] - cosines["earth"])[:, chosen]
    blocks = list(range(1, gap.shape[2] - 1))
    result = {}
    for name, layers in (("matched_layer", [MATCHED_LAYER]), ("all_blocks", blocks)):
        here = gap[:, :, layers].mean(2)
        p, floor = inference.label_permutation_p(here.mean(0), targeted)
        found = _difference(here[:, targeted].mean(1) - here[:, ~targeted].mean(1), weights)
        result[name] = RegionDifference(
            found.estimate, found.lower, found.upper, found.n, _round(p), _round(floor)
        )
    return result


def ratio_table(found: Reanalysis) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a table of the ratios to base, by language."""

    def ratio(entry: Interval) -> str:
        return f"{entry.estimate:+.0%} [{entry.lower:+.0%}, {entry.upper:+.0%}]"

    header, rows = ["language"], []
    for variant in FINE_TUNED:
        header += [
            f"{variant} / base, own peaks (layers)",
            f"{variant} / base, layer {found.matched_layer}",
        ]
    for code in found.claims[FINE_TUNED[0]]:
        line = [code]
        for variant in FINE_TUNED:
            claim = found.claims[variant][code]
            layers = " vs ".join(map(str, claim.layers_compared))
            line += [f"{ratio(claim.own_peaks)} ({layers})", ratio(claim.at_matched_layer)]
        start = found.layer_0["base"][code]
        fixed = ", the same for all concepts" if start.constant else ""
        rows.append([*line, f"{start.cosine:.2f}{fixed}"])
    return [*header, "base, cosine at layer 0"], rows
