"""Variants of LoRA: merged as PEFT runs them, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from aya_probes.errors import StudyError
from aya_probes.models import loading
from aya_probes.models.loading import Source
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted.tiny import save_tiny, write_study
from aya_probes.suites import Variant
from tests.test_checkpoints import CPU, loader


def save_adapter(folder: Path, base: Path, **settings: Any) -> Any:
    """Save an adapter whose every weight is random; returns the model that PEFT runs it in."""
    torch.manual_seed(5)
    causal_lm = AutoModelForCausalLM.from_pretrained(base)
    given = {"r": 2, "target_modules": ["q_proj", "v_proj"], **settings}
    adapted = get_peft_model(causal_lm, LoraConfig(init_lora_weights=False, **given)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    return adapted


def load_adapted(base: Path, adapter: Path | None) -> LoadedModel:
    source = Source(str(base), adapter, {"role": "regional"})
    return loading.load_variant(
        Variant("tuned", "regional"), source, device=CPU, dtype=torch.float32
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


@pytest.mark.parametrize(
    "settings",
    [
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 16}},
        {"use_rslora": True},
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True, "rank_pattern": {"v_proj": 4}},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"layers_to_transform": [1, 2]},
        {"trainable_token_indices": [5, 6]},
    ],
    ids=json.dumps,
)
def test_lora_variants_are_merged_as_peft_runs_them(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    adapted: PeftModel = save_adapter(tmp_path / "lora", base, **settings)
    found = logits(load_adapted(base, tmp_path / "lora").causal_lm)
    torch.testing.assert_close(found, logits(adapted), rtol=1e-5, atol=1e-5)
    assert (found - logits(load_adapted(base, None).causal_lm)).abs().max() > 1e-3


@pytest.mark.fault(
    "an adapter whose settings do not fit its weights", "refused, the adapter and the setting named"
)
@pytest.mark.parametrize(
    ("made", "edited", "message"),
    [
        ({"rank_pattern": {"q_proj": 4}}, {"rank_pattern": {}}, "size mismatch"),
        ({"use_dora": True}, {"use_dora": False}, "fit nowhere in the model: 8"),
        ({}, {"use_dora": True}, "missing from the adapter: 8"),
        ({}, {"target_modules": ["q_proj"]}, "fit nowhere in the model: 8"),
        ({}, {"peft_type": "FUTURE"}, "FUTURE"),
        ({"lora_bias": True}, {}, "lora_bias"),
    ],
)
def test_an_adapter_that_is_not_what_its_settings_say_is_refused(
    made: dict[str, Any], edited: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base, folder = save_tiny(tmp_path / "base", "llama"), tmp_path / "lora"
    save_adapter(folder, base, **made)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | edited), "utf-8")
    with pytest.raises(StudyError, match=rf"{folder}: .* variant tuned: .*{message}") as caught:
        load_adapted(base, folder)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_but_the_description_is_printed_for_an_adapter(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    save_adapter(tmp_path / "lora", base, target_modules=["embed_tokens", "q_proj"])
    table = {"path": "base", "role": "regional", "adapter": "lora"}
    plain = {"path": "base", "role": "base"}
    suite = write_study(tmp_path, {"base": plain, "tuned": table})
    code, out, error = loader(suite, "--variant", "tuned")
    assert (code, error) == (0, "")
    assert "LlamaForCausalLM" in out
