"""Tokenizers that are only a SentencePiece file: the right pieces, or refused in one line."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from aya_probes import probes, project
from aya_probes.errors import StudyError
from aya_probes.models import loading, sentencepieces
from aya_probes.planted.tiny import save_tiny
from aya_probes.suites import Variant

TEXTS = [
    sentence.text
    for concept in probes.load_probes(project.ROOT / "data" / "concept_probes.json")
    for sentences in concept.sentences.values()
    for sentence in sentences
]
HARD_TEXTS = [
    "two  spaces",
    "tab\there",
    "line\nbreak",
    "ﬁne ①",
    "e\u0301",
    "\u200bx",
    "中文",
    "🙂 ok",
]

LLAMA = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "split_digits": True,
}
GEMMA = {
    **LLAMA,
    "add_dummy_prefix": False,
    "pad_id": 0,
    "eos_id": 1,
    "bos_id": 2,
    "unk_id": 3,
    "eos_piece": "<eos>",
    "bos_piece": "<bos>",
    "user_defined_symbols": "<start_of_turn>,▁▁",
}
T5 = {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
XLMR = {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}


@functools.cache
def trained(items: tuple[tuple[str, Any], ...]) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=out,
        vocab_size=1500,
        character_coverage=0.995,  # some characters are unknown
        hard_vocab_limit=False,
        minloglevel=2,
        **dict(items),
    )
    return out.getvalue()


def write_tokenizer(
    folder: Path, training: dict[str, Any], file: str, settings: dict[str, Any], kind: str
) -> bytes:
    """Write a folder whose tokenizer is only a SentencePiece file; returns that file."""
    content = trained(tuple(training.items()))
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return content


LLAMA_CLASS = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
MODEL, SPIECE, BPE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SYMBOLS = {"user_defined_symbols": "<|im_start|>", "control_symbols": "<ctl>"}
NO_PREFIX = {"add_dummy_prefix": False}
SAME: dict[str, tuple[dict[str, Any], str, dict[str, Any], str]] = {
    "Llama": (LLAMA, MODEL, LLAMA_CLASS, "llama"),
    "Llama, symbols": ({**LLAMA, **SYMBOLS}, MODEL, LLAMA_CLASS, "llama"),
    "Llama, no prefix": (
        {**LLAMA, **NO_PREFIX},
        MODEL,
        {**LLAMA_CLASS, "add_prefix_space": False},
        "llama",
    ),
    "Mistral": (LLAMA, MODEL, LLAMA_CLASS, "mistral"),
    "Phi-3": (LLAMA, MODEL, LLAMA_CLASS, "phi3"),
    "Gemma": (GEMMA, MODEL, {**LLAMA_CLASS, "tokenizer_class": "GemmaTokenizer"}, "gemma2"),
    "Gemma, no settings": (GEMMA, MODEL, {}, "gemma"),
    "T5": (T5, SPIECE, {"tokenizer_class": "T5Tokenizer"}, "t5"),
    "XLM-R": (XLMR, BPE, {"tokenizer_class": "XLMRobertaTokenizer"}, "xlm-roberta"),
}


@pytest.mark.parametrize("name", SAME)
def test_pieces_and_ids_are_those_of_sentencepiece(name: str, tmp_path: Path) -> None:
    training, file, settings, kind = SAME[name]
    shift = 1 if name == "XLM-R" else 0  # its pieces are numbered from 1
    content = write_tokenizer(tmp_path, training, file, settings, kind)
    tokenizer = sentencepieces.load_tokenizer(tmp_path, "variant mine")
    own = sentencepiece.SentencePieceProcessor(model_proto=content)
    for text in [*TEXTS, *HARD_TEXTS]:
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected = [
            tokenizer.unk_token_id if own.is_unknown(n) else n + shift for n in own.encode(text)
        ]
        assert found == expected, text
    if settings.get("add_bos_token"):
        assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "unigram as Llama": ({**LLAMA, "model_type": "unigram"}, "LlamaTokenizer"),
    "NFKC as Llama": ({**LLAMA, "normalization_rule_name": "nfkc"}, "LlamaTokenizer"),
    "spaces removed, as Llama": ({**LLAMA, "remove_extra_whitespaces": True}, "LlamaTokenizer"),
    "no prefix as Llama": ({**LLAMA, "add_dummy_prefix": False}, "LlamaTokenizer"),
    "prefix as Gemma": (LLAMA, "GemmaTokenizer"),
    "unknown characters left out": ({**LLAMA, "byte_fallback": False}, "LlamaTokenizer"),
    "other special ids as T5": (XLMR, "T5Tokenizer"),
    "no class of its own": (LLAMA, "PreTrainedTokenizerFast"),
}


@pytest.mark.fault(
    "a SentencePiece file whose class would cut texts otherwise", "refused, class and file named"
)
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_class_that_cuts_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    training, class_name = DIFFERENT[name]
    settings = {"tokenizer_class": class_name}
    write_tokenizer(tmp_path, training, "tokenizer.model", settings, "llama")
    with pytest.raises(
        StudyError, match=r"otherwise than SentencePiece .* fix tokenizer_class"
    ) as e:
        sentencepieces.load_tokenizer(tmp_path, "variant mine")
    assert "variant mine: " in str(e.value)
    assert str(tmp_path / "tokenizer.model") in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def test_other_numbers_of_the_same_pieces_are_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, LLAMA, "tokenizer.model", LLAMA_CLASS, "llama")
    tokenizer = sentencepieces.load_tokenizer(tmp_path, "variant mine")
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = core["model"]["vocab"]
    vocabulary["▁The"], vocabulary["."] = vocabulary["."], vocabulary["▁The"]
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(core))
    with pytest.raises(StudyError, match="other numbers of its pieces"):
        sentencepieces.check_reading(tokenizer, tmp_path, "variant mine")


def test_a_class_that_the_library_cannot_make_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, XLMR, "spiece.model", {"tokenizer_class": "AlbertTokenizer"}, "llama")
    with pytest.raises(StudyError, match=r"cannot read .*spiece\.model .*; fix tokenizer_class"):
        sentencepieces.load_tokenizer(tmp_path, "variant mine")


@pytest.mark.fault("a tokenizer.model that is no SentencePiece file", "refused, the file named")
@pytest.mark.parametrize(
    "content",
    [b"", b"IQ== 0\nIg== 1\nIw== 2\n", b"version https://git-lfs.github.com/spec/v1\nsize 3\n"],
    ids=["empty", "tiktoken", "LFS pointer"],
)
def test_a_file_of_another_kind_is_refused(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(content)
    variant = Variant("mine", "base", path=str(folder))
    capfd.readouterr()
    with pytest.raises(StudyError, match=r"is not a file of SentencePiece .*tokenizer\.json") as e:
        loading.load_variant(
            variant,
            loading.resolve_source(variant),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    assert len(str(e.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")
