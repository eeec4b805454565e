"""Modal objects of the extraction: app, image, volumes and the GPU, each in one place."""

from __future__ import annotations

from pathlib import Path

import modal

GPU = "A10"  # 24 GB; the client's older name for it is A10G. --gpu NAME overrides it
# Dollars an hour (Modal's list, 2026; check https://modal.com/pricing) and dense bf16 TFLOP/s, for
# the estimates of --dry-run only.
GPUS = {
    "L4": (0.80, 121.0),
    "A10": (1.10, 125.0),
    "L40S": (1.95, 362.0),
    "A100": (2.10, 312.0),
    "A100-80GB": (2.50, 312.0),
    "H100": (3.95, 990.0),
}
CPU_CORES, MEMORY_MB = 4.0, 20_480  # the untrained variant is made in float32 before bf16: 13.4 GB
TIMEOUT_S = 2 * 60 * 60  # a 3B variant takes minutes; loading from a cold Volume dominates
RETRIES = 2  # of a container that dies; a user's mistake comes back as a message, not again
ROOT = Path(__file__).resolve().parent
# Everything that batch_runner.py imports: Modal ships the entry file only (tests/test_modal.py).
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
    """Return the user's token: of the environment, or of ``hf auth login``."""
    if not modal.is_local():
        return None  # the container has it from the secret
    from huggingface_hub import get_token

    return get_token()


token_secret = modal.Secret.from_dict({"HF_TOKEN": _hub_token()})
# The versions of uv.lock, which ``uv run`` made here: the container computes with the same.
image = modal.Image.debian_slim(python_version="3.11").uv_sync(
    str(ROOT), groups=[], extra_options="--no-default-groups --no-install-project"
)
image = image.env({"HF_HOME": WEIGHTS_DIR, "PYTHONPATH": REMOTE_ROOT})
for _file in DATA_FILES:  # files added from this machine come last
    image = image.add_local_file(ROOT / _file, f"{REMOTE_ROOT}/{_file}")
image = image.add_local_python_source(*MODULES)
