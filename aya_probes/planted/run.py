"""Write planted vectors as the activations of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aya_probes import files, project
from aya_probes.extraction import store
from aya_probes.extraction.plan import Inputs, Plan, Shard, save_plan
from aya_probes.extraction.poolings import POOLINGS
from aya_probes.extraction.runner import EXTRACTION_VERSION
from aya_probes.stimuli import Manifest


def write_activations(
    folder: Path,
    manifest: Manifest,
    vectors: dict[str, dict[str, np.ndarray]],
    tokens: dict[str, dict[str, Any]] | None = None,
) -> store.Activations:
    """Write ``pooling -> stimulus -> [layer, hidden]`` (norm last) as real shards, and open them.

    Stimuli without a ``span_mean`` vector count as having no span.
    """
    ids = list(vectors["content_mean"])
    span_ids = list(vectors["span_mean"])
    layers, hidden = vectors["content_mean"][ids[0]].shape
    blank = {"token_ids": [1], "span_tokens": [0], "tokens_per_character": 1.0}
    tokens = {name: {**blank, **(tokens or {}).get(name, {})} for name in ids}
    plan = Plan(
        schema_version=project.SCHEMA_VERSION,
        inputs=Inputs(
            suite=manifest.suite.name,
            variant=folder.name,
            source={"planted": "yes"},
            manifest_sha256=manifest.sha256,
            poolings=POOLINGS,
            dtype="float32",
            extraction_version=EXTRACTION_VERSION,
        ),
        layers=(*map(str, range(layers - 1)), "final_norm"),
        hidden_size=hidden,
        device="planted",
        device_name=None,
        threads=None,
        token_budget=1,
        packed=True,
        versions={"numpy": np.__version__},
        tokenizer_sha256="planted",
        tokens_sha256=files.digest(tokens),
        shards=(Shard(packs=(tuple(ids),), span_ids=tuple(span_ids)),),
        code_sha256=project.source_hash(),
    )
    tensors = {}
    for pooling in POOLINGS:
        names = span_ids if pooling == "span_mean" else ids
        table = vectors.get(pooling, vectors["content_mean"])
        stacked = np.array([table[name] for name in names]).reshape(-1, layers, hidden)
        tensors[pooling], tensors[f"{pooling}.exponent"] = store.to_float16(stacked)
        if pooling == "content_mean":
            tensors["absmax"] = np.abs(stacked).max(axis=-1).astype(np.float32)
    save_plan(folder, plan)
    files.save_json(folder / "tokens.json", tokens)
    store.save_shard(store.shard_path(folder, 0), tensors, plan.sha256)
    return store.open_activations(folder, manifest.sha256)
