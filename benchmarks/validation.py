"""Try measures and tests on planted truth: error rates, coverage, power, what must not pass.

Every table is over many draws of ``planted.draw``; the answer is known by construction. The numbers
go to docs/validation.json and from there into docs/validation.md.

Reads:  docs/validation.md (its prose), results/ (the artefact on purpose)
Writes: docs/validation.json, docs/validation.md

    uv run benchmarks/validation.py
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from aya_probes import command_line, files, project
from aya_probes.alignment import inference, layers, measures
from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import LAYERS, Plant

PERMUTATIONS = 999
RESAMPLES = 1_000
NOMINAL = 0.05
POWER_N = (10, 20, 50, 100)
Records = list[dict[str, Any]]  # lines of one table


def _flat(alignment: float) -> np.ndarray:
    return np.full(LAYERS, planted.strength(alignment))


def _curve(*points: tuple[int, float]) -> np.ndarray:
    """Return concept strengths whose alignment runs linearly through (layer, alignment)."""
    at, values = zip(*points, strict=True)
    return planted.strength(np.interp(np.arange(LAYERS), at, values))


def island(peak: float) -> np.ndarray:
    """Shared between layers 6 and 12, ramps of three layers, nothing elsewhere."""
    return _curve((3, 0.0), (6, peak), (12, peak), (15, 0.0))


# --- draws (each takes a seed and returns numbers) --------------------------------------------


def false_positives(plant: Plant, languages: int, seed: int) -> list[float]:
    """Return whether max-T rejects at any layer: per language, and jointly over languages."""
    matrix = planted.matrices(planted.draw(plant, seed, languages)[0])
    own, joint = inference.max_t(matrix, inference.permutations(plant.n, PERMUTATIONS, seed))
    return [float((own[0, 1:] <= NOMINAL).any()), float((joint[:, 1:] <= NOMINAL).any())]


def covered(plant: Plant, truth: np.ndarray, seed: int) -> list[float]:
    """Return the share of layers whose interval covers the truth, and the mean estimate's error."""
    values = measures.alignment(planted.matrices(planted.draw(plant, seed)[0]))[0]
    lower, upper = inference.expanded_interval(
        values, inference.resample_weights(plant.n, RESAMPLES, seed)
    )
    return [
        float(((lower <= truth) & (truth <= upper)).mean()),
        float((values.mean(1) - truth).mean()),
        float((upper - lower).mean()),
    ]


def contrast(plant: Plant, change: np.ndarray | None, truth: float, seed: int) -> list[float]:
    """Return whether a paired contrast at layer 9 is called, and whether its interval covers."""
    left = planted.draw(plant, seed, variants=2)
    if change is not None:
        left[1] = planted.draw(replace(plant, concept=change), seed, variants=2)[1]
    one, two = (measures.alignment(planted.matrices(v[:, :, :, 9:10]))[0, 0] for v in left)
    difference = two - one
    lower, upper = inference.expanded_interval(
        difference, inference.resample_weights(plant.n, RESAMPLES, seed)
    )
    p = inference.sign_flip_p(difference, count=PERMUTATIONS, seed=seed)
    return [float(p <= NOMINAL), float(lower <= truth <= upper)]


def shape(plant: Plant, norm_as_last_layer: bool, seed: int) -> list[float]:
    """Return the label found, one-hot over LABELS."""
    vectors = planted.draw(plant, seed)[0]
    if norm_as_last_layer:  # a final norm that takes the concept signal away
        bare = planted.draw(replace(plant, concept=np.zeros(LAYERS)), seed)[0]
        vectors[..., -1, :] = bare[..., -1, :]
    label, _ = layers.shape_label(measures.alignment(planted.matrices(vectors))[0], seed=seed)
    return [float(label == name) for name in LABELS]


LABELS = ("RISE_PEAK_COLLAPSE", "MONOTONE_RISE", "MONOTONE_FALL", "FLAT", "UNRESOLVED")


def committed(plant: Plant, truth: tuple[int, int] | None, seed: int) -> list[float]:
    """Return: committed at all, commitment and release within one layer, concepts committed."""
    vectors = planted.draw(plant, seed)[0]
    centred = [measures.mean_centre(v) for v in vectors]
    similarity = measures.cosines(*centred)
    matrix = measures.wording_mean(similarity, same_wording=False)
    p = inference.permutation_p(matrix, inference.permutations(plant.n, 499, seed))
    mean = measures.alignment(matrix).mean(1)
    layer = layers.commitment_layer(mean, p)
    release = None if layer is None else layers.release_layer(mean, p, layer)
    near = [False, False]
    if truth is not None and layer is not None:
        near = [abs(layer - truth[0]) <= 1, release is not None and abs(release - truth[1]) <= 1]
    different = ~np.eye(plant.wordings, dtype=bool)
    wins = measures.retrieval(similarity[:, different])["two_way"].mean(1)
    single = [found is not None for found in layers.concept_commitment(wins)]
    rate = layers.mismatched_commitment(similarity[:, different])
    return [float(layer is not None), *map(float, near), float(np.mean(single)), rate]


