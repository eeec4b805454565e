"""Version numbers are raised with the values: frozen ones of a tiny model and a tiny suite.

A version number decides whether an artefact on disk is stale (ADR-012). When a test here fails,
either undo the change, or raise the number that it names and freeze the new values with

    uv run pytest tests/test_versions.py --refreeze

To freeze the values of one more number, add a line to FROZEN.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import build_stimuli
from aya_probes import build_manifest, files, project, run_folder, suites
from aya_probes.alignment import inference, layers, measures
from aya_probes.alignment import inputs as alignment_inputs
from aya_probes.alignment import run as alignment_run
from aya_probes.extraction import encoding, poolings, runner, store
from aya_probes.extraction.plan import load_plan
from aya_probes.models import loading, residuals, structure
from aya_probes.planted import vectors as planted
from aya_probes.planted.run import write_activations
from aya_probes.planted.tiny import SENTENCES, byte_tokenizer, save_tiny, tiny_model, write_study
from aya_probes.stimuli import Manifest, Stimulus
from tests import planted_stage

FILE = project.ROOT / "tests" / "frozen_vectors.json"
REFREEZE = "uv run pytest tests/test_versions.py --refreeze"
# 3 significant digits are kept; libraries and processors differ by less.
RELATIVE, ABSOLUTE = 6e-3, 1e-3


@dataclass(frozen=True)
class Frozen:
    """Values that may change only together with a version number."""

    constant: str
    """Name of the number."""
    module: str
    """The file that it stands in."""
    version: int
    """The number now."""
    compute: Callable[[Path], Any]
    """Return the values now, as JSON types; takes an empty folder."""


# --- the values -------------------------------------------------------------------------------

TEXTS = (
    Stimulus("en", "probe", "C01", 1, "en", "The eye was seen again.", (4, 7)),
    Stimulus("hi", "probe", "C01", 1, "hi", "आज कोई आँख नहीं भूला।", (7, 10)),
    Stimulus("open", "parallel", "P1", None, "en", "Seen again?! ", None),
    Stimulus("long", "parallel", "P2", None, "sw", "Hakuna aliyesahau jicho leo, " * 3, None),
)


def seeded_model() -> Any:
    """Return a tiny Cohere2 whose weights do not depend on the version of torch."""
    model = tiny_model("cohere2", seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=weight.shape)
            weight.copy_(torch.tensor(1 + drawn / 10 if weight.dim() == 1 else drawn / 4))
    return model


def round_to_3(value: float) -> float:
    return float(f"{value:.3g}")


def extraction_values(folder: Path) -> dict[str, Any]:
    """Return token positions, the form of a shard, and every fourth number of the vectors."""
    variant = suites.Variant("base", "base", path="model")
    suite = suites.Suite("frozen", "en", ("en", "hi", "sw"), "cldr", (variant,))
    manifest = Manifest(suite, {}, TEXTS)
    loaded = loading.wrap(seeded_model(), byte_tokenizer(), torch.device("cpu"), torch.float32)
    job = runner.Job(manifest, variant, folder, runner.Options(device="cpu"))
    runner.extract_loaded(job, loaded, {"role": "base"})
    activations = store.open_activations(folder, manifest.sha256)
    shard = store.read_shard(store.shard_path(folder, 0), activations.plan.sha256)
    encoded = [encoding.encode(loaded.tokenizer, text) for text in TEXTS]
    vectors: dict[str, Any] = {}
    for name, pooling in poolings.BY_NAME.items():
        with_it = [t.stimulus_id for t in TEXTS if t.span or not pooling.needs_span]
        for stimulus, by_layer in zip(with_it, activations.take(name, with_it), strict=True):
            kept = [[round_to_3(x) for x in layer[::4]] for layer in by_layer]
            vectors.setdefault(name, {})[stimulus] = kept
    return {
        "layers": list(activations.plan.layers),
        "positions": {
            pooling: {item.stimulus_id: list(item.positions(pooling)) for item in encoded}
            for pooling in poolings.POOLINGS
        },
        "shard": {name: f"{a.dtype} {list(a.shape)}" for name, a in sorted(shard.items())},
        "exponents": {p: shard[f"{p}.exponent"].tolist() for p in poolings.POOLINGS},
        "vectors": vectors,
    }


def manifest_values(folder: Path) -> dict[str, Any]:
    """Return the hash of a small suite's stimuli: probes, a corpus and perturbations."""
    languages = suites.load_languages()
    for code, frames in SENTENCES.items():
        path = folder / "devtest" / f"{languages[code].flores}.devtest"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(frame.format("x") + "\n" for frame in frames), "utf-8")
    suite = suites.load_suite(str(write_study(folder, {"base": {"path": "m", "role": "base"}})))
    paths = run_folder.RunPaths(folder / "run")
    config = build_manifest.Config(suite, paths, "flores", folder, None, None, None)
    _, manifest = build_manifest.run(config)
    texts = manifest.to_dict()["stimuli"]  # the suite itself holds paths of this machine
    return {"counts": manifest.metadata["counts"], "stimuli_sha256": files.digest(texts)}


