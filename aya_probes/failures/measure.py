"""Measure and label every perturbed text on every regional variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from aya_probes.extraction.store import Activations
from aya_probes.failures import effects, labels
from aya_probes.failures.edge_cases import Candidate
from aya_probes.failures.labels import UNATTRIBUTED, Text
from aya_probes.results.failures import BorrowedWords, FailureCase
from aya_probes.stimuli import Manifest, Stimulus


@dataclass(frozen=True)
class Inputs:
    """The inputs of the measurement."""

    manifest: Manifest
    """The stimuli."""
    cases: tuple[Stimulus, ...]
    """The perturbed texts among them."""
    controls: tuple[Stimulus, ...]
    """The borrowed words of perturbed texts, alone."""
    changes: dict[str, str]
    """Description of the change, by stimulus id."""
    terms: dict[str, list[str]]
    """Formal terms by language."""
    reference: str
    """Variant that the regional ones are compared with."""
    activations: dict[str, Activations]
    """Activations by variant, without the untrained one and those that train another again."""

    @property
    def variants(self) -> list[str]:
        """The variants measured, in the order of the suite."""
        return list(self.activations)


@dataclass(frozen=True)
class _Pair:
    """What is known of a perturbed text and its parent without vectors."""

    stimulus: Stimulus
    parent: str
    labels: str
    no_op: bool
    layers: str
    anchor: str


def measure_candidates(inputs: Inputs, seed: int) -> list[Candidate]:
    """Return the measurement of every perturbed text on every regional variant."""
    if not inputs.cases:
        return []
    manifest = inputs.manifest
    spaces = {n: effects.Space(manifest, loaded) for n, loaded in inputs.activations.items()}
    peaks = effects.find_peaks(spaces[inputs.reference])
    measured = {
        name: effects.measure_effects(spaces[name], loaded, inputs.cases, peaks, seed)
        for name, loaded in inputs.activations.items()
    }
    best = effects.find_best_variants(measured)
    pairs = list(_label_pairs(inputs, peaks))
    found = []
    for variant in manifest.suite.by_role("regional"):
        if variant.name not in measured:
            continue
        for n, case in enumerate(_compare(variant.name, inputs.reference, measured, pairs)):
            found.append(
                Candidate(
                    case,
                    inputs.changes.get(case.stimulus_id, ""),
                    case.language in variant.targets,
                    tuple(best[n]),
                    {name: float(effect.value[n]) for name, effect in measured.items()},
                )
            )
    return found


def _label_pairs(inputs: Inputs, peaks: Mapping[str, int]) -> Iterator[_Pair]:
    reference = inputs.activations[inputs.reference]
    rules = labels.build_rules(inputs.manifest, inputs.terms)
    text_of = {stimulus.stimulus_id: stimulus.text for stimulus in inputs.manifest.stimuli}
    for case in inputs.cases:
        parent = text_of[str(case.parent_id)]
        tokens, parent_tokens = (
            reference.tokens[name] for name in (case.stimulus_id, str(case.parent_id))
        )
        found = labels.label(
            Text(case.text, case.tag or case.language, tokens["tokens_per_character"]),
            Text(parent, case.language, parent_tokens["tokens_per_character"]),
            rules[case.language],
        )
        layers = effects.list_layers(peaks[case.language], reference.plan.layer_count - 2)
        yield _Pair(
            case,
            parent,
            ";".join(found) or UNATTRIBUTED,
            tokens["token_ids"] == parent_tokens["token_ids"],
            f"{layers[0]}-{layers[-1]}",
            "+".join(effects.anchor_languages(case, inputs.manifest.suite.languages)),
        )


def _compare(
    variant: str,
    reference: str,
    measured: Mapping[str, effects.Effects],
    pairs: list[_Pair],
) -> Iterator[FailureCase]:
    """Yield the case of every pair: its effects on ``variant`` and on ``reference``."""
    ours, theirs = measured[variant], measured[reference]
    lower, upper = np.quantile(ours.draws - theirs.draws, [0.025, 0.975], axis=1)
    for n, pair in enumerate(pairs):
        case = pair.stimulus
        yield FailureCase(
            stimulus_id=case.stimulus_id,
            parent_id=str(case.parent_id),
            language=case.language,
            tag=case.tag or case.language,
            variant=variant,
            reference_variant=reference,
            category=case.category or UNATTRIBUTED,
            subtype=case.subtype or "",
            mixed="+".join(case.mixed or ()),
            anchor=pair.anchor,
            labels=pair.labels,
            effect=float(ours.value[n]),
            reference_effect=float(theirs.value[n]),
            delta=float(ours.value[n] - theirs.value[n]),
            lower=float(lower[n]),
            upper=float(upper[n]),
            pivot_effect=float(ours.pivot[n]),
            pivot_delta=float(ours.pivot[n] - theirs.pivot[n]),
            layers=pair.layers,
            pooling=effects.POOLING,
            verdict=effects.decide_verdict(pair.no_op, lower[n], upper[n]),
            input=case.text,
            parent=pair.parent,
        )


def measure_borrowed(inputs: Inputs, seed: int) -> list[BorrowedWords]:
    """Return how much alignment the borrowed words of perturbed texts have alone.

    One record for each language, subtype and variant: mean A of the parents, of the perturbed texts
    and of their borrowed words, against the anchor and against the pivot.
    """
    if not inputs.controls:
        return []
    changed = {case.stimulus_id: case for case in inputs.cases}
    pairs = [(c, changed[c.stimulus_id.removesuffix("-borrowed")]) for c in inputs.controls]
    spaces = {n: effects.Space(inputs.manifest, found) for n, found in inputs.activations.items()}
    peaks = effects.find_peaks(spaces[inputs.reference])
    found = []
    for variant, loaded in inputs.activations.items():
        alone, mixed = (
            effects.measure_effects(spaces[variant], loaded, [p[k] for p in pairs], peaks, seed)
            for k in (0, 1)
        )
        groups: dict[tuple[str, str], list[int]] = {}
        for n, (control, _) in enumerate(pairs):
            groups.setdefault((control.language, control.subtype or ""), []).append(n)
        for (language, subtype), members in sorted(groups.items()):
            words, texts = alone.levels[members], mixed.levels[members]
            anchor, pivot = (
                (texts[:, k, 1].mean(), texts[:, k, 0].mean(), words[:, k, 0].mean())
                for k in (0, 1)
            )
            tags = dict.fromkeys(tag for n in members for tag in pairs[n][0].mixed or ())
            found.append(
                BorrowedWords(
                    variant,
                    language,
                    subtype,
                    "+".join(tags),
                    len(members),
                    *map(float, anchor),
                    *map(float, pivot),
                )
            )
    return found
