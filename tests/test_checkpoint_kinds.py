"""Quantised, half-precision and image-and-text checkpoints: read rightly, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from aya_probes.errors import StudyError
from aya_probes.extraction import vectors
from aya_probes.models import checkpoints
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted.tiny import VOCABULARY, byte_tokenizer, save_tiny, write_study
from tests.test_checkpoints import change_config, load, loader

CPU = torch.device("cpu")
TEXT = "The eye was seen again."
Weights = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    file = folder / checkpoints.SINGLE
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


# --- quantised weights ------------------------------------------------------------------------


def scaled(name: str, dtype: torch.dtype) -> Callable[[Weights], Weights]:
    """Return a change that stores every projection in ``dtype`` beside a scale of 2."""

    def change(weights: Weights) -> Weights:
        out = {}
        for key, weight in weights.items():
            if key.endswith("proj.weight"):
                blocks = [-(-size // 16) for size in weight.shape]
                out[key.removesuffix("weight") + name] = torch.full(blocks, 2.0)
                weight = weight.to(dtype)
            out[key] = weight
        return out

    return change


def packed(*names: str) -> Callable[[Weights], Weights]:
    """Return a change that stores every projection as packed integers under other names."""

    def change(weights: Weights) -> Weights:
        out: Weights = {}
        for key, weight in weights.items():
            stem = key.removesuffix("weight")
            if key.endswith("proj.weight"):
                out |= {stem + name: torch.zeros(weight.shape[0], 4).int() for name in names}
            else:
                out[key] = weight
        return out

    return change


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}


def test_fp8_weights_are_multiplied_by_their_scales(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    before = load_file(folder / checkpoints.SINGLE)
    rewrite(folder, scaled("weight_scale_inv", torch.float8_e4m3fn))
    change_config(folder, quantization_config=FP8)
    found = load(folder).causal_lm.state_dict()
    for key, weight in before.items():
        is_scaled = key.endswith("proj.weight")
        expected = weight.to(torch.float8_e4m3fn).float() * 2 if is_scaled else weight
        torch.testing.assert_close(found[key], expected, rtol=0, atol=0)


@pytest.mark.fault(
    "GPTQ, AWQ, bitsandbytes and other quantised weights", "refused, the method and the fix named"
)
@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (FP8, packed("qweight", "scales")),
        ({"quant_method": "fbgemm_fp8"}, scaled("weight_scale", torch.float8_e4m3fn)),
        ({"quant_method": "gptq", "bits": 4}, packed("qweight", "scales", "qzeros", "g_idx")),
        ({"quant_method": "awq", "bits": 4}, packed("qweight", "scales", "qzeros")),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, scaled("absmax", torch.uint8)),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, scaled("SCB", torch.int8)),
        ({"quant_method": "compressed-tensors"}, packed("weight_packed", "weight_scale")),
        ({"quant_method": "mxfp4"}, packed("weight_blocks", "weight_scales")),
        ({"bits": 4}, packed("qweight", "scales")),
        ({}, packed("qweight", "scales", "qzeros")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_quantised_weights_that_cannot_be_read_are_refused(
    settings: dict[str, Any], change: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    folder = rewrite(save_tiny(tmp_path / "model", "llama"), change)
    if settings:
        change_config(folder, quantization_config=settings)
    message = rf"variant mine: the (model in {folder} cannot be loaded|weights in {folder} lack)"
    with pytest.raises(StudyError, match=message) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1


def with_bias(weights: Weights) -> Weights:
    return weights | {"model.layers.1.self_attn.q_proj.bias": torch.ones(32)}


@pytest.mark.fault(
    "weights that lack tensors, or hold some that the model would leave out",
    "refused, the first tensor named",
)
@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (scaled("weight_scale_inv", torch.float8_e4m3fn), {}, "28 tensors .*weight_scale_inv"),
        (scaled("SCB", torch.int8), {}, r"28 tensors .*leave out .*\.SCB"),
        (
            scaled("weight_scale", torch.float8_e4m3fn),
            {"quantization_config": {"quant_method": "modelopt"}},  # unknown to the library
            r"28 tensors .*leave out .*\.weight_scale",
        ),
        (with_bias, {}, r"1 tensors .*leave out .*q_proj\.bias"),
        (dict, {"intermediate_size": 128}, r"12 tensors .*down_proj.* has \[32, 64\], not \[32, 1"),
        (dict, {"vocab_size": 300}, r"2 tensors .*lm_head.weight has \[259, 32\], not \[300, 32\]"),
        (
            lambda weights: {
                key.removeprefix("model."): weight
                for key, weight in scaled("weight_scale", torch.float8_e4m3fn)(weights).items()
            },
            {},
            r"28 tensors .*leave out .*first: layers\.0.*\.weight_scale",
        ),
        (lambda weights: {k: w for k, w in weights.items() if "head" not in k}, {}, "lack 1 tens"),
    ],
)
def test_weights_that_do_not_make_the_whole_model_are_refused(
    change: Callable[[Weights], Weights], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = rewrite(save_tiny(tmp_path / "model", "llama"), change)
    change_config(folder, **settings)
    with pytest.raises(StudyError, match=rf"variant mine: the weights in {folder} .*{message}"):
        load(folder)


def test_tensors_of_other_parts_and_scales_of_activations_play_no_part(tmp_path: Path) -> None:
    def add(weights: Weights) -> Weights:
        others = ("self_attn.rotary_emb.inv_freq", "self_attn.k_scale", "mlp.up_proj.input_scale")
        extra = {f"model.layers.0.{name}": torch.ones(4) for name in others}
        return weights | extra | {"vision_tower.layers.0.mlp.up_proj.weight": torch.ones(4, 4)}

    load(rewrite(save_tiny(tmp_path / "model", "llama"), add))


# --- half precision, heads and embeddings -----------------------------------------------------


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("named", ["float32", "float16", None])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_half_precision_files_are_converted_exactly(
    stored: torch.dtype, named: str | None, wanted: torch.dtype, tmp_path: Path
) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    weights = load_file(folder / checkpoints.SINGLE)
    rewrite(folder, lambda weights: {key: w.to(stored) for key, w in weights.items()})
    change_config(folder, dtype=named)
    found = load(folder, wanted).causal_lm.state_dict()
    for key, weight in weights.items():
        torch.testing.assert_close(found[key], weight.to(stored).to(wanted), rtol=0, atol=0)


def without_head(folder: Path) -> Path:
    return rewrite(folder, lambda ws: {k: w for k, w in ws.items() if k != "lm_head.weight"})


def test_a_tied_head_needs_no_weights_and_an_untied_one_does(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    expected = vectors.residual_vectors(load(folder), [TEXT])
    without_head(folder)
    with pytest.raises(StudyError, match=r"variant mine: .*lack 1 tensors .*lm_head\.weight"):
        load(folder)
    change_config(folder, tie_word_embeddings=True)
    assert (vectors.residual_vectors(load(folder), [TEXT]) == expected).all()


def resized(folder: Path, rows: int) -> Path:
    def change(weights: Weights) -> Weights:
        names = ("model.embed_tokens.weight", "lm_head.weight")
        more = torch.zeros(max(0, rows - VOCABULARY), 32)
        return weights | {n: torch.cat([weights[n], more])[:rows].clone() for n in names}

    change_config(rewrite(folder, change), vocab_size=rows)
    return folder


def test_an_embedding_larger_than_the_tokenizer_changes_nothing(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    expected = vectors.residual_vectors(load(folder), [TEXT])
    found = vectors.residual_vectors(load(resized(folder, 320)), [TEXT])
    assert (found == expected).all()


@pytest.mark.fault(
    "a tokenizer larger than the embedding", "refused, the stimulus and the token named"
)
def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    resized(save_tiny(tmp_path / "model", "llama"), 100)
    code, out, error = loader(write_study(tmp_path, {"mine": {"path": "model", "role": "base"}}))
    assert (code, out) == (1, "")
    assert len(error.splitlines()) == 1
    assert re.search(r"token \d+ is not among the model's 100; the tokenizer belongs to", error)


# --- models of images and text ----------------------------------------------------------------

TEXT_PART = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 4, "image_size": 28, "patch_size": 14}
HYBRID: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"] * 2}
HYBRID |= {f"linear_num_{side}_heads": 2 for side in ("key", "value")}
HYBRID |= {f"linear_{side}_head_dim": 8 for side in ("key", "value")}
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 0]}
ROPE |= {"partial_rotary_factor": 0.5}
SMALL = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
GEMMA4: dict[str, Any] = {
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": VOCABULARY,
}
GEMMA4 |= {"num_kv_shared_layers": 0, "global_head_dim": 8}
EXPERTS = {"intermediate_size_mlp": 64, "num_local_experts": 2, "moe_layers": [1, 3]}
PROJECTION = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4}
FOUND: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma3": ("Gemma3", SMALL, VISION),
    "gemma4": ("Gemma4", GEMMA4, {**VISION, "num_key_value_heads": 4, "head_dim": 8}),
    "llama4": ("Llama4", EXPERTS, {**VISION, **PROJECTION}),
    "qwen3_5": (
        "Qwen3_5",
        {**HYBRID, "rope_parameters": ROPE},
        {**QWEN_VISION, "out_hidden_size": 32},
    ),
}


def save_wrapper(folder: Path, kind: str, name: str, **parts: Any) -> Any:
    """Save a random model of images and text with its own class; returns it."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(
        AutoConfig.for_model(kind, **parts)
    ).eval()
    for parameter in model.parameters():  # norms of ones would hide that they were not read
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model


