"""Planned contrasts: the plan, the windows, the parts, and the error rates on planted tables."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import concept_alignment
from aya_probes import run_folder, suites
from aya_probes.alignment import contrasts, inference
from aya_probes.alignment import run as alignment_run
from aya_probes.alignment.contrasts import Draws, Table
from aya_probes.alignment.windows import ALL, PEAK, WINDOWS, Windows
from aya_probes.planted import vectors as planted
from aya_probes.planted.run import write_activations
from aya_probes.results.tables import Contrast
from aya_probes.suites import Variant
from tests import planted_stage

N, ROWS = 16, 11  # concepts; layers 0..9 and final_norm
LANGUAGES = ("hi", "ta", "sw", "fr", "am")
BASE, CONTROL = Variant("base", "base"), Variant("global", "control")
FIRE = Variant("fire", "regional", targets=("hi", "ta"))
FIRE2 = Variant("fire-seed2", "seed", of="fire")
GLOBAL2 = Variant("global-seed2", "seed", of="global")
GLOBAL30 = Variant("global-30k", "dose", of="global")
UNTRAINED = Variant("untrained", "untrained")
EVERY = (BASE, CONTROL, FIRE, FIRE2, GLOBAL2, GLOBAL30, UNTRAINED)
DRAWS = Draws(inference.resample_weights(N, 300, 0), 499, 0)


def table(
    seed: int,
    variants: Sequence[Variant],
    effects: Mapping[tuple[str, str], float] | None = None,
    *,
    languages: Sequence[str] = LANGUAGES,
    n: int = N,
) -> Table:
    """Return values that all variants share, with noise and ``effects`` of single cells."""
    rng = np.random.default_rng(seed)
    shared = {code: 0.3 + 0.2 * rng.normal(size=(ROWS, n)) for code in languages}
    values = {
        (v.name, code): shared[code]
        + (effects or {}).get((v.name, code), 0.0)
        + 0.05 * rng.normal(size=(1, n))  # of the concept, at every layer
        + 0.05 * rng.normal(size=(ROWS, n))
        for v in variants
        for code in languages
    }
    return Table("concept_alignment", values, np.arange(n))


def rows(
    variants: Sequence[Variant],
    made: Table,
    *,
    untestable: Sequence[str] = (),
    draws: Draws = DRAWS,
) -> list[Contrast]:
    languages = list(dict.fromkeys(code for _, code in made.values))
    return contrasts.contrast_table(variants, languages, made, untestable, draws)


def pick(found: Sequence[Contrast], **wanted: str) -> list[Contrast]:
    return [r for r in found if all(getattr(r, name) == value for name, value in wanted.items())]


# --- the plan ---------------------------------------------------------------------------------


def names(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    return [(each.family, each.name) for each in contrasts.plan(variants)]


def test_the_plan_of_every_role() -> None:
    assert names(EVERY) == [
        ("specificity", "fire - global"),
        ("parts", "fire - global"),
        ("region", "fire - global"),
        ("adaptation", "fire - base"),
        ("post-training", "global - base"),
        ("seed", "fire-seed2 - fire"),
        ("seed specificity", "fire-seed2 - fire"),
        ("seed", "global-seed2 - global"),
        ("seed specificity", "global-seed2 - global"),
        ("dose", "fire - global-30k"),
        *(("trained", f"{v.name} - untrained") for v in EVERY[:-1]),
    ]


def test_base_replaces_a_missing_control_and_nothing_else_is_made_up() -> None:
    assert names((BASE, FIRE)) == [
        (family, "fire - base") for family in ("specificity", "parts", "region")
    ]
    assert names((CONTROL, FIRE2)) == []  # neither fire nor base is there
    assert names((BASE, CONTROL)) == [("post-training", "global - base")]
    assert names((FIRE, UNTRAINED)) == [("trained", "fire - untrained")]
    without = dataclasses.replace(FIRE, targets=())
    assert names((CONTROL, without)) == [("region", "fire - global")]
    assert names((BASE, GLOBAL30, FIRE)) == names((BASE, FIRE))  # of a control that is not there


def test_the_stage_on_the_tiny_aya_suite_compares_every_region_with_all_its_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrasts, "WINDOWS", (ALL,))
    suite = suites.load_suite("tiny-aya")
    others = [code for code in suite.languages if code != suite.pivot]
    assert (len(suite.variants), len(suite.languages)) == (6, 10)
    made = planted_stage.manifest(suite, concepts=8, documents=range(8))
    manifest = planted_stage.saved(tmp_path, made)
    paths = run_folder.RunPaths(tmp_path)
    plant = planted.Plant(np.ones(5), np.zeros(5), np.ones(5), n=24, wordings=1, hidden=8)
    drawn = planted.draw(plant, 1, languages=10, variants=6)[:, :, :, 0]
    for variant, languages in zip(suite.variants, drawn, strict=True):
        probes, corpus = (
            {
                text.stimulus_id: vectors
                for code, table in zip(suite.languages, languages, strict=True)
                for text, vectors in zip(
                    (t for t in manifest.stimuli if (t.kind, t.language) == (kind, code)),
                    table[part],
                    strict=True,
                )
            }
            for kind, part in (("probe", slice(16)), ("parallel", slice(16, 24)))
        )
        vectors = {"content_mean": probes | corpus, "span_mean": probes}
        write_activations(paths.activations / variant.name, manifest, vectors)
    line = ["--run-dir", str(tmp_path), "--n-permutations", "99", "--n-bootstrap", "99"]
    assert concept_alignment.main(line) == 0
    found: Any = pd.read_csv(paths.contrasts)
    assert set(found.family) == {
        *("specificity", "parts", "region", "adaptation", "post-training", "trained"),
    }
    targets = {
        "fire": {"hi", "bn", "ta"},
        "earth": {"sw", "am", "yo", "ar"},
        "water": {"fr", "es"},
    }
    for _, mine in found[found.family == "specificity"].groupby("measure"):
        assert list(mine.contrast) == [f"{name} - global" for name in targets]
        for row, wanted in zip(mine.itertuples(), targets.values(), strict=True):
            assert set(row.targets.split("+")) == wanted
            assert row.others.split("+") == [code for code in others if code not in wanted]
            floor = 1 / math.comb(9, len(wanted))
            assert row.p_language_floor == pytest.approx(floor, rel=1e-4)
            assert floor <= row.p_language * 1.0001 <= 1.0001
    sizes = found.groupby(["measure", "family"]).size().unstack()
    assert (sizes["region"] == 3 * len(others)).all()
    assert (sizes["trained"] == 5 * len(others)).all()
    assert (sizes["parts"] == 2 * 3).all()
    assert len(sizes) == 8  # concepts and three measures of the corpus, standardised and raw


# --- parts ------------------------------------------------------------------------------------


def test_specificity_is_the_gain_on_targets_less_the_change_elsewhere() -> None:
    made = table(4, EVERY)
    read = Windows(made.values, "global", made.groups, 0)
    for window in WINDOWS:
        found = list(contrasts.differences(contrasts.plan(EVERY), LANGUAGES, read, window))

        def part(family: str, name: str, found: list[contrasts.Difference] = found) -> np.ndarray:
            [one] = [d for d in found if (d.family, d.part) == (family, name)]
            return one.items

        change = {
            code: read.read("fire", code, window) - read.read("global", code, window)
            for code in LANGUAGES
        }
        gain = (change["hi"] + change["ta"]) / 2
        elsewhere = (change["sw"] + change["fr"] + change["am"]) / 3
        np.testing.assert_allclose(part("specificity", "specificity"), gain - elsewhere)
        np.testing.assert_allclose(part("parts", "targets"), gain)
        np.testing.assert_allclose(part("parts", "elsewhere"), elsewhere)
        np.testing.assert_allclose(
            part("dose", "specificity"), part("dose", "targets") - part("dose", "elsewhere")
        )
        [whole] = [d for d in found if d.family == "specificity"]
        assert whole.by_language is not None
        np.testing.assert_allclose(whole.by_language, [change[c].mean() for c in LANGUAGES])
    families = {row.family: row for row in rows(EVERY, made)}
    assert set(families) == {
        *("specificity", "parts", "region", "adaptation", "post-training"),
        *("seed", "seed specificity", "dose", "trained"),
    }


def test_rows_say_what_they_compare() -> None:
    found = rows(EVERY, table(5, EVERY))
    for row in found:
        single = row.part == ""
        assert single == (row.family not in ("specificity", "parts", "dose", "seed specificity"))
        assert (row.targets in LANGUAGES) == single
        assert (row.p_language is None) == (row.part != "specificity")
        assert row.lower <= row.estimate <= row.upper
        assert row.n == row.groups == N
    for window in WINDOWS:
        mine = pick(found, window=window)
        assert [r.targets for r in pick(mine, family="region")] == list(LANGUAGES)
        assert len(pick(mine, family="trained")) == 6 * len(LANGUAGES)
        sides = {(r.part, r.targets, r.others) for r in pick(mine, family="parts")}
        assert sides == {("targets", "hi+ta", ""), ("elsewhere", "", "sw+fr+am")}
        sides = {(r.part, r.targets, r.others) for r in pick(mine, family="dose")}
        assert ("specificity", "hi+ta", "sw+fr+am") in sides
        assert len(sides) == 3


def test_holm_is_over_one_family_and_one_window() -> None:
    found = rows(EVERY, table(6, EVERY, {("fire", "hi"): 0.02, ("global", "fr"): 0.03}))
    for window, family in itertools.product(WINDOWS, {row.family for row in found}):
        mine = pick(found, window=window, family=family)
        expected = inference.holm(np.array([row.p for row in mine]))
        np.testing.assert_allclose([row.p_holm for row in mine], expected)


def test_p_and_interval_are_those_of_the_mean_difference_over_layers() -> None:
    made = table(7, (BASE, CONTROL))
    [row] = pick(rows((BASE, CONTROL), made), window=ALL, targets="hi")
    change = (made.values["global", "hi"] - made.values["base", "hi"])[1:-1].mean(0)
    assert row.estimate == pytest.approx(change.mean())
    lower, upper = inference.expanded_interval(change, DRAWS.weights)
    assert (row.lower, row.upper) == pytest.approx((float(lower), float(upper)))
    exact = stats.permutation_test(
        (change,), np.mean, permutation_type="samples", n_resamples=2**N
    ).pvalue
    assert row.p == pytest.approx(exact, abs=0.08)
    assert row.detectable == pytest.approx(float(inference.detectable(change)))


# --- what is left out -------------------------------------------------------------------------


def test_untestable_and_undefined_languages_are_in_no_contrast() -> None:
    made = table(8, EVERY)
    values = dict(made.values)
    values["untrained", "am"] = np.where(
        np.arange(ROWS)[:, None] == 4, np.nan, values["untrained", "am"]
    )
    del values["base", "fr"]
    found = rows(EVERY, dataclasses.replace(made, values=values), untestable=["ta"])
    assert {code for row in found for code in (row.targets + "+" + row.others).split("+")} == {
        *("hi", "sw", ""),
    }
    [whole] = pick(found, family="specificity", window=ALL)
    assert (whole.targets, whole.others, whole.p_language_floor) == ("hi", "sw", 0.5)
    alone = rows(EVERY, made, untestable=["sw", "fr", "am"])
    assert pick(alone, family="specificity") == []  # nothing to compare the targets with
    assert len(pick(alone, family="region", window=ALL)) == 2


def test_concepts_left_out_of_a_language_are_left_out_of_its_contrasts() -> None:
    made = table(9, (BASE, CONTROL, FIRE))
    values = {key: v.copy() for key, v in made.values.items()}
    for (_, code), v in values.items():
        if code == "hi":
            v[:, :6] = np.nan
    found = rows((BASE, CONTROL, FIRE), dataclasses.replace(made, values=values))
    [hindi] = pick(found, family="region", targets="hi", window=ALL)
    change = (values["fire", "hi"] - values["global", "hi"])[1:-1, 6:].mean(0)
    assert (hindi.n, hindi.groups) == (10, 10)
    assert hindi.estimate == pytest.approx(change.mean())
    assert hindi.p == float(inference.sign_flip_p(change, count=0, seed=0))
    [tamil] = pick(found, family="region", targets="ta", window=ALL)
    assert tamil.n == N
    [whole] = pick(found, family="specificity", window=ALL)
    assert whole.n == N  # the other target stands for the concepts that Hindi lacks
    assert np.isfinite([row.estimate for row in found]).all()


def test_contrasts_need_eight_groups_and_a_plan() -> None:
    few = Draws(inference.resample_weights(7, 100, 0), 99, 0)
    assert rows((BASE, CONTROL), table(10, (BASE, CONTROL), n=7), draws=few) == []
    enough = Draws(inference.resample_weights(8, 100, 0), 99, 0)
    assert rows((BASE, CONTROL), table(10, (BASE, CONTROL), n=8), draws=enough) != []
    assert rows((BASE,), table(10, (BASE,))) == []
    assert rows((BASE, CONTROL), table(10, (BASE, CONTROL)), untestable=LANGUAGES) == []


def test_copies_of_an_item_in_its_document_are_no_new_evidence() -> None:
    """Items of one document count once: three copies of each change no p-value, no interval."""
    one = table(11, (BASE, CONTROL, FIRE), {("fire", "hi"): 0.03})
    copied = Table(
        one.measure,
        {key: np.repeat(v, 3, axis=1) for key, v in one.values.items()},
        np.repeat(one.groups, 3),
    )
    before, after = rows((BASE, CONTROL, FIRE), one), rows((BASE, CONTROL, FIRE), copied)
    for old, new in zip(before, after, strict=True):
        assert (new.n, new.groups) == (3 * old.n, old.groups)
        assert new.p == old.p
        for name in ("estimate", "lower", "upper", "detectable"):
            assert getattr(new, name) == pytest.approx(getattr(old, name), abs=1e-12)


def test_too_few_draws_for_the_largest_family_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(EVERY, table(0, EVERY))
    families = Counter((row.measure, row.family, row.window) for row in found)
    needed = 20 * max(families.values())
    alignment_run.warn_of_few_draws(found, needed)
    assert capsys.readouterr().err == ""
    alignment_run.warn_of_few_draws(found, needed - 2)
    assert f"--n-permutations {needed} or more" in capsys.readouterr().err


# --- error rates and planted effects ----------------------------------------------------------


def test_families_reject_at_their_nominal_rate_where_nothing_is_planted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peak window is the one that noise could choose."""
    monkeypatch.setattr(contrasts, "WINDOWS", (PEAK,))
    variants, count = (CONTROL, FIRE), 200
    draws = Draws(DRAWS.weights[:50], 199, 0)
    false = dict.fromkeys(("specificity", "region"), 0)
    for seed in range(count):
        found = rows(variants, table(seed, variants), draws=draws)
        for family in false:
            false[family] += any(row.established for row in pick(found, family=family))
    for rejected in false.values():
        assert rejected <= stats.binom.ppf(0.999, count, 0.05)
    assert sum(false.values()) >= stats.binom.ppf(0.001, count, 0.05)


