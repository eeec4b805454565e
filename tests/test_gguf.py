"""GGUF files: the vectors of the same weights as safetensors, or refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from aya_probes import project, suites
from aya_probes.errors import StudyError
from aya_probes.extraction import job_size, vectors
from aya_probes.models import describe, fingerprints, loading
from aya_probes.models.residuals import LoadedModel
from aya_probes.planted.tiny import write_study
from aya_probes.suites import Variant
from tests import loopback_hub

CPU = torch.device("cpu")
TEXTS = ["The eye was seen again.", "वह आँख फिर दिखा।"]
NAME = "model-Q8_0.gguf"
TOKENS = ["<pad>", "<eos>", "<bos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġe"]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
NORM, THETA = 1e-5, 50_000.0
Change = Callable[[gguf.GGUFWriter], object]


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that the files below describe, built without them."""
    core = Tokenizer(
        models.BPE(vocab={token: n for n, token in enumerate(TOKENS)}, merges=[("Ġ", "e")])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def random_model(kind: str = "llama", vocabulary: int = len(TOKENS)) -> Any:
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        rms_norm_eps=NORM,
        rope_theta=THETA,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        **SHAPE,
    )
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:  # else a norm and a bias that are lost do not show
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.2)
    return model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of q or k of a Llama in llama.cpp's order."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(
    path: Path,
    model: Any,
    kind: str = "llama",
    *,
    stored: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    change: Change | None = None,
    pre: str = "gpt-2",
) -> dict[str, torch.Tensor]:
    """Write ``model`` as llama.cpp does; returns the weights that the file then holds."""
    writer, held = gguf.GGUFWriter(path, kind), {}
    writer.add_context_length(2048)
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(NORM)
    writer.add_rope_freq_base(THETA)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *[1] * (len(TOKENS) - 3)])
    writer.add_token_merges(["Ġ e"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    architecture = gguf.MODEL_ARCH.LLAMA if kind == "llama" else gguf.MODEL_ARCH.QWEN2
    names = gguf.get_tensor_name_map(architecture, SHAPE["num_hidden_layers"])
    for name, weight in model.state_dict().items():
        values, type_ = weight.numpy(), stored
        if values.ndim == 1:
            type_ = gguf.GGMLQuantizationType.F32
        blocks = gguf.quantize(values, type_)
        held[name] = torch.from_numpy(np.array(gguf.dequantize(blocks, type_)))
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            blocks = gguf.quantize(permuted(values, SHAPE[heads]), type_)
        label = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert label is not None
        writer.add_tensor(label, np.ascontiguousarray(blocks), raw_dtype=type_)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def variant_of(folder: Path, **more: Any) -> Variant:
    return dataclasses.replace(Variant("mine", "base", path=str(folder), gguf=NAME), **more)


def load(variant: Variant, dtype: torch.dtype = torch.float32) -> LoadedModel:
    source = loading.resolve_source(variant)
    return loading.load_variant(variant, source, device=CPU, dtype=dtype)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("stored", ["F32", "Q8_0"])
def test_vectors_are_those_of_the_same_weights(tmp_path: Path, kind: str, stored: str) -> None:
    model = random_model(kind)
    folder, plain = tmp_path / "gguf", tmp_path / "plain"
    folder.mkdir()
    held = write(folder / NAME, model, kind, stored=gguf.GGMLQuantizationType[stored])
    model.load_state_dict(held)
    model.save_pretrained(plain)
    tokenizer().save_pretrained(plain)
    for dtype in (torch.float32, torch.bfloat16):
        expected = load(Variant("plain", "base", path=str(plain)), dtype)
        found = load(variant_of(folder), dtype)
        for text in TEXTS:
            assert found.tokenizer(text)["input_ids"] == expected.tokenizer(text)["input_ids"]
        wanted = vectors.residual_vectors(expected, TEXTS)
        assert np.array_equal(vectors.residual_vectors(found, TEXTS), wanted)


def test_a_tokenizer_file_beside_it_is_used(tmp_path: Path) -> None:
    write(tmp_path / NAME, random_model(), pre="unheard-of")
    with pytest.raises(StudyError, match=r"its tokenizer \(model gpt2, pre unheard-of\); put the "):
        load(variant_of(tmp_path))
    before = loading.resolve_source(variant_of(tmp_path)).identity
    tokenizer().save_pretrained(tmp_path)
    assert loading.resolve_source(variant_of(tmp_path)).identity != before
    assert load(variant_of(tmp_path)).tokenizer("a")["input_ids"] == tokenizer()("a")["input_ids"]


def sentencepieces(writer: gguf.GGUFWriter) -> None:
    """Replace the byte-level tokenizer by one of SentencePiece's kind."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
    kinds = [2, 3, 3, *[6] * 256, 1, 1, 1]
    for key in [key for key in writer.kv_data[0] if key.startswith("tokenizer.")]:
        del writer.kv_data[0][key]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_scores([0.0] * 259 + [-2.0, -3.0, -1.0])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def test_a_sentencepiece_vocabulary_is_read_or_refused(tmp_path: Path) -> None:
    model = random_model(vocabulary=262)
    write(tmp_path / NAME, model, change=sentencepieces)
    found = load(variant_of(tmp_path)).tokenizer("a é")
    assert found["input_ids"] == [1, 261, 259, 3 + 0xC3, 3 + 0xA9]

    def without_prefix(writer: gguf.GGUFWriter) -> None:
        sentencepieces(writer)
        writer.add_add_space_prefix(False)

    write(tmp_path / NAME, model, change=without_prefix)
    with pytest.raises(StudyError, match="add_space_prefix is False, but the tokenizer"):
        load(variant_of(tmp_path))


def test_untrained_takes_the_shape_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / NAME, random_model())
    untrained = variant_of(tmp_path, role="untrained")
    first, again = load(untrained), load(untrained)
    assert first.n_blocks == SHAPE["num_hidden_layers"]
    found = vectors.residual_vectors(first, TEXTS)
    assert np.array_equal(found, vectors.residual_vectors(again, TEXTS))
    assert not np.allclose(found, vectors.residual_vectors(load(variant_of(tmp_path)), TEXTS))


def test_it_is_described_as_dequantised(tmp_path: Path) -> None:
    model = random_model()
    write(tmp_path / NAME, model, stored=gguf.GGMLQuantizationType.Q8_0)
    variant = variant_of(tmp_path)
    source = loading.resolve_source(variant)
    loaded = loading.load_variant(variant, source, device=CPU, dtype=torch.bfloat16)
    found = describe.describe_model(variant, source, loaded)
    assert found.identity["gguf"] == NAME
    assert found.identity["weights"] == "dequantised"
    assert found.identity["sha256"] == fingerprints.file_sha256(tmp_path / NAME)
    assert found.weight_bytes == 2 * sum(weight.numel() for weight in model.parameters())
    size = job_size.describe_model(variant, None)
    embedding = len(TOKENS) * SHAPE["hidden_size"]
    assert size.weight_bytes == (tmp_path / NAME).stat().st_size
    assert (size.layers, size.hidden) == (SHAPE["num_hidden_layers"] + 2, SHAPE["hidden_size"])
    assert size.matrix_weights == sum(w.numel() for w in model.parameters()) - 2 * embedding


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w.add_tensor("rope_freqs.weight", np.ones(8, np.float32)),
            r"passes over 1 tensors \(first: rope_freqs\.weight\)",
        ),
        (
            lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR),
            r"passes over llama\.rope\.scaling\.type = linear",
        ),
        (lambda w: w.add_key_length(32), r"passes over llama\.attention\.key_length = 32"),
        (lambda w: w.add_expert_count(8), r"passes over llama\.expert_count = 8"),
        (lambda w: w.add_uint16("split.count", 2), "is one of 2 parts; join the parts with"),
        (
            lambda w: w.kv_data[0].pop("tokenizer.ggml.add_bos_token"),
            "add_bos_token is not stated, but the tokenizer that transformers builds",
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(tmp_path: Path, change: Change, said: str) -> None:
    write(tmp_path / NAME, random_model(), change=change)
    with pytest.raises(StudyError, match=said) as caught:
        load(variant_of(tmp_path))
    assert "\n" not in str(caught.value)
    assert NAME in str(caught.value)


def test_settings_that_agree_with_the_model_are_no_reason(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_key_length(16)
        writer.add_value_length(16)
        writer.add_rope_dimension_count(16)
        writer.add_vocab_size(len(TOKENS))

    write(tmp_path / NAME, random_model(), change=change)
    assert load(variant_of(tmp_path)).n_blocks == SHAPE["num_hidden_layers"]


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        del writer.tensors[0]["blk.1.ffn_up.weight"]

    write(tmp_path / NAME, random_model(), change=change)
    with pytest.raises(StudyError, match=r"lack 1 tensors .* model\.layers\.1\.mlp\.up_proj"):
        load(variant_of(tmp_path))


@pytest.mark.fault(
    "a GGUF file that is cut short, of another kind, or of an unknown architecture",
    "one line that names the file and what to do",
)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-100], "is cut short: it has"),
        (lambda data: data[:2000], "the file is cut short"),
        (lambda data: b"", "the file is cut short"),
        (lambda data: b"PK" + data, "it does not begin with GGUF"),
        (lambda data: data[:4] + bytes(reversed(data[4:8])) + data[8:], "big-endian"),
        (lambda data: data[:24] + b"\xff" * 8 + data[32:], "the file is cut short"),
        (
            lambda data: data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0other"),
            "does not read GGUF files of the architecture other; give the folder",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    write(tmp_path / NAME, random_model())
    (tmp_path / NAME).write_bytes(damage((tmp_path / NAME).read_bytes()))
    with pytest.raises(StudyError, match=said) as caught:
        load(variant_of(tmp_path))
    assert str(tmp_path / NAME) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert said.split(" it ")[0].split(";")[0] in (
        job_size.describe_model(variant_of(tmp_path), None).why_unknown
    )


def test_cohere2_says_what_to_do(tmp_path: Path) -> None:
    """As a process: what a user of Tiny Aya's published files is told."""
    writer = gguf.GGUFWriter(tmp_path / NAME, "cohere2")
    writer.add_block_count(4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    suite = write_study(tmp_path, {"base": {"path": ".", "gguf": NAME, "role": "base"}})
    command = [sys.executable, str(project.ROOT / "model_loader.py"), "--suite", str(suite)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "does not read GGUF files of the architecture cohere2 (Cohere2, such as" in done.stderr
    assert "give the folder or repository with the model's safetensors instead" in done.stderr


def test_a_missing_file_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").touch()
    with pytest.raises(
        StudyError, match=rf"{tmp_path} has no {NAME} \(its GGUF files: other\.gguf"
    ):
        loading.resolve_source(variant_of(tmp_path))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": ".", "gguf": "sub/model.gguf"}, "is not the name of a .gguf file"),
        ({"path": ".", "gguf": "model.safetensors"}, "is not the name of a .gguf file"),
        ({"path": ".", "gguf": ""}, "is not the name of a .gguf file"),
        ({"path": ".", "gguf": 3}, "gguf must be a str, but is 3"),
        ({"path": ".", "gguf": "m-00001-of-00002.gguf"}, "is one of 2 parts; join the parts with"),
        ({"package": "p", "sha256": "0", "gguf": NAME}, "gguf and package exclude each other"),
        ({"gguf": NAME}, "a source is missing: give repo, path or package"),
    ],
)
def test_a_bad_key_names_the_suite_and_the_variant(
    tmp_path: Path, keys: dict[str, object], said: str
) -> None:
    suite = write_study(tmp_path, {"base": {**keys, "role": "base"}})
    with pytest.raises(StudyError) as caught:
        suites.load_suite(str(suite))
    assert str(caught.value).startswith(f"{suite}: variants.base: ")
    assert said in str(caught.value)


HUB_SCRIPT = """
import sys
import torch
from aya_probes import errors
from aya_probes.extraction import job_size
from aya_probes.models import loading
from aya_probes.suites import Variant
for name in sys.argv[1:]:
    variant = Variant("mine", "base", repo="owner/model-GGUF", gguf=name)
    repository = loading.hub_repository(variant)
    print("size", job_size.describe_model(variant, repository).weight_bytes)
    try:
        source = loading.resolve_source(variant)
        loading.load_variant(variant, source, device=torch.device("cpu"), dtype=torch.float32)
        print("loaded", source.identity["gguf"], source.identity["revision"])
    except errors.StudyError as error:
        print("refused", error)
"""


def test_one_file_of_a_repository_is_fetched(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    write(remote / NAME, random_model(), stored=gguf.GGMLQuantizationType.Q8_0)
    (remote / "model-F32.gguf").write_bytes(b"not fetched")
    tokenizer().save_pretrained(remote)
    with loopback_hub.serve() as server:
        repo = server.repos["owner/model-GGUF"] = loopback_hub.Repo(remote)
        command = [sys.executable, "-c", HUB_SCRIPT, NAME, "absent.gguf"]
        environment = loopback_hub.client_environment(server.url, tmp_path / "hf")
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=project.ROOT
        )
        size, loaded, absent_size, refused = done.stdout.splitlines()
        offline = subprocess.run(
            [*command[:3], NAME, "absent.gguf"],
            capture_output=True,
            text=True,
            check=False,
            env=environment | {"HF_HUB_OFFLINE": "1"},
            cwd=project.ROOT,
        )
        asked = [line for line in server.log if line.startswith("GET") and ".gguf" in line]
    assert size == f"size {(remote / NAME).stat().st_size}"
    assert loaded == f"loaded {NAME} {repo.commit}"
    assert absent_size == "size None"
    assert f"has no absent.gguf (its GGUF files: model-F32.gguf, {NAME}; fix `gguf`" in refused
    assert all(NAME in line for line in asked)
    assert len(asked) == 1
    said = offline.stdout.splitlines()
    assert loaded in said
    assert "unset HF_HUB_OFFLINE and run again" in said[-1]
