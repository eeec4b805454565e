"""Choose how vectors are scaled before cosines are taken, by a rule stated first (ADR-016).

The candidates, from the simplest to the most complex:

- raw: mean-centred by language;
- standardised: each dimension also divided by its SD in the language;
- pooled: divided by its SD within languages, over all languages;
- removed: mean-centred, without the largest dimensions, until none carries more than 5 times its
  share of the squared length;
- ranks: the rank of each value within its mean-centred vector (Spearman's correlation);
- removed, standardised: both;
- crossed: standardised, with mean and SD of the other half of the concepts;
- whitened: with mean and shrunk covariance (Ledoit & Wolf 2004) of the other half.

The last two compare concepts of the same half only, and permute within halves: a scale that depends
on the half would make the test inexact otherwise.

The rule: a candidate qualifies if, in every null plant at n = 10, 20 and 60, max-T at 5% calls no
more draws than the upper end of the binomial range, corrected over these cells (Bonferroni). Of
those, the one with the largest smallest power wins, over the signal plants and the same n.
Candidates within one standard error of it are tied, and the simplest of them wins. 1,000 items of
one text stand for the corpus, where no permutation test is made. They are shown beside the rule
(two layers, few draws), as are rogue directions that are no coordinate axes.

Three rogue dimensions carry about half of the squared length, the largest a quarter to a third, as
at layer 9 of suite mini's base. The hidden size is half of mini's, so each counts for twice as much
after standardising. The spectrum of all else decays along random directions, so that no candidate
profits from axes.

Writes: docs/measure_choice.json

    uv run benchmarks/measure_choice.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aya_probes import command_line, files, project
from aya_probes.alignment import inference, measures
from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import Plant, Rogue

NOMINAL = 0.05
PERMUTATIONS = 499
HIDDEN = 320
EXCESS = 5  # a dimension with more than so many times its share is removed
PEAK = 3  # the layer at which the planted signal peaks
EARLY = 1  # the layer at which the faked signal peaks
PROFILE = np.array([0.3, 0.6, 0.8, 1.0, 0.7])  # of the signal, layers 0..4
FAKED = np.array([0.5, 1.0, 0.5, 0.0, 0.0])  # of dimensions that few concepts share
SIGNAL = {10: 0.11, 20: 0.07, 60: 0.035, 1_000: 0.015}  # planted alignment at the peak, by n
LARGEST = 1.26  # strength at which the largest dimension carries a third of the squared length
RULE_N = (10, 20, 60)
DRAWN = {10: (5, 1), 20: (2.5, 1), 60: (0.5, 1 / 3), 1_000: (1 / 40, 1 / 40)}
"""Draws of a null and of a signal plant by n, as multiples of ``--draws``: nulls are cheap."""

Records = list[dict[str, Any]]


# --- candidates: languages [language, n, k, r, h], half of each concept [n] -> scaled -----------


def raw(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Mean-centre by language."""
    return np.stack([measures.mean_centre(vectors) for vectors in languages])