def test_a_planted_specificity_is_found_with_its_parts() -> None:
    effects = {("fire", code): 0.08 for code in FIRE.targets}
    effects |= {("fire", code): -0.06 for code in ("sw", "fr", "am")}
    found = rows(EVERY, table(12, EVERY, effects))
    for window in WINDOWS:
        mine = pick(found, window=window)
        [whole] = pick(mine, family="specificity")
        assert whole.established
        assert whole.lower <= 0.14 <= whole.upper
        assert whole.p_language == whole.p_language_floor == pytest.approx(1 / 10)
        gain, elsewhere = pick(mine, family="parts")
        assert gain.lower <= 0.08 <= gain.upper
        assert elsewhere.lower <= -0.06 <= elsewhere.upper
        assert gain.established
        assert elsewhere.established
        assert whole.estimate == pytest.approx(gain.estimate - elsewhere.estimate)
        [dose] = [r for r in pick(mine, family="dose") if r.part == "specificity"]
        assert dose.established
        seed, control_seed = pick(mine, family="seed specificity")
        assert control_seed.targets == seed.targets == whole.targets
        assert control_seed.lower <= 0 <= control_seed.upper
        assert seed.estimate == pytest.approx(-0.14, abs=0.06)  # the second seed lost it
        assert not any(row.established for row in pick(mine, contrast="global-seed2 - global"))