def misled(plant: Plant, seed: int) -> list[float]:
    """Return raw cosine (matched, mismatched), the published rule's call, and ours."""
    vectors = planted.draw(plant, seed)[0]
    raw = measures.wording_mean(measures.cosines(*vectors), same_wording=True)
    matched = np.diagonal(raw, axis1=1, axis2=2).mean(1)
    concept, sentence = (planted.matrices(vectors, same_wording=same)[0] for same in (False, True))
    orders = inference.permutations(plant.n, PERMUTATIONS, seed)
    called = [
        (inference.permutation_p(m, orders)[1:] <= NOMINAL).any() for m in (concept, sentence)
    ]
    return [
        float(matched.mean()),
        float(measures.mismatched(raw).mean()),
        float(layers.first_run(matched >= 0.85, start=0) is not None),
        *map(float, called),
        float(measures.alignment(concept)[:, :].mean()),
    ]


# --- experiments ------------------------------------------------------------------------------

Run = Callable[[Callable[[int], list[float]], int], np.ndarray]
NULL = Plant()


def family_wise(run: Run, draws: int) -> Records:
    """False positives of max-T where no concept signal is planted."""
    plants = {
        "anisotropy, offsets (n = 20)": (NULL, 2),
        "the same, n = 10": (replace(NULL, n=10), 2),
        "with a massive dimension": (replace(NULL, massive=1_000.0), 2),
        "independent layers": (replace(NULL, layer_correlation=0.0), 2),
        "jointly over 9 languages": (NULL, 10),
    }
    records = []
    for name, (plant, languages) in plants.items():
        own, joint = run(functools.partial(false_positives, plant, languages), draws).mean(0)
        rate = joint if languages > 2 else own
        records.append({"plant": name, "rate": rate, "draws": draws, "nominal": NOMINAL})
    return records


def coverage(run: Run, draws: int) -> Records:
    """Coverage of the 95% interval of A against the population's value."""
    records = []
    for n in POWER_N:
        for alignment in (0.0, 0.1, 0.3):
            plant = replace(NULL, concept=_flat(alignment), n=n)
            truth = planted.population_alignment(plant)
            share, bias, width = run(functools.partial(covered, plant, truth), draws).mean(0)
            records.append(
                {
                    "n": n,
                    "alignment": float(truth.mean()),
                    "coverage": share,
                    "bias": bias,
                    "width": width,
                    "draws": draws,
                }
            )
    return records


def contrasts(run: Run, draws: int) -> Records:
    """False positives, power and coverage of paired contrasts between variants."""
    records = []
    base = replace(NULL, concept=_flat(0.25))
    at = planted.population_alignment(base)[9]
    for change in (0.0, 0.02, 0.05):
        other = _flat(0.25 + change)
        truth = float(planted.population_alignment(replace(base, concept=other))[9] - at)
        truth = truth if change else 0.0
        called, covers = run(
            functools.partial(contrast, base, other if change else None, truth), draws
        ).mean(0)
        records.append({"difference": truth, "called": called, "coverage": covers, "draws": draws})
    return records


def shapes(run: Run, draws: int) -> Records:
    """Shape labels of planted curves."""
    flat = replace(NULL, concept=_flat(0.25))
    aniso = np.interp(np.arange(LAYERS), [0, 9, 18], [1.0, 30.0, 1.0])
    rise = replace(NULL, concept=_curve((0, 0.05), (18, 0.35)))
    fall = replace(NULL, concept=_curve((0, 0.35), (18, 0.05)))
    plants: dict[str, tuple[Plant, bool, str]] = {
        "no signal": (NULL, False, "FLAT"),
        "flat signal": (flat, False, "FLAT"),
        "monotone rise": (rise, False, "MONOTONE_RISE"),
        "monotone fall": (fall, False, "MONOTONE_FALL"),
        "only anisotropy varies": (replace(flat, anisotropy=aniso), False, "FLAT"),
        "only the final norm drops it": (flat, False, "FLAT"),
        "the same, norm taken as layer L": (flat, True, "FLAT"),
        "rise, peak, decline": (replace(NULL, concept=island(0.35)), False, "RISE_PEAK_COLLAPSE"),
    }
    records = []
    for name, (plant, norm, truth) in plants.items():
        shares = run(functools.partial(shape, plant, norm), draws).mean(0)
        found = dict(zip(LABELS, map(float, shares), strict=True))
        wrong = 1 - found[truth] - (found["UNRESOLVED"] if truth != "UNRESOLVED" else 0)
        if truth != "FLAT":
            wrong -= found["FLAT"]  # too little power is no false shape
        records.append({"plant": name, "truth": truth, **found, "false": wrong, "draws": draws})
    return records


