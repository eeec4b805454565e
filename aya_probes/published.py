"""The original study's published curves, re-analysed; never a run of this project.

The published numbers are raw cosines of the last token, one per concept, language, variant and
layer, with no control. What follows from them is read off here, with intervals over the 20
concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_probes import files, project
from aya_probes.alignment import inference
from aya_probes.errors import StudyError

MAKE_PUBLISHED = "uv run viz/published_reanalysis.py"
PUBLISHED = project.ROOT / "data" / "published" / "tiny_aya_alignment_curves.json"
MAKE = "git checkout data/published"
FINE_TUNED = ("fire", "earth")
# What the original calls the regions of its two variants; fr and es are nobody's target.
SOUTH_ASIA, AFRICA_WEST_ASIA, UNTARGETED = (
    ("hi", "bn", "ta"),
    ("sw", "am", "yo", "ar"),
    ("fr", "es"),
)
MATCHED_LAYER = 20  # the original's own peak ("layers 18-20")
CLAIMS = {"hi": 0.15, "am": 0.40}  # its headline: fire or earth over base
CONSTANT = 1e-3  # concepts whose cosines differ by less than this have one value
RESAMPLES = 10_000


def load(path: Path = PUBLISHED) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    """Return metadata, languages and cosines ``{variant: [concept, language, layer]}``.

    Raises StudyError where the file is missing or its curves do not fill a box.
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
        metadata = dict(raw["metadata"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise StudyError(
            f"{path}: curves: not variant -> concept -> language -> layers "
            f"({error}); restore it with: {MAKE}"
        ) from None
    if len(shapes) != 1 or not {"base", *FINE_TUNED} <= set(cosines):
        raise StudyError(
            f"{path}: curves: variants differ in shape or are missing; restore it with: {MAKE}"
        )
    return metadata, languages, cosines


def _estimate(values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Return the mean over concepts ``[n]`` with its interval."""
    lower, upper = inference.expanded_interval(values, weights)
    return {
        "estimate": files.finite(float(values.mean()), 4),
        "lower": files.finite(float(lower), 4),
        "upper": files.finite(float(upper), 4),
        "n": len(values),
    }


def _ratio(top: np.ndarray, bottom: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Return mean(top) / mean(bottom) − 1 with its bootstrap interval over concepts."""
    draws = (weights @ top) / (weights @ bottom) - 1
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return {
        "estimate": files.finite(float(top.mean() / bottom.mean() - 1), 4),
        "lower": files.finite(float(lower), 4),
        "upper": files.finite(float(upper), 4),
    }


def analyse(languages: Sequence[str], cosines: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Return every number of the re-analysis (docs/artifacts.md)."""
    weights = inference.resample_weights(len(cosines["base"]), RESAMPLES, seed)
    last = cosines["base"].shape[2] - 1
    peaks = {name: _peaks(languages, values) for name, values in cosines.items()}
    found: dict[str, Any] = {"claims": {}, "difference": {}, "peaks": peaks}
    found["layer_0"] = {name: _layer_0(languages, values) for name, values in cosines.items()}
    for variant in FINE_TUNED:
        claims, differences = {}, {}
        for position, code in enumerate(languages):
            own, base = cosines[variant][:, position], cosines["base"][:, position]
            peak, base_peak = (peaks[name][code]["layer"] for name in (variant, "base"))
            at_matched = own[:, MATCHED_LAYER], base[:, MATCHED_LAYER]
            claims[code] = {
                "own_peaks": _ratio(own[:, peak], base[:, base_peak], weights),
                "layers_compared": [peak, base_peak],
                "at_its_peak": _ratio(own[:, peak], base[:, peak], weights),
                "at_matched_layer": _ratio(*at_matched, weights),
            }
            differences[code] = _estimate(at_matched[0] - at_matched[1], weights)
        found["claims"][variant], found["difference"][variant] = claims, differences
    found["difference_in_differences"] = _regions(languages, cosines, weights, last)
    found["matched_layer"] = MATCHED_LAYER
    return found


def _layer_0(languages: Sequence[str], values: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the cosine at layer 0 by language, and whether all concepts have the same one."""
    start = values[:, :, 0]
    return {
        code: {
            "cosine": files.finite(float(start[:, n].mean()), 4),
            "constant": bool(np.ptp(start[:, n]) < CONSTANT),
        }
        for n, code in enumerate(languages)
    }


def _peaks(languages: Sequence[str], values: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the best layer by language, the embedding and the final norm left out."""
    means = values.mean(0)
    last = means.shape[1] - 1
    return {
        code: {
            "layer": int(mean[1:last].argmax()) + 1,
            "cosine": files.finite(float(mean[1:last].max()), 4),
            "norm_step": files.finite(float(mean[last] - mean[last - 1]), 4),
        }
        for code, mean in zip(languages, means, strict=True)
    }


def _regions(
    languages: Sequence[str], cosines: dict[str, np.ndarray], weights: np.ndarray, last: int
) -> dict[str, Any]:
    """Return fire − earth on South Asia minus the same on Africa and West Asia."""
    chosen = [languages.index(code) for code in (*SOUTH_ASIA, *AFRICA_WEST_ASIA)]
    targeted = np.arange(len(chosen)) < len(SOUTH_ASIA)
    gap = (cosines["fire"] - cosines["earth"])[:, chosen]
    result = {}
    for name, layers in (("matched_layer", [MATCHED_LAYER]), ("all_blocks", list(range(1, last)))):
        here = gap[:, :, layers].mean(2)
        p, floor = inference.label_permutation_p(here.mean(0), targeted)
        result[name] = {
            **_estimate(here[:, targeted].mean(1) - here[:, ~targeted].mean(1), weights),
            "p_language": files.finite(p, 4),
            "p_language_floor": files.finite(floor, 4),
        }
    return result


def ratio_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the published headline ratios, per language."""

    def ratio(entry: dict[str, float]) -> str:
        return f"{entry['estimate']:+.0%} [{entry['lower']:+.0%}, {entry['upper']:+.0%}]"

    header, rows = ["language"], []
    for variant in ("fire", "earth"):
        header += [
            f"{variant} / base, own peaks (layers)",
            f"{variant} / base, layer {found['matched_layer']}",
        ]
    for code in found["claims"]["fire"]:
        line = [code]
        for variant in ("fire", "earth"):
            entry = found["claims"][variant][code]
            layers = " vs ".join(map(str, entry["layers_compared"]))
            line += [f"{ratio(entry['own_peaks'])} ({layers})", ratio(entry["at_matched_layer"])]
        start = found["layer_0"]["base"][code]
        fixed = ", the same for all concepts" if start["constant"] else ""
        rows.append([*line, f"{start['cosine']:.2f}{fixed}"])
    return [*header, "base, cosine at layer 0"], rows
