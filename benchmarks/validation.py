"""Try measures and tests on planted truth: error rates, coverage, power, what must not pass.

Every table is over many draws of ``planted.draw``; the answer is known by construction.
``validation_curves`` and ``validation_contrasts`` hold more of them; ``measure_choice`` compares
ways to scale vectors. ``report/fill.py`` puts the numbers into docs/validation.md.

Writes: docs/validation.json

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
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aya_probes import command_line, files, project
from aya_probes.alignment import inference, layers, measures
from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import LAYERS, Plant, Rogue
from validation_contrasts import contrast_errors, contrast_power
from validation_curves import ceilings, layer_recovery, peaks, shapes
from validation_lens import lens_errors
from validation_patching import patching_errors
from validation_plants import (
    NOMINAL,
    NULL,
    PERMUTATIONS,
    RESAMPLES,
    ROGUE,
    SIZES,
    Records,
    Run,
    flat,
)

# --- draws (each takes a seed and returns numbers) --------------------------------------------


def false_positives(plant: Plant, languages: int, seed: int) -> list[float]:
    """Return whether the test rejects at any layer from 1 on, and whether layer 0's own does.

    With more than two languages, both tests are corrected over the language pairs.
    """
    matrix = planted.matrices(planted.draw(plant, seed, languages)[0])
    own, joint = inference.max_t(matrix, inference.permutations(plant.n, PERMUTATIONS, seed))
    called = (joint if languages > 2 else own) <= NOMINAL
    return [float(called[:, 1:].any()), float(called[:, 0].any())]


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


def contrast(plant: Plant, change: Plant | None, truth: float, seed: int) -> list[float]:
    """Return whether a paired contrast at one layer is called, and whether its interval covers."""
    left = planted.draw(plant, seed, variants=2)
    if change is not None:
        left[1] = planted.draw(change, seed, variants=2)[1]
    one, two = (measures.alignment(planted.matrices(v))[0, 0] for v in left)
    difference = two - one
    lower, upper = inference.expanded_interval(
        difference, inference.resample_weights(plant.n, RESAMPLES, seed)
    )
    p = inference.sign_flip_p(difference, count=PERMUTATIONS, seed=seed)
    return [float(p <= NOMINAL), float(lower <= truth <= upper)]


def misled(plant: Plant, seed: int) -> list[float]:
    """Return raw cosine (matched, mismatched), the published rule's call, and ours.

    Ours: of ``sentence_alignment``, of ``concept_alignment`` against all other concepts and against
    those of its category; then mean A against either.
    """
    vectors = planted.draw(plant, seed)[0]
    raw = measures.wording_mean(measures.cosines(*vectors), same_wording=True)
    matched = np.diagonal(raw, axis1=1, axis2=2).mean(1)
    concept, sentence = (planted.matrices(vectors, same_wording=same)[0] for same in (False, True))
    orders = inference.permutations(plant.n, PERMUTATIONS, seed)
    inside = inference.block_permutations(plant.blocks, PERMUTATIONS, seed)
    p = [
        inference.permutation_p(sentence, orders),
        inference.permutation_p(concept, orders),
        inference.max_t(concept[None], inside, plant.blocks)[0][0],
    ]
    return [
        float(matched.mean()),
        float(measures.mismatched(raw).mean()),
        float(layers.first_run(matched >= 0.85, start=0) is not None),
        *(float((values[1:] <= NOMINAL).any()) for values in p),
        float(measures.alignment(concept).mean()),
        float(measures.alignment_within(concept, plant.blocks).mean()),
    ]


# --- experiments ------------------------------------------------------------------------------


def family_wise(run: Run, draws: int) -> Records:
    """False positives of max-T and of layer 0's own test, where no concept signal is planted."""
    few = Rogue("outliers", ROGUE.strength)
    at_start = replace(NULL, concept=np.where(np.arange(LAYERS) == 0, planted.strength(0.3), 0.0))
    plants = {
        "anisotropy, offsets (n = 20)": (NULL, 2),
        "the same, n = 10": (replace(NULL, n=10), 2),
        "with a massive dimension": (replace(NULL, massive=1_000.0), 2),
        "with rogue dimensions": (replace(NULL, rogue=ROGUE), 2),
        "with outlying concepts in them": (replace(NULL, rogue=few), 2),
        "independent layers": (replace(NULL, layer_correlation=0.0), 2),
        "jointly over 9 languages": (NULL, 10),
        "a signal at layer 0 alone": (at_start, 2),
    }
    records = []
    for name, (plant, languages) in plants.items():
        rate, first = run(functools.partial(false_positives, plant, languages), draws).mean(0)
        records.append(
            {"plant": name, "rate": rate, "first": first, "draws": draws, "nominal": NOMINAL}
        )
    return records


