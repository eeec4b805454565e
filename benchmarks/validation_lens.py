"""Validate the claims of the logit lens: what is called a pivot where there is one and where not.

A cell translates from French into Hindi; English is the pivot, Spanish and Arabic are others. The
verdicts are those of ``lens.claims``.
"""

from __future__ import annotations

import functools

from aya_probes.alignment import inference
from aya_probes.lens import claims
from aya_probes.lens.claims import CellLanguages
from aya_probes.planted import lens as planted
from aya_probes.planted.lens import LANGUAGES, LensPlant
from validation_plants import PERMUTATIONS, Records, Run, through

CELL = CellLanguages(LANGUAGES, source="fr", target="hi", pivot="en")
VERDICTS = ("pivot", "shared", "disagree")
LATE = through((11, 0.0), (14, 4.0))  # advantage of the answer, in nats
MIDDLE = through((4, 0.0), (6, 1.5), (11, 1.5), (13, 0.0))
PLANTS = {
    "nothing": LensPlant(),
    "the target alone": LensPlant({"hi": LATE}),
    "pivot and target alike": LensPlant({"hi": MIDDLE, "en": MIDDLE}),
    "the source, then the target": LensPlant({"fr": MIDDLE, "hi": LATE}),
    "pivot and others alike, then the target": LensPlant(
        {"en": MIDDLE, "es": MIDDLE, "ar": MIDDLE, "hi": LATE}
    ),
    "the pivot, then the target": LensPlant({"en": MIDDLE, "hi": LATE}),
}


def verdict(plant: LensPlant, seed: int) -> list[float]:
    """Return, for one draw, which verdict is given, whether another language than the planted ones
    leads, and whether Hindi is present in the plain lens."""
    tables = planted.draw(plant, seed)
    orders = inference.permutations(plant.n, PERMUTATIONS, seed)
    plain, fitted = (claims.compare_languages(table, CELL, orders) for table in tables)
    made = claims.claim(plain, fitted, CELL)
    others = [name for name in made.others if name not in plant.advantage]
    given = [float(made.verdict == name) for name in VERDICTS]
    return [*given, float(bool(others)), float(bool(plain.layers_present("hi")))]


def lens_errors(run: Run, draws: int) -> Records:
    """Return how often each verdict is given for every plant."""
    records: Records = []
    for name, plant in PLANTS.items():
        rates = run(functools.partial(verdict, plant), draws).mean(0)
        labels = (*VERDICTS, "another_language", "target_present")
        records.append({"planted": name, "draws": draws, **dict(zip(labels, rates, strict=True))})
    return records
