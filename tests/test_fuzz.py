"""Every loader on damaged files: a valid value or one clear error, never a crash of another kind.

``FUZZ_EXAMPLES`` sets how many files each loader is given (default 150).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from aya_probes import errors, files, perturbations, probes, records, stimuli, suites
from aya_probes.extraction import store
from aya_probes.extraction.plan import load_plan
from aya_probes.results.alignment import load_results
from aya_probes.results.failures import FailureCase, load_edge_cases

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
CHARACTERS = some.characters(codec=None)  # lone surrogates, controls and bidi marks included
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(CHARACTERS)
    | some.sampled_from(["../../x", "\ud800", "a" * 20_000, 10**400, 1e308, -1, "", "C01"])
    | some.sampled_from([[], {}, [[]], [{}], {"name": []}, [None], True, float("nan")]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of (at most three entries of) every container in ``data``."""
    found = [path]
    entries = data.items() if isinstance(data, dict) else enumerate(data[:3])
    for key, value in list(entries)[:40]:
        found += places(value, (*path, key)) if isinstance(value, (dict, list)) else [(*path, key)]
    return found


def damaged(draw: Callable[..., Any], data: Any) -> Any:
    """Return a copy of ``data`` with one to three values replaced, removed or added."""
    data = copy.deepcopy(data)
    for _ in range(draw(some.integers(1, 3))):
        path = draw(some.sampled_from(places(data)))
        if not path:
            return copy.deepcopy(draw(VALUES))  # sampled objects are shared
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        action = draw(some.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del parent[path[-1]]
        elif action == "add" and isinstance(parent, dict):
            parent[draw(some.text(max_size=5))] = copy.deepcopy(draw(VALUES))
        else:
            parent[path[-1]] = copy.deepcopy(draw(VALUES))
        if not isinstance(data, (dict, list)):
            break
    return data


def text_of(data: Any, draw: Callable[..., Any]) -> bytes:
    """Return JSON bytes of ``data``, sometimes cut, sometimes with a byte changed."""
    out = bytearray(json.dumps(data).encode())  # NaN and lone surrogates get through here
    how = draw(some.sampled_from(["whole", "whole", "cut", "byte"]))
    if how == "cut":
        return bytes(out[: draw(some.integers(0, len(out)))])
    if how == "byte" and out:
        out[draw(some.integers(0, len(out) - 1))] = draw(some.integers(0, 255))
    return bytes(out)


Loader = Callable[[Path], Any]


def refusal(load: Callable[[], Any]) -> str | None:
    """Return the message of a clear error, None if the value is valid; a crash goes through."""
    try:
        load()
    except errors.StudyError as error:
        return str(error)
    return None


def load_manifest_again(path: Path) -> Any:
    """A manifest that loads can be written, hashed and turned into a suite again."""
    manifest = stimuli.load_manifest(path)
    assert len(manifest.sha256) == 64
    stimuli.save_manifest(path, manifest)
    assert stimuli.load_manifest(path) == manifest
    return manifest


def load_probes_again(path: Path) -> Any:
    concepts = probes.load_probes(path)
    files.canonical_json([asdict(concept) for concept in concepts]).encode()
    return [s.span for c in concepts for row in c.sentences.values() for s in row]


def load_plan_again(path: Path) -> Any:
    """A plan that loads can be walked the way the stages walk it."""
    plan = load_plan(path.parent)
    for shard in plan.shards:
        assert set(shard.ids) >= set(shard.span_ids)
    assert [*plan.inputs.source, *plan.versions, *plan.layers]
    return store.missing_shards(path.parent, plan), plan.sha256


JSON_LOADERS: dict[str, tuple[str, Loader]] = {
    "load_manifest": ("data/stimulus_manifest.json", load_manifest_again),
    "load_plan": ("activations/base/plan.json", load_plan_again),
    "load_curves": ("results/alignment_curves.json", load_results),
    "load_edge_cases": ("p1_edge_cases.json", load_edge_cases),
    "load_json": ("results/token_audit.json", lambda path: files.load_json(path, "make")),
    "load_probes": ("probes.json", load_probes_again),
    "load_perturbations": ("pairs.json", perturbations.load_perturbations),
}


def fault(name: str) -> Any:
    return pytest.param(
        name,
        marks=pytest.mark.fault(f"`{name}` on damaged files", "a valid value or a clear error"),
    )


def source(name: str, tiny_run: Path, tiny_suite: Path) -> Path:
    file = JSON_LOADERS[name][0]
    return tiny_suite.parent / file if "/" not in file and file != "p1_edge_cases.json" \
        else tiny_run / file  # fmt: skip


@pytest.mark.parametrize("name", [fault(name) for name in JSON_LOADERS])
def test_json_loaders(
    name: str, tiny_run: Path, tiny_suite: Path, tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    good = source(name, tiny_run, tiny_suite)
    load = JSON_LOADERS[name][1]
    data = json.loads(good.read_text("utf-8"))
    data.pop("sha256", None)  # the manifest's own hash would hide what lies behind it
    path = tmp_path / good.name
    counts = {"valid": 0, "refused": 0}

    @FUZZ
    @given(some.data())
    def attempt(draws: some.DataObject) -> None:
        path.write_bytes(text_of(damaged(draws.draw, data), draws.draw))
        message = refusal(lambda: load(path))
        counts["valid" if message is None else "refused"] += 1
        assert message is None or path.name in message

    attempt()
    record_property("measured", f"{counts['valid']} valid, {counts['refused']} refused")
    assert counts["refused"] > EXAMPLES // 4
    path.write_bytes(json.dumps(data).encode())
    load(path)  # the undamaged file passes: the fuzz does not merely refuse everything


@pytest.mark.fault("`load_table` on damaged bytes", "a valid value or a clear error")
def test_table_loader(tiny_run: Path, tmp_path: Path) -> None:
    good = (tiny_run / "results/failure_cases.csv").read_bytes()[:3000]
    path = tmp_path / "failure_cases.csv"

    @FUZZ
    @given(some.binary(max_size=300), some.integers(0, len(good)), some.integers(0, 50))
    def attempt(noise: bytes, start: int, length: int) -> None:
        path.write_bytes(good[:start] + noise + good[start + length :])
        message = refusal(lambda: records.load_table(FailureCase, path, "make"))
        assert message is None or path.name in message

    attempt()


@pytest.mark.fault("`read_shard` on damaged bytes", "a valid value or a clear error")
def test_shard_loader(tiny_run: Path, tmp_path: Path) -> None:
    folder = tiny_run / "activations/base"
    good = store.shard_path(folder, 0).read_bytes()
    sha = load_plan(folder).sha256
    path = tmp_path / "shard-00000.safetensors"
    header = 8 + int.from_bytes(good[:8], "little")

    @FUZZ
    @given(
        some.integers(0, header - 1) | some.integers(0, len(good) - 1), some.binary(max_size=12),
        some.booleans(),
    )  # fmt: skip
    def attempt(start: int, noise: bytes, cut: bool) -> None:
        path.write_bytes(good[:start] + noise + (b"" if cut else good[start + len(noise) :]))
        message = refusal(lambda: store.read_shard(path, sha))
        if message is None:
            assert path.read_bytes() == good or start < header  # white space in the header
        else:
            assert path.name in message

    attempt()


def same_again(suite: suites.Suite) -> None:
    assert suites.Suite.from_dict(suite.to_dict(), "again") == suite


@pytest.mark.fault("`load_suite` on damaged TOML", "a valid value or a clear error")
def test_suite_loader(tmp_path: Path) -> None:
    good = (suites.SUITE_DIR / "tiny-aya.toml").read_text("utf-8").encode()
    path = tmp_path / "mine.toml"
    pieces = some.sampled_from(
        [b"[", b"]", b'"', b"=", b"[[variants.base]]", b"languages = [1, {}]\n", b"\x00", b"\xff",
         b'[variants."../x"]\nrole = "base"\npath = "x"\n', b"default = 3\n", b"targets = [[]]\n",
         b'"\\u202e"', b"variants = 1\n", b'path = "\\u0000"\n', b"allow_cpu = 3\n",
         b'extends = "mini"\n', b'extends = "mine.toml"\n', b"extends = '%s.toml'\n" % (b"a" * 300),
         b"extends = [3]\n", b'[defaults]\nrole = "base"\n', b"[defaults]\nrole = 1\n"]
    )  # fmt: skip

    @FUZZ
    @given(some.integers(0, len(good)), pieces | some.binary(max_size=20), some.integers(0, 40))
    def attempt(start: int, noise: bytes, length: int) -> None:
        path.write_bytes(good[:start] + noise + good[start + length :])
        message = refusal(lambda: same_again(suites.load_suite(str(path))))
        assert message is None or path.name in message

    attempt()


@pytest.mark.fault("`Suite.from_dict` on damaged JSON", "a valid value or a clear error")
def test_suite_from_a_manifest() -> None:
    good = suites.load_suite("tiny-aya").to_dict()

    @FUZZ
    @given(some.data())
    def attempt(draws: some.DataObject) -> None:
        raw = damaged(draws.draw, good)
        if not isinstance(raw, dict):
            return
        message = refusal(lambda: same_again(suites.Suite.from_dict(raw, "manifest")))
        assert message is None or "manifest" in message

    attempt()
