"""Measure the analysis: against scipy cell by cell and plain loops, and as the study grows.

Every other way is first shown to give the same numbers: loops on the same draws to rounding, scipy
(which draws for itself) exactly where it enumerates, within sampling error where it draws. Then
growth in concepts and in languages on seeded data, with memory. Beyond ``ALL_PAIRS_BYTES`` of
cosines a language pair mismatches are sampled (``alignment_stats.sampled_alignment``), and said so.

Writes: benchmarks/results/analysis.json

    uv run benchmarks/analysis.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

import machine
from aya_probes import command_line, project
from aya_probes.alignment import inference, measures

ROWS, WORDINGS, HIDDEN = 19, 3, 640  # as suite mini has them
CONCEPTS = 20
ALL_PAIRS_BYTES = 512 * 2**20
NEGATIVES = 50  # sampled mismatches a concept where all pairs are too many


def vectors(concepts: int, languages: int, *, rows: int = ROWS, hidden: int = HIDDEN) -> np.ndarray:
    """Return seeded centred vectors ``[language, concept, wording, row, hidden]`` with meaning."""
    draw = np.random.default_rng([project.SEED, concepts, languages])
    meaning = draw.standard_normal((concepts, 1, rows, hidden), dtype=np.float32)
    shape = (concepts, WORDINGS, rows, hidden)
    return np.stack(
        [
            measures.mean_centre(0.3 * meaning + draw.standard_normal(shape, dtype=np.float32))
            for _ in range(languages)
        ]
    )


def similarity_of(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the ``concept`` similarity ``[r, n, n]`` of two languages."""
    return measures.wording_mean(measures.cosines(left, right), same_wording=False)


# --- against others ---------------------------------------------------------------------------


def _trace_statistic(matrix: np.ndarray) -> Callable[..., Any]:
    def total(columns: np.ndarray, axis: int = -1) -> Any:
        rows = np.arange(len(matrix))
        return matrix[rows, columns.astype(int)].sum(axis=axis)

    return total


def scipy_permutation_b(matrix: np.ndarray, count: float, seed: int) -> Any:
    """Return scipy's permutation test of one cell ``[n, n]``: its p-value object."""
    test: Any = stats.permutation_test  # its stubs do not know pairings of one sample
    return test(
        (np.arange(len(matrix)),),
        _trace_statistic(matrix),
        permutation_type="pairings",
        n_resamples=count,
        alternative="greater",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )


def scipy_as_written(similarity: np.ndarray, count: int) -> None:
    """Run scipy's test of every row with mean A itself as the statistic, one order a call."""
    test: Any = stats.permutation_test
    for matrix in similarity:

        def mean_a(columns: np.ndarray, matrix: np.ndarray = matrix) -> float:
            return float(measures.alignment(matrix[None, :, columns.astype(int)]).mean())

        test(
            (np.arange(len(matrix)),),
            mean_a,
            permutation_type="pairings",
            n_resamples=count,
            alternative="greater",
            vectorized=False,
            rng=np.random.default_rng(0),
        )