def test_a_gain_in_every_language_is_no_specificity() -> None:
    """More text for all: region and parts are established, and specificity is not."""
    effects = {("fire", code): 0.15 for code in LANGUAGES}
    found = pick(rows(EVERY, table(13, EVERY, effects)), window=ALL)
    assert all(row.established for row in pick(found, family="region"))
    assert all(row.established for row in pick(found, family="parts"))
    [whole] = pick(found, family="specificity")
    assert not whole.established
    assert whole.lower <= 0 <= whole.upper
    assert whole.p_language is not None
    assert whole.p_language > 0.05
    assert abs(whole.estimate) < whole.detectable < 0.15


def test_a_dose_control_separates_languages_from_the_amount_of_text() -> None:
    """What global with as much text gains too is no difference from it."""
    effects = {(name, code): 0.15 for name in ("fire", "global-30k") for code in LANGUAGES}
    found = pick(rows(EVERY, table(14, EVERY, effects)), window=ALL)
    assert all(row.established for row in pick(found, family="region"))
    assert not any(row.established for row in pick(found, family="dose"))


def test_an_effect_of_the_detectable_size_is_found_in_four_of_five_tables() -> None:
    variants, found, size = (BASE, CONTROL), 0, []
    for seed in range(150):
        made = table(seed, variants, {("global", "hi"): 0.056}, languages=["hi"])
        [row] = pick(rows(variants, made), window=ALL)
        found += row.p <= 0.05
        size.append(row.detectable)
    assert np.mean(size) == pytest.approx(0.056, rel=0.1)
    assert found / 150 == pytest.approx(0.8, abs=0.09)