def text_decoder(model: Any) -> Any:
    return next(m for m in model.modules() if hasattr(m, "embed_tokens") and hasattr(m, "layers"))


@pytest.mark.parametrize("kind", FOUND)
def test_the_text_decoder_of_a_model_of_images_and_text_is_found(kind: str, tmp_path: Path) -> None:
    name, text, vision = FOUND[kind]
    parts = {"text_config": {**TEXT_PART, **text}, "vision_config": vision}
    saved = save_wrapper(tmp_path, kind, name, **parts)
    loaded = load(tmp_path)
    assert len(loaded.blocks) == 4
    assert_same_blocks(loaded, text_decoder(saved))


def assert_same_blocks(loaded: LoadedModel, decoder: Any) -> None:
    """Compare what every block of the saved and of the loaded model returns, bit for bit."""

    def outputs(model: Any, blocks: Any) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        handles = [
            block.register_forward_hook(
                lambda _m, _a, out: kept.append(out if torch.is_tensor(out) else out[0])
            )
            for block in blocks
        ]
        ids = loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        return kept

    expected = outputs(decoder, [*decoder.layers, decoder.norm])
    found = outputs(loaded.decoder, [*loaded.blocks, loaded.final_norm])
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_both_spellings_of_a_wrapper_s_weights_are_understood(prefix: str, tmp_path: Path) -> None:
    name, text, vision = FOUND["gemma3"]
    parts = {"text_config": {**TEXT_PART, **text}, "vision_config": vision}
    saved = save_wrapper(tmp_path, "gemma3", name, **parts)
    rename_text_part(tmp_path, prefix)
    assert_same_blocks(load(tmp_path), text_decoder(saved))


