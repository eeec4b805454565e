"""Validate the contrasts as the pipeline makes them: families, windows, Holm, specificity.

Concepts: vectors of four variants (base, global, fire, earth) and nine languages with the pivot, 20
concepts; the variants share nine tenths of their noise. In one plant nothing differs; in the other,
fire aligns its three target languages better.

Corpus: values per sentence of five variants (water too), 60 documents of four sentences. Half of
the variance of a difference is the document's, and half is shared by all languages, since they are
compared with the same pivot sentences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from aya_probes.alignment import inference, measures
from aya_probes.alignment.contrasts import SPECIFICITY, Draws, Table, Values, contrast_table
from aya_probes.alignment.windows import ALL, WINDOWS
from aya_probes.planted import vectors as planted
from aya_probes.results.tables import Contrast
from aya_probes.suites import Variant
from validation_plants import NOMINAL, RESAMPLES, Records, Run, flat

VARIANTS = (
    Variant("base", "base"),
    Variant("global", "control"),
    Variant("fire", "regional", targets=("hi", "bn", "ta")),
    Variant("earth", "regional", targets=("sw", "am", "yo")),
    Variant("water", "regional", targets=("fr", "es", "ar")),
)
LANGUAGES = ("hi", "bn", "ta", "sw", "am", "yo", "fr", "es", "ar")
FAMILIES = ("specificity", "parts", "region", "adaptation", "post-training")
ROWS = 7  # layers 0..5 and final_norm
CONCEPTS = 20
PLANTED = 0.2  # alignment of concepts
DOCUMENTS, PER_DOCUMENT = 60, 4
ITEM_SD = 0.02  # of a sentence's difference between two variants
ITEM_GAIN = 0.006
FLIPS = 1_999  # so many that Holm's correction over 27 contrasts can be passed

Make = Callable[[float, int], Values]  # gain of fire's targets, seed -> values


# --- planted values ---------------------------------------------------------------------------


def concept_values(gain: float, seed: int) -> Values:
    """Return A_i of four variants and nine languages; ``gain`` is that of fire's targets."""
    variants = VARIANTS[:4]
    plant = replace(flat(PLANTED, ROWS), n=CONCEPTS)
    shape = {"languages": 1 + len(LANGUAGES), "variants": len(variants)}
    drawn = planted.draw(plant, seed, **shape)
    if gain:
        stronger = replace(plant, concept=flat(PLANTED + gain, ROWS).concept)
        targets = [1 + LANGUAGES.index(code) for code in VARIANTS[2].targets]
        drawn[2, targets] = planted.draw(stronger, seed, **shape)[2, targets]
    return {
        (variant.name, code): table
        for variant, vectors in zip(variants, drawn, strict=True)
        for code, table in zip(
            LANGUAGES, measures.alignment(planted.matrices(vectors)), strict=True
        )
    }


def concept_gain(gain: float) -> float:
    """Return the population's difference in A that ``concept_values`` plants.

    The pivot's vectors are the same in both variants.
    """
    plain, stronger = (replace(flat(PLANTED + change, 3), n=400) for change in (0.0, gain))
    changes = []
    for seed in range(20):
        pivot, before = planted.draw(plain, seed)[0]
        after = planted.draw(stronger, seed)[0, 1]
        both = measures.alignment(planted.matrices(np.stack([pivot, before, after])))
        changes.append(both[1].mean() - both[0].mean())
    return float(np.mean(changes))


def corpus_values(gain: float, seed: int) -> Values:
    """Return A_i of five variants and nine languages, with effects of sentence and document."""
    rng = np.random.default_rng([seed, 8])
    documents = corpus_groups()
    n = len(documents)
    fixed = 0.4 + 0.1 * rng.normal(size=(len(LANGUAGES), 1, n))  # cancels in a difference
    found = {}
    for variant in VARIANTS:
        # Four parts of equal variance: document or sentence, by language or of the pivot.
        parts = [
            rng.normal(size=(languages, 1, size))
            for languages in (1, len(LANGUAGES))
            for size in (DOCUMENTS, n)
        ]
        spread = [part[..., documents] if part.shape[-1] < n else part for part in parts]
        layers = 0.3 * rng.normal(size=(len(LANGUAGES), ROWS, n))
        noise = ITEM_SD / 2**0.5 * (sum(spread) / 2 + layers)
        for code, values in zip(LANGUAGES, fixed + noise, strict=True):
            aimed = variant.name == "fire" and code in variant.targets
            found[variant.name, code] = values + gain * aimed
    return found


def corpus_groups() -> np.ndarray:
    """Return the document of each sentence."""
    return np.repeat(np.arange(DOCUMENTS), PER_DOCUMENT)


