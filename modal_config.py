"""Modal objects of the extraction: app, image, volumes and the GPU, each in one place."""

from __future__ import annotations

import os
from pathlib import Path

import modal

GPU = "A10"  # 24 GB; the client's older name for it is A10G
TIMEOUT_S = 2 * 60 * 60  # a 3B variant takes minutes; loading from a cold Volume dominates
RETRIES = 2
ROOT = Path(__file__).resolve().parent
MODULES = (
    "study",
    "artifacts",
    "activation_store",
    "weight_cache",
    "hub",
    "model_loader",
    "extraction",
    "modal_config",
)
REMOTE_ROOT = "/root"
WEIGHTS_DIR = "/weights"
ACTIVATIONS_DIR = "/activations"

app = modal.App("aya-cross-lingual-probes")
weights_volume = modal.Volume.from_name("aya-probes-weights", create_if_missing=True)
activations_volume = modal.Volume.from_name("aya-probes-activations", create_if_missing=True)
token_secret = modal.Secret.from_dict({"HF_TOKEN": os.environ.get("HF_TOKEN")})
image = (
    modal.Image.debian_slim(python_version="3.11")
    .uv_sync(
        str(ROOT), groups=[], frozen=False, extra_options="--no-default-groups --no-install-project"
    )
    .env({"HF_HOME": WEIGHTS_DIR, "PYTHONPATH": REMOTE_ROOT})
    .add_local_file(ROOT / "data" / "languages.toml", f"{REMOTE_ROOT}/data/languages.toml")
    .add_local_python_source(*MODULES)
)