def rename_text_part(folder: Path, prefix: str) -> None:
    found = r"^(language_model\.model|model\.language_model)\."

    def change(weights: Weights) -> Weights:
        return {re.sub(found, prefix, key): weight for key, weight in weights.items()}

    assert any(re.match(found, key) for key in load_file(folder / checkpoints.SINGLE))
    rewrite(folder, change)


@pytest.mark.fault(
    "a model of images and text whose text weights do not land", "refused, the class named"
)
@pytest.mark.parametrize("kind", FOUND)
def test_a_wrapper_whose_text_weights_do_not_land_is_refused(kind: str, tmp_path: Path) -> None:
    name, text, vision = FOUND[kind]
    parts = {"text_config": {**TEXT_PART, **text}, "vision_config": vision}
    save_wrapper(tmp_path, kind, name, **parts)
    rename_text_part(tmp_path, "other_model.inner.")
    with pytest.raises(StudyError, match=r"variant mine: .* lack \d+ tensors of the model"):
        load(tmp_path)


WRAPPERS: dict[
    str, tuple[str, dict[str, Any], dict[str, Any]]
] = {  # kind -> the type of its text model and the vision model's settings
    "mistral3": ("Mistral3", {"model_type": "mistral"}, {**VISION, "model_type": "pixtral"}),
    "llava": ("Llava", {"model_type": "llama"}, {**VISION, "model_type": "clip_vision_model"}),
    "idefics3": ("Idefics3", {"model_type": "llama"}, VISION),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}},
        {**QWEN_VISION, "out_hidden_size": 32},
    ),
}


@pytest.mark.fault(
    "a model of images and text without a causal language model", "refused, the class named"
)
@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_that_is_no_causal_lm_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    name, text, vision = WRAPPERS[kind]
    save_wrapper(tmp_path, kind, name, text_config={**TEXT_PART, **text}, vision_config=vision)
    with pytest.raises(StudyError, match=rf"variant mine: .*{name}Config.*not supported") as caught:
        load(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
