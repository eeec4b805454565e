"""Validate what is said of a curve: ceilings, shapes, commitment, release and peak layers."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from aya_probes import suites
from aya_probes.alignment import ceiling, inference, layers, measures
from aya_probes.alignment.inputs import AlignmentInputs
from aya_probes.planted import vectors as planted
from aya_probes.planted.vectors import LAYERS, Plant
from aya_probes.results.curves import Shape
from aya_probes.stimuli import Manifest
from validation_plants import (
    NULL,
    PERMUTATIONS,
    RESAMPLES,
    ROGUE,
    SIZES,
    Records,
    Run,
    flat,
    island,
    means,
    relative,
    through,
)

CLAIMS = ("RISE_PEAK_DECLINE", "RISE", "FALL")
LABELS = (*CLAIMS, "FLAT", "UNRESOLVED", "UNDEFINED")
DECLINES = ("RISE_PEAK_DECLINE", "FALL")
Tables = tuple[np.ndarray, np.ndarray, np.ndarray]


def tables(vectors: np.ndarray) -> Tables:
    """Return A_i between two languages, within the first and within the second ``[r, n]`` each."""
    scaled = {str(n): measures.standardise(own) for n, own in enumerate(vectors)}
    within = ceiling.within_languages(scaled)
    matrix = measures.wording_mean(measures.cosines(*scaled.values()), same_wording=False)
    return measures.alignment(matrix), within["0"], within["1"]


@functools.cache
def _manifest() -> Manifest:
    return Manifest(suites.load_suite("mini"), {}, ())


def disattenuated(found: Tables, seed: int) -> ceiling.Disattenuated:
    """Return alignment relative to the ceilings, the last layer repeated as final_norm."""
    task = AlignmentInputs(
        manifest=_manifest(),
        variants=[],
        languages=[],
        concepts=[],
        wordings=[],
        n_bootstrap=RESAMPLES,
        orders=np.empty((0, found[0].shape[1])),
        seed=seed,
    )
    cross, pivot, other = (np.concatenate([table, table[-1:]]) for table in found)
    result = ceiling.disattenuate(cross, pivot, other, task)
    assert result is not None
    return result


def shape(found: Tables, seed: int) -> Shape:
    """Return the shape that the pipeline gives to the disattenuated curve."""
    result = ceiling.shape(disattenuated(found, seed), void=False)
    assert result is not None
    return result


def population(plant: Plant, draws: int = 8) -> np.ndarray:
    """Return the disattenuated alignment of a population of concepts ``[r]``."""
    parts = [tables(planted.draw(replace(plant, n=100), seed)[0]) for seed in range(draws)]
    of_draws = np.mean([[table.mean(1) for table in part] for part in parts], axis=0)
    return measures.disattenuated(*of_draws)


# --- ceilings ---------------------------------------------------------------------------------


def declines(plant: Plant, truth: np.ndarray, seed: int) -> list[float]:
    """Return whether a decline is claimed on A, and on disattenuated alignment, and more of that.

    More: a rise, an interval of the decline without 0, coverage and bias of the curve.
    """
    found = tables(planted.draw(plant, seed)[0])
    weights = inference.resample_weights(plant.n, RESAMPLES, seed)
    on_a, _ = layers.shape_label(found[0].mean(1), weights @ found[0].T, plant.n)
    result = disattenuated(found, seed)
    curve, label = result.to_curve(plant.n), ceiling.shape(result, void=False)
    assert label is not None
    inside = (curve.array("lower") <= truth) & (truth <= curve.array("upper"))
    return [
        float(on_a in DECLINES),
        float(label.label in DECLINES),
        float(label.label == "RISE"),
        float(label.decline is not None and label.decline[1] > 0),
        float(inside.mean()),
        float((curve.array() - truth).mean()),
    ]


def ceilings(run: Run, draws: int) -> Records:
    """Declines claimed where both languages lose the concept alike, and where sharing is lost."""
    steady, falling = through((0, 0.5)), through((0, 0.6), (6, 0.6), (18, 0.2))
    rising = through((0, 0.2), (6, 0.6), (12, 0.6), (18, 0.2))
    plants = {
        "nothing changes": relative(steady, steady, spread=0.0),
        "both languages lose the concept alike": relative(steady, falling, spread=0.0),
        "both gain it, then lose it, alike": relative(steady, rising, spread=0.0),
        "both lose it alike, concepts differ": relative(steady, falling),
        "only the sharing is lost": relative(
            through((0, 0.6), (6, 0.6), (18, 0.2)), steady, spread=0.0
        ),
        "both are lost": relative(through((0, 0.6), (6, 0.6), (18, 0.2)), falling, spread=0.0),
    }
    columns = ("decline_of_a", "decline", "rise", "decline_interval", "coverage", "bias")
    records = []
    for name, plant in plants.items():
        truth = population(plant)
        found = run(functools.partial(declines, plant, truth), draws).mean(0)
        first, last = float(truth[0]), float(truth[-1])
        record = dict(zip(columns, map(float, found), strict=True))
        records.append({"plant": name, "first": first, "last": last, **record, "draws": draws})
    return records


# --- shapes and peaks -------------------------------------------------------------------------


def labelled(plant: Plant, norm_as_last_layer: bool, seed: int) -> list[float]:
    """Return the label found, one-hot over LABELS."""
    vectors = planted.draw(plant, seed)[0]
    if norm_as_last_layer:  # a final norm that takes the concept signal away
        bare = planted.draw(replace(plant, concept=np.zeros(LAYERS)), seed)[0]
        vectors[..., -1, :] = bare[..., -1, :]
    found = shape(tables(vectors), seed).label
    return [float(found == name) for name in LABELS]


def shapes(run: Run, draws: int) -> Records:
    """Shape labels of planted curves."""
    steady = flat(0.25)
    half = through((0, 0.5))
    rise, fall = through((0, 0.1), (18, 0.6)), through((0, 0.6), (18, 0.1))
    hill = through((0, 0.1), (9, 0.6), (18, 0.1))
    low_hill = through((0, 0.3), (9, 0.45), (18, 0.3))
    late_loss = through((0, 0.1), (9, 0.5), (18, 0.42))
    aniso = np.interp(np.arange(LAYERS), [0, 9, 18], [1.0, 30.0, 1.0])
    plants: dict[str, tuple[Plant, bool, str]] = {
        "no signal": (NULL, False, "FLAT"),
        "flat signal": (steady, False, "FLAT"),
        "flat signal, n = 10": (replace(steady, n=10), False, "FLAT"),
        "flat signal, rogue dimensions": (replace(steady, rogue=ROGUE), False, "FLAT"),
        "only anisotropy varies": (replace(steady, anisotropy=aniso), False, "FLAT"),
        "nothing in common even within a language": (replace(NULL, own=0.0), False, "UNDEFINED"),
        "monotone rise": (relative(rise, half), False, "RISE"),
        "monotone fall": (relative(fall, half), False, "FALL"),
        "rise, peak, decline": (relative(hill, half), False, "RISE_PEAK_DECLINE"),
        "the same, a third as high": (relative(low_hill, half), False, "RISE_PEAK_DECLINE"),
        "rise, then a small decline": (relative(late_loss, half), False, "RISE_PEAK_DECLINE"),
        "rise, plateau, loss": (replace(NULL, concept=island(0.35)), False, "RISE_PEAK_DECLINE"),
        "final norm taken as layer L": (steady, True, "FLAT"),
    }
    records = []
    for name, (plant, norm, truth) in plants.items():
        shares = run(functools.partial(labelled, plant, norm), draws).mean(0)
        found = dict(zip(LABELS, map(float, shares), strict=True))
        wrong = sum(found[claim] for claim in CLAIMS if claim != truth)
        records.append({"plant": name, "truth": truth, **found, "false": wrong, "draws": draws})
    return records


def peaked(plant: Plant, truth: int, seed: int) -> list[float]:
    """Return whether a peak is named, is right within one layer, is covered, and the width."""
    found = shape(tables(planted.draw(plant, seed)[0]), seed)
    if found.peak_layer is None or found.peak_interval is None:
        return [0.0, np.nan, np.nan, np.nan]
    low, high = found.peak_interval
    near = abs(found.peak_layer - truth) <= 1
    return [1.0, float(near), float(low <= truth <= high), float(high - low)]


def peaks(run: Run, draws: int) -> Records:
    """The peak layer of a curve that rises to layer 9 and falls, and its interval."""
    records = []
    for n in SIZES:
        for top in (0.3, 0.6):
            plant = relative(through((0, 0.0), (9, top), (18, 0.0)), through((0, 0.5)), n=n)
            truth = int(population(plant).argmax())
            table = run(functools.partial(peaked, plant, truth), draws)
            named, *others = means(table)
            record = dict(zip(("within_1", "coverage", "width"), others, strict=True))
            records.append(
                {"n": n, "peak": top, "truth": truth, "named": named, **record, "draws": draws}
            )
    return records


# --- commitment and release -------------------------------------------------------------------


def committed(plant: Plant, truth: tuple[int, int] | None, seed: int) -> list[float]:
    """Return: committed at all, concepts committed, rate of mismatched pairs, then of the layers.

    Of the layers: commitment and release within one layer of the truth, and the coverage and width
    of the commitment layer's interval.
    """
    vectors = [measures.standardise(own) for own in planted.draw(plant, seed)[0]]
    similarity = measures.cosines(*vectors)
    matrix = measures.wording_mean(similarity, same_wording=False)
    p = inference.permutation_p(matrix, inference.permutations(plant.n, PERMUTATIONS, seed))
    table = measures.alignment(matrix)
    mean = table.mean(1)
    layer = layers.commitment_layer(mean, p)
    release = None if layer is None else layers.release_layer(mean, p, layer)
    different = ~np.eye(plant.wordings, dtype=bool)
    wins = measures.retrieval(similarity[:, different])["two_way"].mean(1)
    single = [found is not None for found in layers.concept_commitment(wins)]
    rate = layers.mismatched_commitment(similarity[:, different])
    whole = [float(layer is not None), float(np.mean(single)), rate]
    weights = inference.resample_weights(plant.n, RESAMPLES, seed)
    drawn = layers.commitment_layers(weights @ table.T, p)
    drawn = drawn[drawn >= 0]
    if truth is None or layer is None or not len(drawn):
        return [*whole, 0.0, 0.0, np.nan, np.nan]
    low, high = layers.layer_interval(drawn)
    near = abs(layer - truth[0]) <= 1, release is not None and abs(release - truth[1]) <= 1
    return [*whole, *map(float, near), float(low <= truth[0] <= high), float(high - low)]


def layer_recovery(run: Run, draws: int) -> Records:
    """Recovery of the planted commitment and release layers, and the rates under the null."""
    columns = (
        "committed",
        "concepts_committed",
        "concept_rate_on_mismatched",
        "commitment_within_1",
        "release_within_1",
        "coverage",
        "width",
    )
    truths: dict[float, tuple[int, int] | None] = {0.0: None}
    for peak in (0.1, 0.2, 0.35):
        mean = planted.population_alignment(replace(NULL, concept=island(peak)), draws=12)
        start = layers.commitment_layer(mean, np.zeros(LAYERS))
        assert start is not None
        end = layers.release_layer(mean, np.zeros(LAYERS), start)
        truths[peak] = (start, end if end is not None else LAYERS)
    records = []
    for n in SIZES:
        for peak, truth in truths.items():
            plant = replace(NULL, n=n, concept=island(peak)) if peak else replace(NULL, n=n)
            rows = run(functools.partial(committed, plant, truth), draws)
            record = dict(zip(columns, means(rows), strict=True))
            records.append({"n": n, "peak": peak, "truth": truth, **record, "draws": draws})
    return records