def loop_permutation_p(similarity: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return max-T p-values by one loop over permutations and one over rows."""
    r, n, _ = similarity.shape
    null = np.array(
        [[sum(similarity[row, i, order[i]] for i in range(n)) for row in range(r)]
         for order in orders]
    )  # fmt: skip
    observed = np.array([sum(similarity[row, i, i] for i in range(n)) for row in range(r)])
    centre, spread = null.mean(0), null.std(0)
    largest = ((null - centre) / spread)[:, 1:].max(1)
    z = (observed - centre) / spread
    return np.array([(sum(largest >= one - 1e-12) + 1) / (len(orders) + 1) for one in z])


def loop_interval(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return expanded-t intervals of ``[cells, n]`` by a loop over cells and resamples."""
    n = values.shape[-1]
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    lower, upper = [], []
    for cell in values:
        means = [sum(w * v for w, v in zip(weight, cell, strict=True)) for weight in weights]
        lower.append(np.quantile(means, tail))
        upper.append(np.quantile(means, 1 - tail))
    return np.array(lower), np.array(upper)


def scipy_interval(values: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals at the same percentiles from scipy's bootstrap, a call a cell."""
    n = values.shape[-1]
    tail = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1)))
    found = [
        stats.bootstrap(
            (cell,),
            np.mean,
            n_resamples=count,
            confidence_level=1 - 2 * tail,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        for cell in values
    ]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def permutation_case(count: int, looped: int, rounds: int) -> dict[str, Any]:
    """Time permutation tests of one language pair's rows and compare the results."""
    left, right = vectors(CONCEPTS, 2)
    similarity = similarity_of(left, right).astype(np.float64)
    orders = inference.permutations(CONCEPTS, count, project.SEED)
    few = orders[:looped]
    names = ("ours", "scipy", "scipy, statistic vectorised by hand", "loops")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        seconds["ours"].append(
            machine.cpu_seconds(lambda: inference.permutation_p(similarity, orders))
        )
        seconds["scipy, statistic vectorised by hand"].append(
            machine.cpu_seconds(lambda: [scipy_permutation_b(m, count, 0) for m in similarity])
        )
        one = machine.cpu_seconds(lambda: scipy_as_written(similarity, looped))
        seconds["scipy"].append(one * count / looped)
        one = machine.cpu_seconds(lambda: loop_permutation_p(similarity, few))
        seconds["loops"].append(one * count / looped)
    off = np.abs(
        inference.permutation_p(similarity, few) - loop_permutation_p(similarity, few)
    ).max()
    return _ratios(seconds) | {
        "what": f"{ROWS} rows, {CONCEPTS} concepts, {count:,} permutations",
        "loops_and_scipy_timed_on": looped,
        "difference_from_loops": float(off),
        "difference_from_scipy_enumerating": enumerated_difference(),
    }


def enumerated_difference() -> float:
    """Return the largest difference from scipy where it enumerates all permutations (n = 6).

    Ours counts the identity among the draws: its p is (b + 1)/(B + 1), scipy's exact one b/B. One
    row beside row 0, so that the maximum over rows is that row.
    """
    import itertools

    orders = np.array(list(itertools.permutations(range(6))))
    differences = []
    for seed in range(20):
        pair = vectors(6, 2, rows=2, hidden=16 + seed)
        similarity = similarity_of(pair[0], pair[1]).astype(np.float64)
        ours = inference.permutation_p(similarity, orders)[1] * (len(orders) + 1) - 1
        theirs = scipy_permutation_b(similarity[1], np.inf, 0).pvalue * len(orders)
        differences.append(abs(float(ours) - float(theirs)))
    return max(differences)


def bootstrap_case(count: int, looped: int, rounds: int) -> dict[str, Any]:
    """Time bootstrap intervals of every row of nine language pairs and compare the results."""
    languages = vectors(CONCEPTS, 10)
    values = np.concatenate(
        [measures.alignment(similarity_of(languages[0], other)) for other in languages[1:]]
    ).astype(np.float64)
    weights = inference.resample_weights(CONCEPTS, count, project.SEED)
    few = values[:: len(values) // looped][:looped]
    seconds: dict[str, list[float]] = {"ours": [], "scipy": [], "loops": []}
    for _ in range(rounds):
        seconds["ours"].append(
            machine.cpu_seconds(lambda: inference.expanded_interval(values, weights))
        )
        share = len(values) / len(few)
        seconds["scipy"].append(machine.cpu_seconds(lambda: scipy_interval(few, count, 0)) * share)
        seconds["loops"].append(machine.cpu_seconds(lambda: loop_interval(few, weights)) * share)
    ours, loops = inference.expanded_interval(few, weights), loop_interval(few, weights)
    theirs = scipy_interval(few, count, 0)
    width = (ours[1] - ours[0]).mean()
    return _ratios(seconds) | {
        "what": f"{len(values)} cells, {CONCEPTS} concepts, {count:,} resamples",
        "loops_and_scipy_timed_on": len(few),
        "difference_from_loops": float(np.abs(np.array(ours) - np.array(loops)).max()),
        "difference_from_scipy_of_width": float(
            np.abs(np.array(ours) - np.array(theirs)).max() / width
        ),
    }


def alignment_case(rounds: int) -> dict[str, Any]:
    """Time A of one language pair against loops over concepts, wordings and rows."""
    left, right = vectors(CONCEPTS, 2)

    def loops() -> np.ndarray:
        unit_left, unit_right = measures.unit(left), measures.unit(right)
        out = np.zeros((ROWS, CONCEPTS))
        pairs = [(k, m) for k in range(WORDINGS) for m in range(WORDINGS) if k != m]
        for row in range(ROWS):
            cell = np.zeros((CONCEPTS, CONCEPTS))
            for i in range(CONCEPTS):
                for j in range(CONCEPTS):
                    for k, m in pairs:
                        cell[i, j] += unit_left[i, k, row] @ unit_right[j, m, row] / len(pairs)
            for i in range(CONCEPTS):
                others = [j for j in range(CONCEPTS) if j != i]
                away = np.mean([(cell[i, j] + cell[j, i]) / 2 for j in others])
                out[row, i] = (cell[i, i] - away) * (CONCEPTS - 1) / CONCEPTS
        return out

    ours = measures.alignment(similarity_of(left, right))
    seconds = {
        "ours": [
            machine.cpu_seconds(lambda: measures.alignment(similarity_of(left, right)))
            for _ in range(rounds)
        ],
        "loops": [machine.cpu_seconds(loops) for _ in range(rounds)],
    }
    return _ratios(seconds) | {
        "what": f"A of one language pair, {ROWS} rows, {CONCEPTS} x {WORDINGS} texts",
        "difference_from_loops": float(np.abs(ours - loops()).max()),
    }


def _ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = {
        name: machine.spread(
            [theirs / ours for theirs, ours in zip(values, seconds["ours"], strict=True)]
        )
        for name, values in seconds.items()
        if name != "ours"
    }
    return {
        "cpu_s": {name: machine.spread(values) for name, values in seconds.items()},
        "slower_than_ours": ratios,
    }


# --- growth -----------------------------------------------------------------------------------


def grow_concepts(sizes: Sequence[int], permutations: int) -> list[dict[str, Any]]:
    """Measure one language pair at growing numbers of concepts: time, memory, way."""
    points: list[dict[str, Any]] = []
    for concepts in sizes:
        pair = vectors(concepts, 2)
        cosines = ROWS * (WORDINGS * concepts) ** 2 * 4
        sampled = cosines > ALL_PAIRS_BYTES
        weights = inference.resample_weights(concepts, permutations, project.SEED)

        def all_pairs(
            pair: np.ndarray = pair, concepts: int = concepts, w: np.ndarray = weights
        ) -> None:
            similarity = similarity_of(pair[0], pair[1])
            inference.expanded_interval(measures.alignment(similarity), w)
            inference.permutation_p(
                similarity, inference.permutations(concepts, permutations, project.SEED)
            )

        def sample(pair: np.ndarray = pair, w: np.ndarray = weights) -> None:
            values, _ = measures.sampled_alignment(
                pair[0], pair[1], same_wording=False, negatives=NEGATIVES, seed=project.SEED
            )
            inference.expanded_interval(values, w)

        points.append(
            {"concepts": concepts, "all_pairs": not sampled, "cosine_mb": cosines / 1e6}
            | _point(sample if sampled else all_pairs)
        )
        way = (
            f"{NEGATIVES} mismatches a concept sampled, no permutations" if sampled else "all pairs"
        )
        print(f"{concepts:>6} concepts: {points[-1]['cpu_s']:8.2f} s  ({way})", flush=True)
    return points


def grow_languages(sizes: Sequence[int], permutations: int) -> list[dict[str, Any]]:
    """Measure all language pairs (A) and English with each (tests) at growing languages."""
    every = vectors(CONCEPTS, max(sizes))
    orders = inference.permutations(CONCEPTS, permutations, project.SEED)
    weights = inference.resample_weights(CONCEPTS, permutations, project.SEED)
    points: list[dict[str, Any]] = []
    for count in sizes:
        languages = every[:count]

        def with_english(languages: np.ndarray = languages) -> None:
            for other in languages[1:]:
                similarity = similarity_of(languages[0], other)
                inference.expanded_interval(measures.alignment(similarity), weights)
                inference.permutation_p(similarity, orders)

        def all_pairs(languages: np.ndarray = languages, count: int = count) -> None:
            for a in range(count):
                for b in range(a + 1, count):
                    measures.alignment(similarity_of(languages[a], languages[b]))

        points.append(
            {
                "languages": count,
                "pairs": count * (count - 1) // 2,
                "vectors_mb": languages.nbytes / 1e6,
                "with_english": _point(with_english),
                "all_pairs": _point(all_pairs),
            }
        )
        print(
            f"{count:>6} languages: {points[-1]['with_english']['cpu_s']:8.2f} s with English, "
            f"{points[-1]['all_pairs']['cpu_s']:8.2f} s all {points[-1]['pairs']} pairs",
            flush=True,
        )
    return points


def _point(work: Callable[[], object]) -> dict[str, Any]:
    taken: list[float] = []
    peak = machine.extra_peak_bytes(lambda: taken.append(machine.cpu_seconds(work)))
    return {
        "cpu_s": float(f"{taken[0]:.4g}"),
        "extra_peak_mb": None if peak is None else float(f"{peak / 1e6:.4g}"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    machine.run_on_one_thread()
    args = machine.parser(
        "benchmarks/analysis.py", "Measure the analysis.", "analysis.json"
    ).parse_args(argv)
    rounds = args.rounds or (1 if args.quick else 3)
    count, looped = (200, 20) if args.quick else (10_000, 200)
    started = time.monotonic()
    cases = {
        "alignment": alignment_case(rounds),
        "permutation": permutation_case(count, looped, rounds),
        "bootstrap": bootstrap_case(count, 3 if args.quick else 6, rounds),
    }
    for name, case in cases.items():
        shown = ", ".join(
            f"{other} {ratio['median']:.0f} x ({ratio['min']:.0f}-{ratio['max']:.0f})"
            for other, ratio in case["slower_than_ours"].items()
        )
        print(f"{name}: ours {case['cpu_s']['ours']['median']:.3g} s; slower: {shown}", flush=True)
    concepts = grow_concepts((20, 40) if args.quick else (20, 63, 200, 632, 2000), count // 10)
    languages = grow_languages((10, 12) if args.quick else (10, 20, 40, 70), count // 10)
    machine.save(
        args,
        "analysis.json",
        {
            "machine": machine.describe("numpy", "scipy") | {"threads": 1},
            "rounds": rounds,
            "cases": cases,
            "concepts": concepts,
            "languages": languages,
            "permutations_of_growth": count // 10,
            "negatives": NEGATIVES,
        },
    )
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(command_line.run_stage("benchmarks/analysis.py", main))