def layer_recovery(run: Run, draws: int) -> Records:
    """Recovery of the planted commitment and release layers, and the rates under the null."""
    records = []
    for n in POWER_N:
        for peak in (0.0, 0.1, 0.2, 0.35):
            plant = replace(NULL, n=n, concept=island(peak)) if peak else replace(NULL, n=n)
            truth = None
            if peak:
                mean = planted.population_alignment(plant)
                zero = np.zeros(LAYERS)
                start = layers.commitment_layer(mean, zero)
                assert start is not None
                end = layers.release_layer(mean, zero, start)
                truth = (start, end if end is not None else LAYERS)
            found = run(functools.partial(committed, plant, truth), draws).mean(0)
            records.append(
                {
                    "n": n,
                    "peak": peak,
                    "truth": truth,
                    "committed": found[0],
                    "commitment_within_1": found[1],
                    "release_within_1": found[2],
                    "concepts_committed": found[3],
                    "concept_rate_on_mismatched": found[4],
                    "draws": draws,
                }
            )
    return records


def decoys(run: Run, draws: int) -> Records:
    """What raw cosine and the published rule find where there is no shared concept."""
    sentence = np.full(LAYERS, planted.strength(0.3))
    plants = {
        "no signal, anisotropy": NULL,
        "no signal, massive dimension (BOS sink)": replace(NULL, massive=300.0),
        "sentence signal, no concept signal": replace(NULL, sentence=sentence),
        "concept signal": replace(NULL, concept=_flat(0.25)),
        "concept signal, massive dimension": replace(NULL, concept=_flat(0.25), massive=300.0),
    }
    columns = ("matched", "mismatched", "published_rule", "concept_called", "sentence_called", "A")
    records = []
    for name, plant in plants.items():
        found = run(functools.partial(misled, plant), draws).mean(0)
        records.append(
            {"plant": name, **dict(zip(columns, map(float, found), strict=True)), "draws": draws}
        )
    return records


EXPERIMENTS: dict[str, Callable[[Run, int], Records]] = {
    "family_wise": family_wise,
    "coverage": coverage,
    "contrasts": contrasts,
    "shapes": shapes,
    "layers": layer_recovery,
    "decoys": decoys,
}


# --- the command ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    return files.finite(float(value), 4) if isinstance(value, (float, np.floating)) else value


def compute(draws: int, jobs: int, seed: int) -> dict[str, Any]:
    """Return every experiment's records; the same seed gives the same numbers at any ``jobs``."""
    tables = {}
    with ProcessPoolExecutor(jobs) as pool:

        def run(one: Callable[[int], list[float]], count: int) -> np.ndarray:
            seeds = range(seed, seed + count)
            return np.array(list(pool.map(one, seeds, chunksize=max(1, count // (8 * jobs)))))

        for name, experiment in tqdm(EXPERIMENTS.items(), unit="table", desc="validate"):
            records = experiment(run, draws)
            tables[name] = [{k: _plain(v) for k, v in record.items()} for record in records]
    return {
        "tables": tables,
        "draws": draws,
        "permutations": PERMUTATIONS,
        "resamples": RESAMPLES,
        "seed": seed,
        "code_sha256": project.source_hash(),
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_line.common_parser(
        "benchmarks/validation.py", "Validate measures and tests on planted truth.", "seed"
    )
    parser.add_argument(
        "--draws",
        type=command_line.positive_int,
        default=1_000,
        metavar="N",
        help="draws per line of a table (default 1000)",
    )
    parser.add_argument(
        "--jobs",
        type=command_line.positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: the number of cores)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=project.ROOT / "docs" / "validation.json",
        metavar="FILE",
        help="where the numbers go (default docs/validation.json)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and validate; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores
        files.save_json(args.json, compute(args.draws, args.jobs, args.seed))
        print(args.json)

    return command_line.run_stage("benchmarks/validation.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
