"""Fixtures: a suite of tiny random models, and a whole run of it by every stage."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell starts a job in the background with SIGINT ignored, and every process it starts inherits
# that: the tests that send it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag of tests/test_versions.py."""
    parser.addoption(
        "--refreeze",
        action="store_true",
        help="freeze the values of version numbers that were raised (tests/test_versions.py)",
    )


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of four variants of a random tiny Cohere2 on disk."""
    from aya_probes.planted import tiny  # imports torch, which many tests do without

    folder = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate(("base", "global", "fire"), start=1):
        tiny.save_tiny(folder / name, seed=seed)
    variants: dict[str, dict[str, object]] = {
        "base": {"path": "base", "role": "base"},
        "global": {"path": "global", "role": "control"},
        "fire": {"path": "fire", "role": "regional", "targets": ["hi"]},
        "untrained": {"path": "base", "role": "untrained"},
    }
    return tiny.write_study(folder, variants)


@pytest.fixture(scope="session")
def tiny_run(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the tiny suite, made by every stage's ``main``."""
    import pipeline

    run = tmp_path_factory.mktemp("run")
    line = [
        "--suite",
        str(tiny_suite),
        "--run-dir",
        str(run),
        "--limit",
        "40",
        "--device",
        "cpu",
        "--variants",
        "base,global,fire,untrained",
    ]
    assert pipeline.main(line) == 0
    return run
