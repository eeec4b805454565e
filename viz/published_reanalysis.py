"""Re-analyse the curves that the original study published, and draw what they can and cannot show.

The published numbers are raw cosines of the last token, one per concept, language, variant and
layer, with no control: what follows from them is read off here, with intervals over the 20
concepts. These are the original study's figures on Tiny Aya, never a run of this project.

Reads:  data/published/tiny_aya_alignment_curves.json
Writes: results/published_reanalysis.json, assets/published_reanalysis.png (+ .csv)

    uv run viz/published_reanalysis.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_probes import command_line, files, project
from aya_probes import figures as style
from aya_probes.alignment import inference
from aya_probes.errors import StudyError
from aya_probes.run_folder import RunPaths

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
        raise StudyError(f"{path}: curves: not variant -> concept -> language -> layers "
                         f"({error}); restore it with: {MAKE}") from None  # fmt: skip
    if len(shapes) != 1 or not {"base", *FINE_TUNED} <= set(cosines):
        raise StudyError(f"{path}: curves: variants differ in shape or are missing; "
                         f"restore it with: {MAKE}")  # fmt: skip
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
    n = len(cosines["base"])
    weights = inference.resample_weights(n, RESAMPLES, seed)
    at = {code: position for position, code in enumerate(languages)}
    last = cosines["base"].shape[2] - 1
    found: dict[str, Any] = {"layer_0": {}, "peaks": {}, "claims": {}, "difference": {}}
    for variant, values in cosines.items():
        spread = np.ptp(values[:, :, 0], axis=0)
        found["layer_0"][variant] = {
            code: {
                "cosine": files.finite(float(values[:, at[code], 0].mean()), 4),
                "constant": bool(spread[at[code]] < CONSTANT),
            }
            for code in languages
        }
        means = values.mean(0)
        found["peaks"][variant] = {
            code: {
                "layer": int(means[at[code], 1:last].argmax()) + 1,  # without embedding and norm
                "cosine": files.finite(float(means[at[code], 1:last].max()), 4),
                "norm_step": files.finite(
                    float(means[at[code], last] - means[at[code], last - 1]), 4
                ),
            }
            for code in languages
        }
    for variant in FINE_TUNED:
        for code in languages:
            own, base = cosines[variant][:, at[code]], cosines["base"][:, at[code]]
            peak = found["peaks"][variant][code]["layer"]
            base_peak = found["peaks"]["base"][code]["layer"]
            found["claims"].setdefault(variant, {})[code] = {
                "own_peaks": _ratio(own[:, peak], base[:, base_peak], weights),
                "layers_compared": [peak, base_peak],
                "at_its_peak": _ratio(own[:, peak], base[:, peak], weights),
                "at_matched_layer": _ratio(own[:, MATCHED_LAYER], base[:, MATCHED_LAYER], weights),
            }
            found["difference"].setdefault(variant, {})[code] = _estimate(
                own[:, MATCHED_LAYER] - base[:, MATCHED_LAYER], weights
            )
    found["difference_in_differences"] = _regions(languages, cosines, weights, last)
    found["matched_layer"] = MATCHED_LAYER
    return found


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


def plot(
    metadata: dict[str, Any], languages: Sequence[str], cosines: dict[str, np.ndarray],
    found: dict[str, Any],
) -> tuple[Any, list[dict[str, Any]]]:  # fmt: skip
    """Return the figure (curves of four languages; fire − base everywhere) and its numbers."""
    from matplotlib.figure import Figure

    colours = dict(zip(cosines, style.PALETTE, strict=False))
    figure = Figure(figsize=(13, 7), layout="constrained")
    grid = figure.subplots(2, 3)
    rows: list[dict[str, Any]] = []
    for axes, code in zip(grid.flat[:4], ("hi", "am", "fr", "sw"), strict=True):
        for variant, values in cosines.items():
            mean = values[:, languages.index(code)].mean(0)
            axes.plot(mean[:-1], color=colours[variant], lw=1.6, label=variant)
            axes.plot(len(mean) + 0.5, mean[-1], "o", color=colours[variant], ms=4)
            rows += [
                {"panel": code, "variant": variant, "layer": layer, "value": value}
                for layer, value in enumerate(mean)
            ]
        axes.axvline(MATCHED_LAYER, color="black", lw=0.6, ls=":")
        start = found["layer_0"]["base"][code]
        what = "one value for all concepts" if start["constant"] else "varies over concepts"
        axes.plot(0, start["cosine"], "x", color="#a00000", ms=9, mew=2)
        axes.annotate(
            f"layer 0: {start['cosine']:.2f}, {what}", (0, start["cosine"]), (1.2, 0.03),
            textcoords=("data", "axes fraction"), color="#a00000", fontsize=8,
        )  # fmt: skip
        axes.set_title(f"English - {style.language_name(code)}", fontsize=10)
        axes.set_ylim(-0.1, 1.05)
    grid[0][0].legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 0.08))
    grid[0][0].set_ylabel("raw cosine, last token")
    rows += _difference_panel(grid[1][1], found, languages)
    _words(grid[1][2], found)
    figure.suptitle(
        "Published curves, re-analysed: the original study's figures on Tiny Aya, "
        "not a run of this project\nraw cosine of the last token, no mismatched control; "
        f"dot: after the final norm; dotted line: layer {MATCHED_LAYER}",
        fontsize=9,
    )
    return figure, rows


def _difference_panel(
    axes: Any, found: dict[str, Any], languages: Sequence[str]
) -> list[dict[str, Any]]:
    """Draw fire − base and earth − base per language; returns the numbers drawn."""
    order = [*SOUTH_ASIA, *AFRICA_WEST_ASIA, *UNTARGETED]
    rows = []
    for shift, variant in ((-0.15, "fire"), (0.15, "earth")):
        entries = [found["difference"][variant][code] for code in order]
        mean = [entry["estimate"] for entry in entries]
        error = [
            [m - entry["lower"] for m, entry in zip(mean, entries, strict=True)],
            [entry["upper"] - m for m, entry in zip(mean, entries, strict=True)],
        ]
        colour = style.PALETTE[1 if variant == "fire" else 2]
        places = [n + shift for n in range(len(order))]
        axes.errorbar(places, mean, yerr=error, fmt="o", color=colour, ms=4, label=variant)
        rows += [
            {"panel": "difference", "variant": variant, "language": code, "value": e["estimate"],
             "lower": e["lower"], "upper": e["upper"]}
            for code, e in zip(order, entries, strict=True)
        ]  # fmt: skip
    axes.axvspan(len(order) - len(UNTARGETED) - 0.5, len(order) - 0.5, color="#eeeeee", zorder=0)
    axes.set_xticks(range(len(order)), order)
    axes.set_ylim(bottom=0)
    axes.set_title(f"variant - base at layer {MATCHED_LAYER}; grey: nobody's target", fontsize=10)
    axes.legend(fontsize=8)
    return rows


def _words(axes: Any, found: dict[str, Any]) -> None:
    """Write what can and cannot be decided."""
    did = found["difference_in_differences"]["matched_layer"]
    hindi, amharic = found["claims"]["fire"]["hi"], found["claims"]["earth"]["am"]
    french = found["claims"]["fire"]["fr"]
    lines = [
        f"fire over base, Hindi, own peaks (layers {hindi['layers_compared'][0]} and "
        f"{hindi['layers_compared'][1]}): {hindi['own_peaks']['estimate']:+.0%}",
        f"  at layer {MATCHED_LAYER} of both: {hindi['at_matched_layer']['estimate']:+.0%}",
        f"earth over base, Amharic, layer {MATCHED_LAYER}: "
        f"{amharic['at_matched_layer']['estimate']:+.0%}",
        f"fire over base, French (nobody's target): {french['at_matched_layer']['estimate']:+.0%}",
        "",
        f"(fire - earth): South Asia minus Africa/W. Asia: {did['estimate']:+.3f}",
        f"  [{did['lower']:.3f}, {did['upper']:.3f}] over concepts;",
        f"  p = {did['p_language']:.3f} over languages (floor {did['p_language_floor']:.3f})",
        "",
        "Not decidable from these files: alignment above",
        "mismatched sentences; concept apart from sentence;",
        "region apart from post-training (no global variant);",
        "architecture alone (no untrained variant).",
    ]
    axes.axis("off")
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=9, transform=axes.transAxes)


def run(run_dir: Path, seed: int) -> list[Path]:
    """Analyse, draw and save; returns the paths written."""
    import pandas as pd

    paths = RunPaths(run_dir)
    metadata, languages, cosines = load()
    found = analyse(languages, cosines, seed)
    document = {
        "source": metadata["source"],
        "what": metadata["what"],
        "layers": metadata["layers"],
        "seed": seed,
        "n_bootstrap": RESAMPLES,
        "code_sha256": project.source_hash(),
        **found,
    }
    files.save_json(paths.published, document)
    figure, rows = plot(metadata, languages, cosines, found)
    return [
        paths.published,
        style.save(figure, pd.DataFrame(rows), paths.assets / "published_reanalysis.png"),
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    return command_line.common_parser(
        "viz/published_reanalysis.py", "Re-analyse the original study's curves.", "seed"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and re-analyse; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        for path in run(args.run_dir, args.seed):
            print(path)

    return command_line.run_stage("viz/published_reanalysis.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