def analysis_values(folder: Path) -> dict[str, Any]:
    """Return every curve, shape, layer and contrast of a small planted run."""
    codes, concepts, wordings = ("en", "hi", "sw"), 8, 2
    variants = tuple(
        suites.Variant(name, role, path="x", targets=("hi",) if role == "regional" else ())
        for name, role in (("base", "base"), ("global", "control"), ("fire", "regional"))
    )
    suite = suites.Suite("frozen", "en", codes, "cldr", variants)
    paths = run_folder.RunPaths(folder)
    made = planted_stage.manifest(
        suite, concepts=concepts, wordings=wordings, documents=range(concepts)
    )
    manifest = planted_stage.saved(folder, made)
    probes, parallel = (
        [text for text in manifest.stimuli if text.kind == kind] for kind in ("probe", "parallel")
    )
    plant = planted.Plant(
        concept=planted.strength(np.array([0.1, 0.3, 0.5, 0.5, 0.2, 0.2])),
        sentence=np.zeros(6),
        anisotropy=np.full(6, 4.0),
        n=concepts,
        wordings=wordings,
        hidden=12,
    )
    drawn = planted.draw(plant, 1, languages=len(codes), variants=len(variants))
    for variant, languages in zip(variants, drawn, strict=True):
        table = {
            text.stimulus_id: vectors
            for texts, k in ((probes, slice(None)), (parallel, 0))
            for text, vectors in zip(texts, languages[:, :, k].reshape(-1, 6, 12), strict=True)
        }
        spans = {text.stimulus_id: table[text.stimulus_id] for text in probes}
        vectors = {"content_mean": table, "span_mean": spans}
        write_activations(paths.activations / variant.name, manifest, vectors)
    config = alignment_inputs.Config(paths, None, None, None, 99, 99, 7)
    alignment_run.run(config)
    tree = json.loads(paths.curves.read_text("utf-8"))
    del tree["metadata"], tree["curves"], tree["measures"]["last"], tree["measures"]["last_content"]
    tables = {
        path.name: path.read_text("utf-8").splitlines()
        for path in (paths.commitment, paths.contrasts)
    }
    return dict(round_all(tree | tables))


def round_all(values: Any) -> Any:
    """Round every number to 3 significant digits."""
    if isinstance(values, dict):
        return {key: round_all(value) for key, value in values.items()}
    if isinstance(values, list):
        return [round_all(value) for value in values]
    if isinstance(values, str) and "," in values:
        return [round_all(number_or_text(cell)) for cell in values.split(",")]
    return round_to_3(values) if isinstance(values, float) else values


def number_or_text(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


FROZEN = {
    "analysis": Frozen(
        "ANALYSIS_VERSION",
        "aya_probes/alignment/run.py",
        alignment_run.ANALYSIS_VERSION,
        analysis_values,
    ),
    "extraction": Frozen(
        "EXTRACTION_VERSION",
        "aya_probes/extraction/runner.py",
        runner.EXTRACTION_VERSION,
        extraction_values,
    ),
    "manifest": Frozen(
        "MANIFEST_VERSION",
        "aya_probes/build_manifest.py",
        build_manifest.MANIFEST_VERSION,
        manifest_values,
    ),
}


# --- the comparison ---------------------------------------------------------------------------


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield the places at which two JSON values differ; numbers may differ by their rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{where}[{number}]")
    elif isinstance(old, float) and isinstance(new, float):
        if not math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield f"{where}: {old} became {new}"
    elif old != new:
        yield f"{where}: {old} became {new}"


def is_refrozen(frozen: Frozen, kept: Any) -> bool:
    """Tell whether the values are frozen for the version number that stands in the code."""
    return kept is not None and kept["version"] == frozen.version


def complaint(frozen: Frozen, kept: Any, found: Any) -> str:
    """Return what is wrong with a version number and its values; empty if nothing is."""
    if not is_refrozen(frozen, kept):
        version = kept["version"] if kept else "no version yet"
        return (
            f"{frozen.constant} is {frozen.version}, but the values are frozen for {version}; "
            f"freeze the new ones with: {REFREEZE}"
        )
    changed = list(differences(kept["values"], found))
    if not changed:
        return ""
    return (
        f"{len(changed)} values changed, but {frozen.constant} is still {frozen.version}. Undo the "
        f"change, or raise the number in {frozen.module} and run: {REFREEZE}. First: {changed[0]}"
    )


def load_frozen() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text("utf-8"))) if FILE.is_file() else {}