# --- one draw ---------------------------------------------------------------------------------


def contrasted(values: Values, groups: np.ndarray, seed: int) -> list[Contrast]:
    """Return the contrasts of all variants that have values."""
    variants = [v for v in VARIANTS if (v.name, LANGUAGES[0]) in values]
    weights = inference.resample_weights(int(groups.max()) + 1, RESAMPLES, seed)
    draws = Draws(weights, FLIPS, seed)
    return contrast_table(variants, LANGUAGES, Table("planted", values, groups), (), draws)


def null_errors(make: Make, groups: np.ndarray, seed: int) -> list[float]:
    """Return, by family and window: contrasts called, any after Holm, intervals that cover 0."""
    rows, found = contrasted(make(0.0, seed), groups, seed), list[float]()
    for family in FAMILIES:
        for window in WINDOWS:
            part = [row for row in rows if (row.family, row.window) == (family, window)]
            found += [
                float(np.mean([row.p <= NOMINAL for row in part])),
                float(any(row.established for row in part)),
                float(np.mean([row.lower <= 0 <= row.upper for row in part])),
            ]
    return found


def specificity_found(
    make: Make, groups: np.ndarray, gain: float, truth: float, seed: int
) -> list[float]:
    """Return what is found of the planted specificity, by window; then of the parts and regions.

    By window: established, interval covers the truth, language labels. Then over all layers: gain
    on targets established, change elsewhere and specificity of earth called (neither exists), and
    the share of fire's targets and of its other languages established in the family region.
    """
    rows = contrasted(make(gain, seed), groups, seed)

    def of(family: str, part: str, window: str = ALL, variant: str = "fire") -> list[Contrast]:
        wanted = (family, part, window, f"{variant} - global")
        return [r for r in rows if (r.family, r.part, r.window, r.contrast) == wanted]

    found: list[float] = []
    for window in WINDOWS:
        (row,) = of("specificity", SPECIFICITY, window)
        assert row.p_language is not None
        covers = row.lower <= truth <= row.upper
        found += [float(row.established), float(covers), float(row.p_language <= NOMINAL)]
    (targets,), (elsewhere,) = of("parts", "targets"), of("parts", "elsewhere")
    (earth,) = of("specificity", SPECIFICITY, variant="earth")
    region = of("region", "")
    on_targets = [r.established for r in region if r.targets in VARIANTS[2].targets]
    others = [r.established for r in region if r.targets not in VARIANTS[2].targets]
    called = [targets.established, elsewhere.established, earth.established]
    return [*found, *map(float, called), float(np.mean(on_targets)), float(np.mean(others))]


# --- experiments ------------------------------------------------------------------------------

PARTS = ("targets", "elsewhere", "earth", "region_targets", "region_others")
ALONE = np.arange(DOCUMENTS * PER_DOCUMENT)
PLANTS: dict[str, tuple[Make, np.ndarray]] = {
    "20 concepts": (concept_values, np.arange(CONCEPTS)),
    "corpus, by document": (corpus_values, corpus_groups()),
    "corpus, documents ignored": (corpus_values, ALONE),
}


def contrast_errors(run: Run, draws: int) -> Records:
    """Error rates and coverage of the contrast pipeline where no variants differ."""
    records = []
    for name, (make, groups) in PLANTS.items():
        count = max(1, draws // 4) if groups is ALONE else draws
        means = run(functools.partial(null_errors, make, groups), count).mean(0)
        cells = [(family, window) for family in FAMILIES for window in WINDOWS]
        for (family, window), found in zip(cells, means.reshape(-1, 3), strict=True):
            columns = ("called", "family_wise", "coverage")
            record = dict(zip(columns, map(float, found), strict=True))
            records.append(
                {"plant": name, "family": family, "window": window, **record, "draws": count}
            )
    return records


def contrast_power(run: Run, draws: int) -> Records:
    """What the contrast pipeline finds of a planted specificity."""
    records = []
    cells = {"20 concepts": 0.05, "corpus, by document": ITEM_GAIN}
    for name, gain in cells.items():
        make, groups = PLANTS[name]
        truth = concept_gain(gain) if name == "20 concepts" else gain
        one = functools.partial(specificity_found, make, groups, gain, truth)
        found = run(one, draws).mean(0)
        windows = found[:9].reshape(3, 3)
        established = zip(WINDOWS, windows[:, 0], strict=True)
        records.append(
            {
                "plant": name,
                "truth": truth,
                **{f"established_{window}": float(rate) for window, rate in established},
                "coverage": float(windows[0, 1]),
                "labels": float(windows[0, 2]),
                **dict(zip(PARTS, map(float, found[9:]), strict=True)),
                "draws": draws,
            }
        )
    return records