def coverage(run: Run, draws: int) -> Records:
    """Coverage of the 95% interval of A against the population's value, over five layers."""
    records = []
    for alignment in (0.0, 0.1, 0.3):
        plant = flat(alignment, 5)
        truth = planted.population_alignment(plant)
        for n in SIZES:
            one = functools.partial(covered, replace(plant, n=n), truth)
            found = dict(zip(("coverage", "bias", "width"), run(one, draws).mean(0), strict=True))
            records.append({"n": n, "alignment": float(truth.mean()), **found, "draws": draws})
    return sorted(records, key=lambda record: record["n"])


def contrasts(run: Run, draws: int) -> Records:
    """False positives, power and coverage of paired contrasts between variants at one layer."""
    records = []
    base = flat(0.25, 1)
    at = planted.population_alignment(base)[0]
    for change in (0.0, 0.02, 0.05):
        other = flat(0.25 + change, 1) if change else None
        truth = float(planted.population_alignment(other)[0] - at) if other else 0.0
        one = functools.partial(contrast, base, other, truth)
        called, covers = run(one, draws).mean(0)
        records.append({"difference": truth, "called": called, "coverage": covers, "draws": draws})
    return records


def decoys(run: Run, draws: int) -> Records:
    """What raw cosine and the published rule find where there is no shared concept."""
    sentence = np.full(LAYERS, planted.strength(0.3))
    signal = flat(0.25)
    plants = {
        "no signal, anisotropy": NULL,
        "no signal, massive dimension (BOS sink)": replace(NULL, massive=300.0),
        "sentence signal, no concept signal": replace(NULL, sentence=sentence),
        "only the category is shared": replace(signal, categories=5, spread=0.0),
        "the same, more in some concepts than in others": replace(signal, categories=5),
        "concept signal": signal,
        "concept signal, massive dimension": replace(signal, massive=300.0),
        "concept signal, rogue dimensions": replace(signal, rogue=ROGUE),
    }
    columns = (
        "matched",
        "mismatched",
        "published_rule",
        "sentence_called",
        "concept_called",
        "within_called",
        "A",
        "A_within",
    )
    records = []
    for name, plant in plants.items():
        found = run(functools.partial(misled, plant), draws).mean(0)
        records.append(
            {"plant": name, **dict(zip(columns, map(float, found), strict=True)), "draws": draws}
        )
    return records


EXPERIMENTS: dict[str, tuple[Callable[[Run, int], Records], float]] = {
    "family_wise": (family_wise, 2),
    "coverage": (coverage, 1),
    "contrasts": (contrasts, 2),
    "contrast_errors": (contrast_errors, 1),
    "contrast_power": (contrast_power, 0.5),
    "ceilings": (ceilings, 1),
    "shapes": (shapes, 1),
    "peaks": (peaks, 0.5),
    "layers": (layer_recovery, 0.5),
    "decoys": (decoys, 0.5),
    "lens": (lens_errors, 2.5),
    "patching": (patching_errors, 2.5),
}
"""Each table, and how many draws it gets, as a multiple of ``--draws``: fewer where one is dear."""


# --- the command ------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    return files.finite(float(value), 4) if isinstance(value, (float, np.floating)) else value


def compute(names: Sequence[str], draws: int, jobs: int, seed: int) -> dict[str, Any]:
    """Return the records of some tables; the same seed gives the same numbers at any ``jobs``."""
    tables = {}
    with ProcessPoolExecutor(jobs, initializer=threadpool_limits, initargs=(1,)) as pool:

        def run(one: Callable[[int], list[float]], count: int) -> np.ndarray:
            seeds = range(seed, seed + count)
            return np.array(list(pool.map(one, seeds, chunksize=max(1, count // (8 * jobs)))))

        for name in tqdm(names, unit="table", desc="validate"):
            experiment, part = EXPERIMENTS[name]
            records = experiment(run, max(1, round(part * draws)))
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
        default=200,
        metavar="N",
        help="draws per line of most tables (default 200)",
    )
    parser.add_argument(
        "--tables",
        type=command_line.comma_list,
        metavar="A,B",
        help=f"only these tables (default all: {', '.join(EXPERIMENTS)})",
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
        names = command_line.choose("table", args.tables, list(EXPERIMENTS))
        files.save_json(args.json, compute(names, args.draws, args.jobs, args.seed))
        print(args.json)

    return command_line.run_stage("benchmarks/validation.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
