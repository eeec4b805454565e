"""Language identifiers as routers: the language, then the variant that targets it.

uv sync --group routers
uv run check_router.py --router examples.identifiers:py3langid
uv run check_router.py --router examples.identifiers:lingua
"""

from __future__ import annotations

import functools
import os
from typing import Any

from aya_probes import suites


@functools.cache
def variants_by_language(suite: str) -> dict[str | None, str]:
    """Return the variant that targets each language; under None, the control variant or base."""
    loaded = suites.load_suite(suite)
    fallback = (loaded.by_role("control") or loaded.by_role("base"))[0].name
    found: dict[str | None, str] = {None: fallback}
    for variant in loaded.by_role("regional"):
        found |= dict.fromkeys(variant.targets, variant.name)
    return found


def _variant(language: str | None) -> str:
    known = variants_by_language(os.environ.get("ROUTER_SUITE", "mini"))
    return known.get(language, known[None])


def py3langid(text: str) -> str:
    """Route by py3langid."""
    import py3langid as langid

    language, _ = langid.classify(text)
    return _variant(str(language))


@functools.cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_languages().build()


def lingua(text: str) -> str:
    """Route by lingua-language-detector."""
    found = _detector().detect_language_of(text)
    return _variant(found.iso_code_639_1.name.lower() if found else None)
