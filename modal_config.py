"""The extraction's resources on Modal: app, image, Volumes and GPU."""

from __future__ import annotations

from pathlib import Path

import modal
from huggingface_hub import get_token

GPU = "A10"  # 24 GB; Modal also calls it A10G. --gpu NAME overrides it
# US dollars per hour (Modal's prices in 2026, https://modal.com/pricing) and dense bf16 TFLOP/s.
# Only the estimates of --dry-run use them.
GPUS = {
    "L4": (0.80, 121.0),
    "A10": (1.10, 125.0),
    "L40S": (1.95, 362.0),
    "A100": (2.10, 312.0),
    "A100-80GB": (2.50, 312.0),
    "H100": (3.95, 990.0),
}
CPU_CORES, MEMORY_MB = 4.0, 20_480  # untrained weights are made in float32 first: 13.4 GB
TIMEOUT_S = 2 * 60 * 60  # a 3B variant takes minutes, mostly to load from a cold Volume
RETRIES = 2  # of a container that dies; a user's mistake is returned as a message, not retried
ROOT = Path(__file__).resolve().parent
# What batch_runner.py imports. Modal itself only uploads the entry file (tests/test_modal.py).
MODULES = ("aya_probes", "modal_config")
DATA_FILES = ("data/languages.toml",)
REMOTE_ROOT = "/root"
WEIGHTS_DIR = "/weights"
ACTIVATIONS_DIR = "/activations"

app = modal.App("aya-cross-lingual-probes")
VOLUMES = {WEIGHTS_DIR: "aya-probes-weights", ACTIVATIONS_DIR: "aya-probes-activations"}
weights_volume, activations_volume = (
    modal.Volume.from_name(name, create_if_missing=True) for name in VOLUMES.values()
)


def _hub_token() -> str | None:
    """Return the user's hub token, from the environment or from ``hf auth login``."""
    if not modal.is_local():
        return None  # a container gets it from the secret
    return get_token()


token_secret = modal.Secret.from_dict({"HF_TOKEN": _hub_token()})
# The container installs the versions in uv.lock.
image = modal.Image.debian_slim(python_version="3.11").uv_sync(
    str(ROOT), groups=[], extra_options="--no-default-groups --no-install-project"
)
image = image.env({"HF_HOME": WEIGHTS_DIR, "PYTHONPATH": REMOTE_ROOT})
for _file in DATA_FILES:  # Modal requires local files to be added last
    image = image.add_local_file(ROOT / _file, f"{REMOTE_ROOT}/{_file}")
image = image.add_local_python_source(*MODULES)
