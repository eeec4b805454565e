"""Build the stimulus manifest: concept probes, parallel corpus and perturbation pairs.

The suite is chosen here, once; it is written whole into the manifest and every later stage reads
it from there.

Reads:  data/suites/<suite>.toml, data/concept_probes.json, data/perturbations.json, the corpus
Writes: data/stimulus_manifest.json

    uv run build_stimuli.py
    uv run build_stimuli.py --suite mini-flores --flores-dir PATH --run-dir runs/mini-flores
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import artifacts
import parallel_corpus
import run_lock
import study
from artifacts import Concept, Manifest, Perturbation, Stimulus
from parallel_corpus import ParallelCorpus
from study import RunPaths, StudyError, Suite


@dataclass(frozen=True)
class Config:
    suite: Suite
    paths: RunPaths
    corpus: str
    flores_dir: Path | None
    limit: int | None
    languages: tuple[str, ...] | None
    concepts: tuple[str, ...] | None


def probe_stimuli(
    concepts: Sequence[Concept], languages: Sequence[str], source: Path
) -> list[Stimulus]:
    """Return one stimulus per concept, language and wording."""
    stimuli = []
    for concept in concepts:
        wordings = {}
        for code in languages:
            if code not in concept.sentences:
                raise StudyError(
                    f"{source}: {concept.id}: language {code!r} is missing; add it, or "
                    "leave it out with --languages"
                )
            wordings[code] = [s.wording for s in concept.sentences[code]]
            for sentence in concept.sentences[code]:
                stimuli.append(
                    Stimulus(
                        f"{concept.id}-{code}-{sentence.wording}",
                        "probe",
                        concept.id,
                        sentence.wording,
                        code,
                        sentence.text,
                        sentence.span,
                    )
                )
        if len({tuple(found) for found in wordings.values()}) != 1:
            raise StudyError(
                f"{source}: {concept.id}: wordings differ between languages: {wordings}"
            )
    return stimuli


def parallel_stimuli(corpus: ParallelCorpus) -> list[Stimulus]:
    """Return one stimulus per item and language of the parallel corpus."""
    return [
        Stimulus(
            f"{corpus.metadata['corpus']}-{item}-{code}", "parallel", item, None, code, text, None
        )
        for code, lines in corpus.texts.items()
        for item, text in zip(corpus.ids, lines, strict=True)
    ]


def perturbation_stimuli(
    pairs: Sequence[Perturbation], probes: Sequence[Stimulus], source: Path
) -> list[Stimulus]:
    """Return the perturbed texts whose parents are among ``probes``."""
    known = {probe.stimulus_id: probe for probe in probes}
    stimuli = []
    for pair in pairs:
        parent = f"{pair.concept_id}-{pair.language}-{pair.wording}"
        if parent not in known:
            continue
        if pair.text == known[parent].text:
            raise StudyError(f"{source}: {pair.id}: text is the same as its parent's")
        stimuli.append(
            Stimulus(
                pair.id,
                "perturbation",
                pair.concept_id,
                pair.wording,
                pair.language,
                pair.text,
                None,
                parent,
                pair.category,
                pair.tag,
            )
        )
    return stimuli


def load_corpus(config: Config, languages: Sequence[str]) -> ParallelCorpus:
    """Return the parallel corpus that the flags ask for."""
    if config.corpus == "flores":
        corpus = parallel_corpus.load_flores(
            languages, config.suite.pivot, config.flores_dir, config.limit
        )
    elif config.flores_dir is not None:
        raise study.UsageError("--flores-dir goes with --corpus flores")
    else:
        corpus = parallel_corpus.load_cldr(languages, config.suite.pivot)
        if config.limit is not None:
            texts = {code: lines[: config.limit] for code, lines in corpus.texts.items()}
            corpus = parallel_corpus.ParallelCorpus(
                corpus.ids[: config.limit], texts, corpus.metadata
            )
    return corpus


def run(config: Config) -> tuple[Path, Manifest]:
    """Build and save the manifest; returns its path and content."""
    suite = config.suite
    languages = study.choose("language", config.languages, suite.languages)
    if suite.pivot not in languages or len(languages) < 2:
        raise study.UsageError(f"--languages must name {suite.pivot!r} (the pivot) and another one")
    probes_file, pairs_file = study.resolve(suite.probes), study.resolve(suite.perturbations)
    concepts = artifacts.load_probes(probes_file)
    wanted = study.choose("concept", config.concepts, [c.id for c in concepts])
    concepts = [concept for concept in concepts if concept.id in wanted]
    pairs, _ = artifacts.load_perturbations(pairs_file)
    probes = probe_stimuli(concepts, languages, probes_file)
    corpus = load_corpus(config, languages)
    stimuli = [*probes, *parallel_stimuli(corpus), *perturbation_stimuli(pairs, probes, pairs_file)]
    manifest = Manifest(
        dataclasses.replace(
            suite,
            languages=tuple(languages),
            corpus=config.corpus,
            variants=tuple(
                dataclasses.replace(v, targets=tuple(t for t in v.targets if t in languages))
                for v in suite.variants
            ),
        ),
        {
            "schema_version": study.SCHEMA_VERSION,
            "corpus": corpus.metadata,
            "concepts": {concept.id: concept.concept for concept in concepts},
            "counts": {kind: sum(s.kind == kind for s in stimuli) for kind in artifacts.KINDS},
            "code_sha256": study.code_hash(
                "build_stimuli.py", "parallel_corpus.py", "artifacts.py"
            ),
        },
        tuple(stimuli),
    )
    with run_lock.hold(config.paths.run_dir, "build_stimuli.py"):
        artifacts.remove_leftovers(config.paths.manifest.parent)
        artifacts.save_manifest(config.paths.manifest, manifest)
    return config.paths.manifest, manifest


def build_parser() -> argparse.ArgumentParser:
    """Return the stage's parser."""
    parser = study.common_parser(
        "build_stimuli.py",
        "Build the stimulus manifest of a suite.",
        "languages",
        "concepts",
        "limit",
    )
    parser.add_argument(
        "--suite",
        default=study.DEFAULT_SUITE,
        help=f"{', '.join(study.suite_names())}, or a TOML path (default mini)",
    )
    parser.add_argument("--corpus", choices=study.CORPORA, help="default: the suite's")
    parser.add_argument(
        "--flores-dir",
        type=Path,
        metavar="DIR",
        help="FLORES-200 folder with devtest/*.devtest (default: from the hub)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and build; returns the exit code."""
    args = build_parser().parse_args(argv)

    def stage() -> None:
        suite = study.load_suite(args.suite)
        config = Config(
            suite,
            RunPaths(args.run_dir),
            args.corpus or suite.corpus,
            args.flores_dir,
            args.limit,
            args.languages,
            args.concepts,
        )
        path, manifest = run(config)
        counts = ", ".join(f"{n} {kind}" for kind, n in manifest.metadata["counts"].items())
        print(
            f"suite {suite.name}: {counts} stimuli in {len(manifest.suite.languages)} languages "
            f"in {path}"
        )

    return study.run_stage("build_stimuli.py", stage)


if __name__ == "__main__":
    raise SystemExit(main())