@pytest.mark.parametrize("name", FROZEN)
def test_values_change_only_with_their_version(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    frozen, kept = FROZEN[name], load_frozen()
    found = frozen.compute(tmp_path)
    if request.config.getoption("--refreeze") and not is_refrozen(frozen, kept.get(name)):
        kept[name] = {"version": frozen.version, "values": found}
        files.save_json(FILE, kept, indent=None)
    said = complaint(frozen, load_frozen().get(name), found)
    assert not said, said


# --- the guard itself -------------------------------------------------------------------------


def amplified(output: Any, plain: Callable[[Any], torch.Tensor] = structure.block_output) -> Any:
    return 1.02 * plain(output)


def without_exponents(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return vectors.astype(np.float16), np.zeros(vectors.shape[:-1], np.int8)


def reversed_corpus(corpus: Any, plain: Any = build_manifest.parallel_stimuli) -> list[Stimulus]:
    return list(plain(corpus)[::-1])


def without_correction(
    similarity: np.ndarray, centred_on: int | None = None, plain: Any = measures.alignment
) -> np.ndarray:
    n = centred_on or similarity.shape[-1]
    return np.asarray(plain(similarity, centred_on) * n / (n - 1))


CHANGES: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("analysis", measures, "alignment", without_correction),
    ("analysis", measures, "disattenuated", lambda cross, left, right: cross),
    ("analysis", inference, "holm", lambda p_values: p_values),
    ("analysis", layers, "commitment_layer", lambda mean, p: 1),
    ("extraction", encoding, "sentence_end", len),
    ("extraction", encoding, "_overlaps", lambda text, token, span: token[0] == span[0]),
    ("extraction", residuals, "block_output", amplified),
    ("extraction", store, "to_float16", without_exponents),
    ("manifest", build_manifest, "parallel_stimuli", reversed_corpus),
    ("manifest", build_manifest, "perturbation_stimuli", lambda *anything: []),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[2])
def test_a_change_of_the_values_is_noticed(
    change: tuple[str, Any, str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, module, function, other = change
    frozen, kept = FROZEN[name], load_frozen()[name]
    monkeypatch.setattr(module, function, other)
    found = frozen.compute(tmp_path)
    said = complaint(frozen, kept, found)
    assert f"but {frozen.constant} is still {frozen.version}. Undo the change, or raise" in said
    raised = dataclasses.replace(frozen, version=frozen.version + 1)
    assert f"frozen for {frozen.version}; freeze the new ones with: {REFREEZE}" in complaint(
        raised, kept, found
    )


def test_rounding_is_no_change() -> None:
    assert list(differences([1.23, -0.0001], [1.2349, 0.0])) == []
    assert list(differences({"a": [1.23]}, {"a": [1.25]})) == ["a[0]: 1.23 became 1.25"]
    assert list(differences({"a": 1}, {"b": 1})) == ["a: 1 became None", "b: None became 1"]
    assert list(differences([1], [1, 2])) == [": [1] became [1, 2]"]


def test_the_numbers_stand_where_the_message_says() -> None:
    for frozen in FROZEN.values():
        lines = (project.ROOT / frozen.module).read_text("utf-8").splitlines()
        assert any(line.startswith(f"{frozen.constant} = {frozen.version}") for line in lines)


# --- what makes activations stale -------------------------------------------------------------


def copy_project(folder: Path) -> Path:
    """Copy what stage 2 needs, so that its source can be edited; returns the copied package."""
    for name in ("batch_runner.py", "modal_config.py", "data/languages.toml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(project.ROOT / name, folder / name)
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(project.ROOT / "aya_probes", folder / "aya_probes", ignore=ignore))


def test_an_edited_comment_makes_nothing_stale_and_a_raised_number_does(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base")
    suite = write_study(tmp_path, {"base": {"path": "base", "role": "base"}})
    line = ["--suite", str(suite), "--run-dir", str(tmp_path / "run"), "--limit", "2"]
    assert build_stimuli.main(line) == 0
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    package = copy_project(checkout)

    def extract(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "batch_runner.py", "--local", "--device", "cpu"]
        command += ["--run-dir", str(tmp_path / "run"), *flags]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)

    folder = tmp_path / "run" / "activations" / "base"
    assert "base: on cpu" in extract().stdout
    first = load_plan(folder)
    edited = package / "extraction" / "packs.py"
    edited.write_text(edited.read_text("utf-8") + "# a comment\n", "utf-8")
    assert f"base: complete, skipped ({folder})" in extract().stdout
    assert load_plan(folder) == first
    assert "base: on cpu" in extract("--overwrite").stdout  # the edited source is what runs
    assert load_plan(folder).code_sha256 != first.code_sha256
    assert load_plan(folder).inputs == first.inputs
    module = package / "extraction" / "runner.py"
    now = f"EXTRACTION_VERSION = {runner.EXTRACTION_VERSION}"
    source = module.read_text("utf-8")
    assert source.count(now) == 1
    module.write_text(source.replace(now, f"{now}0"), "utf-8")
    refused = extract()
    assert refused.returncode == 1
    assert "extraction_version changed since these activations were made" in refused.stderr
