"""Cross-lingual concept probes; docs/python.md shows how to use them from Python.

The names below are imported when they are first used, so ``import aya_probes`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aya_probes.alignment.by_layer import LayerAlignment, alignment_by_layer
    from aya_probes.extraction.vectors import residual_vectors
    from aya_probes.models.loading import load_model
    from aya_probes.models.residuals import LoadedModel

__all__ = [
    "LayerAlignment",
    "LoadedModel",
    "alignment_by_layer",
    "load_model",
    "residual_vectors",
]
_MODULES = {
    "LayerAlignment": "alignment.by_layer",
    "LoadedModel": "models.residuals",
    "alignment_by_layer": "alignment.by_layer",
    "load_model": "models.loading",
    "residual_vectors": "extraction.vectors",
}

if not TYPE_CHECKING:  # with it, a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
