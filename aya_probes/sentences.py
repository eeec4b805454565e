"""Describe one sentence of the stimuli, and what depends on it, for people who correct it.

The files are those of a suite: its concept probes and its perturbation pairs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aya_probes import errors, perturbations, probes, suites
from aya_probes.perturbations import Perturbation
from aya_probes.probes import Concept, ProbeSentence
from aya_probes.suites import Suite

MAKE_EDGES = "uv run tools/unicode_edges.py"


@dataclass(frozen=True)
class _Probe:
    """A probe sentence, its concept and its language."""

    concept: Concept
    language: str
    sentence: ProbeSentence


def describe(suite: Suite, name: str) -> str:
    """Return a description of the probe (such as C08-hi-1) or the pair called ``name``.

    A probe is shown with its pivot sentence, surface, term and the pairs made from it; a pivot
    sentence with its translations; a pair with its parent. Raises UsageError for an unknown id, and
    StudyError for broken files.
    """
    if not suite.probes:
        raise errors.UsageError(f"--show: suite {suite.name} has no probes")
    known = {
        f"{concept.id}-{code}-{sentence.wording}": _Probe(concept, code, sentence)
        for concept in probes.load_probes(suites.resolve_path(suite.probes))
        for code, sentences in concept.sentences.items()
        for sentence in sentences
    }
    pairs: dict[str, Perturbation] = {}
    if suite.perturbations:
        file = suites.resolve_path(suite.perturbations)
        pairs = {pair.id: pair for pair in perturbations.load_perturbations(file).pairs}
    if name in known:
        lines = _describe_probe(name, known, pairs, suite.pivot)
    elif name in pairs:
        lines = _describe_pair(pairs[name], known, suite.pivot)
    else:
        raise errors.UsageError(_unknown(name, [*known, *pairs]))
    return "\n".join(errors.escape_hidden(line) for line in lines)


def _unknown(name: str, valid: list[str]) -> str:
    """Return the message for an unknown id; it names ids that are spelled alike."""
    alike = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    hint = f"did you mean {', '.join(alike)}" if alike else f"an id is written like {valid[0]}"
    return f"--show: no probe and no pair is called {name[:100]!r}; {hint}"


def _describe_probe(
    name: str, known: Mapping[str, _Probe], pairs: Mapping[str, Perturbation], pivot: str
) -> Iterator[str]:
    concept, language = known[name].concept, known[name].language
    sentence = known[name].sentence
    start, end = sentence.span
    yield f"{name}: {concept.name} ({concept.category})"
    yield f"  text      {sentence.text}"
    if language != pivot:
        yield from _in_language(known, f"{concept.id}-{pivot}-{sentence.wording}")
    yield f"  surface   {sentence.surface}, characters {start} to {end} of {len(sentence.text)}"
    yield f"  term      {concept.terms[language]} ({'; '.join(concept.sources[language])})"
    if language in concept.notes:
        yield f"  note      {concept.notes[language]}"
    if language == pivot:
        for code in concept.sentences:
            if code != pivot:
                yield from _in_language(known, f"{concept.id}-{code}-{sentence.wording}")
    made = [pair for pair in pairs.values() if pair.parent_id == name]
    yield f"  pairs     {len(made)}"
    for pair in made:
        yield f"    {pair.id}: {pair.change}"
        yield f"      {pair.text}"
        yield from _stale(pair, sentence.text, "      ")


def _describe_pair(pair: Perturbation, known: Mapping[str, _Probe], pivot: str) -> Iterator[str]:
    yield f"{pair.id}: {pair.category} {pair.subtype}".rstrip()
    yield f"  text      {pair.text}"
    yield f"  change    {pair.change}"
    yield f"  language  {pair.language}, tag of the text {pair.tag}"
    if pair.mixed:
        yield f"  mixed     {', '.join(pair.mixed)}: {' | '.join(pair.borrowed)}"
    if pair.note:
        yield f"  note      {pair.note}"
    parent = known.get(pair.parent_id)
    if parent is None:
        yield f"  parent    {pair.parent_id}: not among the probes"
        return
    yield f"  parent    {pair.parent_id}: {parent.sentence.text}"
    yield from _stale(pair, parent.sentence.text, "  ")
    yield from _in_language(known, f"{pair.concept_id}-{pivot}-{pair.wording}")


def _in_language(known: Mapping[str, _Probe], name: str) -> Iterator[str]:
    """Yield the line that says a sentence in another language, if there is one."""
    if name in known:
        yield f"  {f'in {known[name].language}':9} {known[name].sentence.text}"


def _stale(pair: Perturbation, parent: str, indent: str) -> Iterator[str]:
    """Yield what to do with a pair whose parent has changed."""
    if pair.parent != parent:
        yield f"{indent}its parent was: {pair.parent}"
        fix = f"run {MAKE_EDGES}" if pair.category == "UNICODE_EDGE" else "rewrite it"
        yield f"{indent}the parent has changed since: {fix}"