def standardised(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Standardise by language."""
    return np.stack([measures.standardise(vectors) for vectors in languages])


def pooled(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Mean-centre by language, and divide by the SD within languages."""
    centred = raw(languages, half)
    return centred / np.sqrt(np.square(centred).mean(axis=(0, 1, 2)))


def removed(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Set the largest dimensions of mean-centred vectors to 0."""
    centred = raw(languages, half)
    return np.where(dominant(centred), 0, centred)


def dominant(centred: np.ndarray) -> np.ndarray:
    """Return which dimensions are removed ``[r, h]``.

    The largest go until each of the others carries at most 5 times its share of what is left.
    """
    shares = np.square(measures.unit(centred)).mean(axis=(0, 1, 2))
    order = np.argsort(-shares, axis=-1)
    ordered = np.take_along_axis(shares, order, axis=-1)
    left = np.cumsum(ordered[:, ::-1], axis=-1)[:, ::-1]
    hidden = shares.shape[-1]
    fits = ordered * (hidden - np.arange(hidden)) <= EXCESS * left
    found = np.zeros(shares.shape, dtype=bool)
    np.put_along_axis(found, order, np.arange(hidden) < fits.argmax(-1)[:, None], axis=-1)
    return found


def ranks(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Replace each value by its rank within its mean-centred vector, centred."""
    centred = raw(languages, half)
    found = centred.argsort(-1).argsort(-1).astype(np.float32)
    return found - (centred.shape[-1] - 1) / 2


def removed_standardised(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Standardise by language, without the largest dimensions of the mean-centred vectors."""
    return np.where(dominant(raw(languages, half)), 0, standardised(languages, half))


def crossed(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Standardise each half of the concepts with mean and SD of the other."""
    found = np.empty_like(languages)
    for language, vectors in enumerate(languages):
        for mine in (half, ~half):
            other = vectors[~mine]
            spread = other.std(axis=(0, 1))
            found[language, mine] = (vectors[mine] - other.mean(axis=(0, 1))) / spread
    return found


def whitened(languages: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Whiten each half of the concepts with mean and shrunk covariance of the other."""
    found = np.empty_like(languages)
    for language, vectors in enumerate(languages):
        for mine in (half, ~half):
            other = vectors[~mine]
            centre = other.mean(axis=(0, 1))
            for layer in range(vectors.shape[2]):
                texts = (other - centre)[:, :, layer].reshape(-1, vectors.shape[-1])
                part = (vectors[mine] - centre)[:, :, layer]
                found[language, mine, :, layer] = whiten(part, texts)
    return found


def whiten(vectors: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Return ``vectors [..., h]`` times the inverse root of the shrunk covariance of ``texts [m,
    h]``.

    The covariance S is shrunk towards its mean variance, by Ledoit & Wolf's estimate.
    """
    m, hidden = texts.shape
    _, root, axes = np.linalg.svd(texts / np.sqrt(m), full_matrices=False)
    variance = root**2
    mean = variance.sum() / hidden
    distance = (variance**2).sum() / hidden - mean**2
    error = ((np.square(texts).sum(1) ** 2).mean() - (variance**2).sum()) / m / hidden
    shrunk = float(np.clip(error / distance, 0, 1))
    floor = max(shrunk * mean, 1e-6 * mean)
    scale = 1 / np.sqrt((1 - shrunk) * variance + floor) - 1 / np.sqrt(floor)
    return vectors / np.sqrt(floor) + ((vectors @ axes.T) * scale) @ axes


Scale = Callable[[np.ndarray, np.ndarray], np.ndarray]
CANDIDATES: dict[str, Scale] = {
    "raw": raw,
    "standardised": standardised,
    "pooled": pooled,
    "removed": removed,
    "ranks": ranks,
    "removed, standardised": removed_standardised,
    "crossed": crossed,
    "whitened": whitened,
}
BY_HALF = ("crossed", "whitened")


# --- plants -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A plant at one n."""

    name: str
    signal: bool
    ruled: bool
    """Whether the rule reads it."""
    plant: Plant


def cases(n: int) -> list[Case]:
    """Return every plant at ``n`` concepts: without and with a signal."""
    depth = np.arange(len(PROFILE)) if n in RULE_N else np.array([0, EARLY])
    always, early = np.full(len(depth), LARGEST), LARGEST * FAKED[depth]
    rogues = {
        "no rogue dimensions": None,
        "noise": Rogue("texts", always),
        "a tenth of the concepts share them": Rogue("few", early),
        "outlying concepts, own to a language": Rogue("outliers", always),
        "offset by language": Rogue("languages", always),
        "other dimensions in each language": Rogue("private", always),
        "noise, off the axes": Rogue("texts", always, oblique=True),
    }
    found = []
    for signal in (False, True):
        peak = SIGNAL[n] if signal else 0.0
        bare = Plant(
            concept=planted.strength(peak * PROFILE[depth]),
            sentence=np.zeros(len(depth)),
            anisotropy=np.full(len(depth), 16.0),
            rotated=True,
            n=n,
            wordings=2 if n in RULE_N else 1,
            hidden=HIDDEN,
        )
        for name, rogue in rogues.items():
            oblique = rogue is not None and rogue.oblique
            if signal or not oblique:
                ruled = n in RULE_N and not oblique
                found.append(Case(name, signal, ruled, replace(bare, rogue=rogue)))
    return found


# --- one draw, and all of them ----------------------------------------------------------------


def tried(plant: Plant, name: str, languages: np.ndarray, seed: int) -> list[float]:
    """Return whether max-T rejects, mean A at the early layer, and the layer of the peak."""
    first, _ = inference.halves(plant.n, seed)
    half = np.isin(np.arange(plant.n), first)
    left, right = CANDIDATES[name](languages, half)
    matrix = measures.wording_mean(measures.cosines(left, right), same_wording=plant.wordings == 1)
    blocks = half.astype(int) if name in BY_HALF else np.zeros(plant.n, dtype=int)
    orders = inference.block_permutations(blocks, PERMUTATIONS, seed)
    p = inference.max_t(matrix[None], orders, blocks)[0][0]
    mean = measures.alignment_within(matrix, blocks).mean(-1)
    return [float((p[1:] <= NOMINAL).any()), float(mean[EARLY]), float(1 + mean[1:].argmax())]


def compare(sizes: Sequence[int], draws: int, seed: int) -> Records:
    """Return what every candidate finds in every plant of these ``sizes``."""
    records = []
    for n in sizes:
        for case in tqdm(cases(n), unit="plant", desc=f"n = {n}"):
            count = max(1, round(draws * DRAWN[n][case.signal]))
            found: dict[str, list[list[float]]] = {name: [] for name in CANDIDATES}
            for one in range(seed, seed + count):
                languages = planted.draw(case.plant, one)[0]
                for name, values in found.items():
                    values.append(tried(case.plant, name, languages, one))
            for name, values in found.items():
                called, early, peak = np.array(values).T
                record = {
                    "n": n,
                    "plant": case.name,
                    "signal": case.signal,
                    "ruled": case.ruled,
                    "candidate": name,
                    "called": float(called.mean()),
                    "early": round(float(early.mean()), 4),
                    "draws": count,
                }
                if case.signal and n in RULE_N:
                    record["peak_bias"] = round(float((peak - PEAK).mean()), 3)
                    record["peak_error"] = round(float(np.abs(peak - PEAK).mean()), 3)
                records.append(record)
    return records


def choose(records: Records) -> tuple[Records, str]:
    """Apply the rule; returns what it saw of each candidate, and the winner or ``none``."""
    ruled = [r for r in records if r["ruled"]]
    nulls = [r for r in ruled if not r["signal"]]
    level = 1 - NOMINAL * len(CANDIDATES) / len(nulls)
    verdicts = []
    for name in CANDIDATES:
        own = [r for r in nulls if r["candidate"] == name]
        excess = [
            r["called"] - stats.binom.ppf(level, r["draws"], NOMINAL) / r["draws"] for r in own
        ]
        worst = own[int(np.argmax(excess))]
        weakest = min(
            (r for r in ruled if r["signal"] and r["candidate"] == name), key=lambda r: r["called"]
        )
        verdicts.append(
            {
                "candidate": name,
                "qualifies": bool(max(excess) <= 0),
                "null": worst["called"],
                "limit": float(worst["called"] - max(excess)),
                "null_plant": f"{worst['plant']}, n = {worst['n']}",
                "power": weakest["called"],
                "error": float(
                    np.sqrt(weakest["called"] * (1 - weakest["called"]) / weakest["draws"])
                ),
                "signal_plant": f"{weakest['plant']}, n = {weakest['n']}",
            }
        )
    fitting = [v for v in verdicts if v["qualifies"]]
    if not fitting:
        return verdicts, "none"
    best = max(fitting, key=lambda v: v["power"])
    tied = [v["candidate"] for v in fitting if v["power"] >= best["power"] - best["error"]]
    return verdicts, tied[0]


# --- the command ------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_line.common_parser(
        "benchmarks/measure_choice.py", "Compare measures on planted activations.", "seed"
    )
    parser.add_argument(
        "--draws",
        type=command_line.positive_int,
        default=200,
        metavar="N",
        help="draws per signal plant at n = 10 and 20; the others follow (default 200)",
    )
    parser.add_argument(
        "--sizes",
        type=command_line.comma_list,
        metavar="N,N",
        help="only these numbers of concepts, of 10, 20, 60 and 1000",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=project.ROOT / "docs" / "measure_choice.json",
        metavar="FILE",
        help="where the numbers go (default docs/measure_choice.json)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and compare; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        sizes = command_line.choose("size", args.sizes, [str(n) for n in DRAWN])
        with threadpool_limits(1):
            records = compare([int(n) for n in sizes], args.draws, args.seed)
        verdicts, winner = choose(records)
        found = {
            "tables": {"candidates": records, "choice": verdicts},
            "chosen": winner,
            "permutations": PERMUTATIONS,
            "seed": args.seed,
            "code_sha256": project.source_hash(),
        }
        files.save_json(args.json, found)
        print(f"{args.json}: {winner}")

    return command_line.run_stage("benchmarks/measure_choice.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
