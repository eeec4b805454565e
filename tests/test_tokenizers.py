"""The tokens of a concept, for every kind of tokenizer, against a check that uses no offsets."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aya_probes import probes, project
from aya_probes.errors import StudyError
from aya_probes.extraction.encoding import encode_text

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
CONCEPTS = probes.load_probes(project.ROOT / "data" / "concept_probes.json")
SENTENCES = [
    (s.text, s.span)
    for concept in CONCEPTS
    for sentences in concept.sentences.values()
    for s in sentences
]
TEXTS = [text for text, _ in SENTENCES]


def byte_level(vocabulary: int = 600) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet
    )
    core.train_from_iterator(TEXTS, trainer)
    return core


def metaspace(scheme: str, *, split: bool = True, vocabulary: int = 900) -> Tokenizer:
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme)
    # Few merges: many words begin with a lone "▁".
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL)
    core.train_from_iterator(TEXTS, trainer)
    return core


def byte_fallback() -> Tokenizer:
    """Return a Llama-2 style BPE: ▁ through normalizers, bytes for characters it has not."""
    latin = sorted({c for text in TEXTS for c in text if ord(c) < 0x250 and not c.isspace()})
    pieces = [*SPECIAL, *(f"<0x{n:02X}>" for n in range(256)), "▁", *latin]
    core = Tokenizer(
        models.BPE(
            vocab={piece: n for n, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return core


def unigram(normalizer: Any) -> Tokenizer:
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=900, special_tokens=SPECIAL, unk_token="<unk>")
    core.train_from_iterator(TEXTS, trainer)
    return core


def with_template(core: Tokenizer) -> Tokenizer:
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return core


def with_fixed_padding(core: Tokenizer) -> Tokenizer:
    core.enable_padding(length=64, direction="left", pad_id=0, pad_token="<pad>")
    return core


KINDS = {
    "byte-level BPE": byte_level,
    "byte-level BPE, single bytes": lambda: byte_level(270),
    "Metaspace, always": lambda: metaspace("always"),
    "Metaspace, first": lambda: metaspace("first"),
    "Metaspace, never": lambda: metaspace("never"),
    "Metaspace, not split": lambda: metaspace("always", split=False),
    "byte fallback": byte_fallback,
    "Unigram, NFKC": lambda: unigram(normalizers.NFKC()),
    "Unigram, NFKC and lower case": lambda: unigram(
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    ),
    "Unigram, repeated spaces": lambda: unigram(normalizers.Replace(Regex(" {2,}"), " ")),
    "BOS and EOS added": lambda: with_template(byte_level()),
    "Metaspace, BOS and EOS, fixed left padding": lambda: with_fixed_padding(
        with_template(metaspace("always"))
    ),
}


def load(core: Tokenizer, folder: Path) -> Any:
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", padding_side="left", **names
    )
    fast.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def squeezed(tokenizer: Any, text: str) -> bytes:
    """Return the text as the tokenizer normalises it, without spaces, as bytes."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    normal = normalizer.normalize_str(text) if normalizer else text
    return "".join(c for c in normal if c != "▁" and not c.isspace()).encode()


BYTES = {
    symbol: byte
    for byte, symbol in zip(
        [*range(33, 127), *range(161, 173), *range(174, 256)],
        map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]),
        strict=True,
    )
}
BYTES |= {
    chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in BYTES.values())
}


def piece_bytes(piece: str, *, byte_level: bool) -> bytes:
    """Return the bytes that a vocabulary's piece stands for, without spaces."""
    if byte_level:
        return bytes(BYTES[c] for c in piece).replace(b" ", b"")
    if len(piece) == 6 and piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    return "".join(c for c in piece if c != "▁" and not c.isspace()).encode()


def tokens_without_offsets(tokenizer: Any, text: str, span: tuple[int, int]) -> list[int]:
    """Return the positions whose pieces hold a byte of the span, by counting bytes."""
    start = len(squeezed(tokenizer, text[: span[0]]))
    end = start + len(squeezed(tokenizer, text[span[0] : span[1]]))
    core = tokenizer.backend_tokenizer
    level = "ByteLevel" in str(core.pre_tokenizer)
    found, at = [], 0
    out = tokenizer(text, return_special_tokens_mask=True)
    pieces = tokenizer.convert_ids_to_tokens(out["input_ids"])
    for n, (piece, special) in enumerate(zip(pieces, out["special_tokens_mask"], strict=True)):
        size = 0 if special else len(piece_bytes(piece, byte_level=level))
        if size and at < end and at + size > start:
            found.append(n)
        at += size
    assert at == len(squeezed(tokenizer, text)), "a piece is not what the text says"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_concept_tokens_are_those_that_hold_its_characters(kind: str, tmp_path: Path) -> None:
    tokenizer = load(KINDS[kind](), tmp_path)
    checked = 0
    for number, (text, span) in enumerate(SENTENCES):
        if unicodedata.normalize("NFKC", text) != text and "NFKC" in kind:
            continue  # characters that NFKC makes of several cannot be counted apart
        found = encode_text(tokenizer, text, span, f"sentence {number}")
        assert found.span == tokens_without_offsets(tokenizer, text, span), text
        checked += 1
    assert checked > 400


def test_a_lone_space_mark_is_no_concept_token(tmp_path: Path) -> None:
    tokenizer = load(byte_fallback(), tmp_path)
    text, span = "heart was seen", (0, 5)
    found = encode_text(tokenizer, text, span, "x")
    assert tokenizer.convert_ids_to_tokens(found.token_ids)[0] == "▁"
    assert tokenizer(text, return_offsets_mapping=True)["offset_mapping"][0] == (0, 1)  # the trap
    assert found.span == [1, 2, 3, 4, 5]


def test_a_text_of_unknown_tokens_alone_is_refused(tmp_path: Path) -> None:
    core = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}, "<unk>"))
    core.normalizer = normalizers.Replace(Regex(".*"), "")
    with pytest.raises(StudyError, match="no content token"):
        encode_text(load(core, tmp_path), "heart", (0, 5), "x")
