"""Models, adapters and tokenizers that people bring: exact, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from aya_probes.errors import StudyError
from aya_probes.models import loading, structure
from aya_probes.models.loading import Source
from aya_probes.planted.tiny import TINY, save_tiny, tiny_model
from aya_probes.suites import Variant

# --- adapters ---------------------------------------------------------------------------------


def save_adapter(folder: Path, **sizes: Any) -> Path:
    """Save a LoRA with weights that are not zero, for a tiny Llama of these sizes."""
    config = AutoConfig.for_model("llama", vocab_size=259, **{**TINY["llama"], **sizes})
    torch.manual_seed(3)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_config(config),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    adapted.save_pretrained(folder)
    return folder


def load_with(base: Path, adapter: Path) -> Any:
    source = Source(str(base), adapter, {"role": "regional"})
    variant = Variant("tuned", "regional")
    return loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)


def rename(adapter: Path, change: Any) -> Path:
    """Rewrite an adapter's file; ``change`` maps a weight's name to another, or to None."""
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({new: w for name, w in weights.items() if (new := change(name))}, file)
    return adapter


def test_an_adapter_that_fits_changes_the_weights_as_lora_says(tmp_path: Path) -> None:
    base, adapter = save_tiny(tmp_path / "base", "llama"), save_adapter(tmp_path / "lora")
    weights = load_file(adapter / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.self_attn.q_proj"
    change = weights[f"{key}.lora_B.weight"] @ weights[f"{key}.lora_A.weight"]
    before = load_file(base / "model.safetensors")["model.layers.1.self_attn.q_proj.weight"]
    after = load_with(base, adapter).causal_lm.model.layers[1].self_attn.q_proj.weight
    torch.testing.assert_close(after, before + change * 8 / 2)  # PEFT's alpha of 8 over r


@pytest.mark.fault(
    "a LoRA adapter of another model, or only a part of one",
    "refused, the adapter and what does not fit named",
)
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda folder: rename(
                save_adapter(folder), lambda n: n.replace("model.layers", "model.text.layers")
            ),
            "fit nowhere in the model: 16",
        ),
        (
            lambda folder: rename(save_adapter(folder), lambda n: None if "layers.3" in n else n),
            "missing from the adapter: 4 .*layers.3",
        ),
        (lambda folder: save_adapter(folder, num_hidden_layers=6), "fit nowhere in the model: 8"),
        (lambda folder: save_adapter(folder, hidden_size=64), "size mismatch"),
    ],
    ids=["other prefix", "some layers only", "a deeper base", "another width"],
)
def test_an_adapter_of_another_model_is_refused(made: Any, message: str, tmp_path: Path) -> None:
    base, adapter = save_tiny(tmp_path / "base", "llama"), made(tmp_path / "lora")
    with pytest.raises(StudyError, match=message) as caught:
        load_with(base, adapter)
    assert str(adapter) in str(caught.value)
    assert "variant tuned" in str(caught.value)


@pytest.mark.fault("an adapter that is no LoRA (prefix tuning)", "refused, its type named")
def test_an_adapter_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model("llama", seed=0), prefix).save_pretrained(tmp_path / "prefix")
    with pytest.raises(StudyError, match="PREFIX_TUNING cannot be merged"):
        load_with(save_tiny(tmp_path / "base", "llama"), tmp_path / "prefix")


# --- structure --------------------------------------------------------------------------------

OPT = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def build(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=259, pad_token_id=0, **settings)
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_norm_that_is_listed_before_the_blocks_is_found() -> None:
    model = build("opt", **OPT, word_embed_proj_dim=32)
    found = structure.find_structure(model)
    assert found.final_norm is model.model.decoder.final_layer_norm
    assert list(found.blocks) == list(model.model.decoder.layers)


@pytest.mark.fault(
    "a model without a norm after its last block (BERT, BART)", "refused, the block named"
)
def test_a_model_without_a_norm_after_its_blocks_is_refused() -> None:
    sizes = {"decoder_layers": 3, "decoder_ffn_dim": 64, "decoder_attention_heads": 4}
    model = build("bart", d_model=32, is_decoder=True, **sizes)
    with pytest.raises(StudyError, match=r"no norm after its last block .*layers\.2 \(BartDec"):
        structure.find_structure(model)


class Twice(torch.nn.Module):
    """A block that runs another one a second time."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = [inner]

    def forward(self, hidden: torch.Tensor, **kwargs: Any) -> Any:
        return self.inner[0](hidden, **kwargs)


@pytest.mark.fault("a model whose blocks run twice or in another order", "refused, the block named")
def test_blocks_that_run_twice_or_not_in_order_are_refused() -> None:
    model = tiny_model("llama", seed=0).eval()
    layers = model.model.layers
    layers[3] = Twice(layers[1])
    with pytest.raises(StudyError, match=r"layers\.1 \(LlamaDecoderLayer\) runs 2 times"):
        structure.find_structure(model)


@pytest.mark.fault("a model that carries several residual streams", "refused, the shape named")
def test_several_streams_are_refused() -> None:
    gemma = build(
        "gemma3n_text", hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, laurel_rank=4,
        hidden_size_per_layer_input=4, vocab_size_per_layer_input=259, num_kv_shared_layers=0,
        layer_types=["sliding_attention"] * 4, activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    with pytest.raises(StudyError, match="not one stream"):
        structure.find_structure(gemma)
