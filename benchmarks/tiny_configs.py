"""Tiny configurations of model types, by the names that configuration classes share.

A field that a class has gets a small value. What a class needs beside that is in ``MORE``.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from aya_probes.planted import tiny

LAYERS, HEADS, WIDTH = 4, 4, 32
HEAD = WIDTH // HEADS
Fields = dict[str, Any]  # keyword arguments of a configuration class
_SIZES: tuple[tuple[int, str], ...] = (
    (WIDTH, "hidden_size d_model n_embd dim embed_dim word_embed_proj_dim embedding_size"),
    (WIDTH, "attention_hidden_size moe_intermediate_size shared_expert_intermediate_size"),
    (WIDTH, "shared_intermediate_size expert_ffn_hidden_size"),
    (2 * WIDTH, "intermediate_size ffn_dim ffn_hidden_size n_inner d_ff dff mamba_d_ssm"),
    (2 * WIDTH, "decoder_ffn_dim encoder_ffn_dim intermediate_size_mlp"),
    (LAYERS, "num_hidden_layers n_layer n_layers num_layers num_decoder_layers"),
    (LAYERS, "decoder_layers encoder_layers"),
    (HEADS, "num_attention_heads n_head n_heads num_heads linear_num_heads mamba_n_heads"),
    (HEADS, "decoder_attention_heads encoder_attention_heads"),
    (HEADS, "num_experts num_local_experts n_routed_experts"),
    (2, "num_experts_per_tok num_experts_per_token moe_topk zero_expert_num index_n_heads"),
    (2, "num_expert_group n_group bos_token_id"),
    (1, "topk_group eos_token_id"),
    (HEAD, "head_dim v_head_dim linear_head_dim index_head_dim sliding_window"),
    (HEAD, "attention_chunk_size window_size index_topk"),
    (4, "qk_rope_head_dim qk_nope_head_dim rotary_dim"),
    (16, "q_lora_rank kv_lora_rank mamba_d_state state_size mamba_chunk_size mamba_d_head"),
    (tiny.VOCABULARY, "vocab_size"),
    (512, "max_position_embeddings n_positions max_seq_len"),
    (0, "pad_token_id"),
)
SMALL = {name: size for size, names in _SIZES for name in names.split()}
_HALF_CONV = {"layer_types": ["conv", "full_attention"] * 2}
_ZAMBA = {
    "layer_types": ["linear_attention", "hybrid"] * 2,
    "attention_hidden_size": 2 * WIDTH,
    "attention_head_dim": 2 * HEAD,
}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_BLT = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": HEADS}
_BLT |= {"num_key_value_heads": HEADS, "num_hidden_layers": LAYERS}
_BLT_LOCAL = {**_BLT, "hidden_size_global": WIDTH}
MORE: dict[str, Fields] = {
    "blt": {
        "patcher_config": _BLT,
        "encoder_config": _BLT_LOCAL,
        "decoder_config": _BLT_LOCAL,
        "global_config": _BLT,
        "encoder_hash_byte_group_vocab": tiny.VOCABULARY,
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": WIDTH, "ffn_hidden_size": 2 * WIDTH},
    },
    "gemma3n_text": {
        "laurel_rank": 4,
        "hidden_size_per_layer_input": 4,
        "vocab_size_per_layer_input": tiny.VOCABULARY,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "mamba2": {"head_dim": 2 * HEAD, "n_groups": 2},
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 16],
        "feed_forward_size": 64,
        "attn_layers": ["local", "lsh"] * 2,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": _ZAMBA,
    "zamba2": {**_ZAMBA, "hybrid_layer_ids": [1, 3]},
    "zaya": {"num_experts_per_tok": 1},
    "dots1": {"n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": _HALF_CONV,
    "lfm2_moe": {**_HALF_CONV, "num_dense_layers": 1},
}
_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": HEAD,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "hc_count": 2,
    "hc_lowrank": 4,
}
MORE |= {"qwen4_exp": _INDEXER, "qwen4_exp_text": _INDEXER}
_ADAPTER = {"adapter_out_dim": WIDTH, "num_hidden_layers": 1, "per_layer_config": {}}
OTHER_PARTS: dict[str, Fields] = {  # of a model that reads more than text
    "dots3_note": {"vision_config": _ADAPTER, "audio_config": _ADAPTER},
}


def build(kind: str) -> PreTrainedConfig:
    """Return a tiny configuration of a model type, its text part where it has several."""
    base = CONFIG_MAPPING[kind]
    default = base()
    text = default.get_text_config(decoder=True)
    part = next((name for name, value in vars(default).items() if value is text), None)
    owner = default if part is None else text
    fields = {**_shrink(owner.to_dict()), **MORE.get(kind, {})}
    made = type(owner)(**fields)
    return made if part is None else base(**{part: made}, **OTHER_PARTS.get(kind, {}))


def _shrink(default: Fields) -> Fields:
    """Return small values for the fields of a class; those that are equal in it stay equal."""
    fields = {name: size for name, size in SMALL.items() if name in default}
    for name in ("n_group", "num_expert_group", "topk_group", "rotary_dim"):
        if default.get(name) in (None, 1):  # not used
            fields.pop(name, None)
    if "num_key_value_heads" in default:
        alike = default["num_key_value_heads"] == default.get("num_attention_heads")
        fields["num_key_value_heads"] = HEADS if alike else 2
    if "qk_rope_head_dim" in default and default.get("head_dim") == default["qk_rope_head_dim"]:
        fields["head_dim"] = fields["qk_rope_head_dim"]
    return fields
