"""Tokenizers: ids and back, special tokens, files that are none."""

import sys

import numpy as np
import pytest

from praxis import text_input

TEXT = "a text, é"


@pytest.fixture(scope="module")
def hugging_face_file(tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["a text of texts"] * 5, trainer)
    # What a published file may ask for, and a row must not get.
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(2)
    path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def sentencepiece_file(tmp_path_factory):
    library = pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("sp") / "model"
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["a text of texts", "another text, é"] * 20),
        model_prefix=str(path),
        vocab_size=30,
        model_type="bpe",
        bos_id=-1,
        minloglevel=2,
    )
    return path.with_suffix(".model")


def test_bytes():
    tokenizer = text_input.ByteTokenizer()
    ids = tokenizer.encode(TEXT)
    np.testing.assert_array_equal(ids, list(TEXT.encode()))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (256, 257, 258)
    assert tokenizer.decode([256, *ids.tolist(), 257, 195]) == TEXT + "\N{REPLACEMENT CHARACTER}"


def test_hugging_face(hugging_face_file):
    tokenizer = text_input.HuggingFaceTokenizer(path=hugging_face_file, eos="</s>")
    ids = tokenizer.encode(TEXT)
    assert 2 < len(ids) < len(TEXT.encode()) and ids.dtype == np.int32
    assert tokenizer.decode(ids) == TEXT
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, 1)
    assert max(ids) < tokenizer.vocab_size <= 300
    with pytest.raises(ValueError, match=r"bos = '<bos>' is no token of '.*tokenizer.json'"):
        text_input.HuggingFaceTokenizer(path=hugging_face_file, bos="<bos>")


def test_sentencepiece(sentencepiece_file):
    tokenizer = text_input.SentencePieceTokenizer(path=sentencepiece_file)
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32 and tokenizer.decode(ids) == TEXT
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (None, 2, 30)


FROM_FILES = {
    "tokenizers": text_input.HuggingFaceTokenizer,
    "sentencepiece": text_input.SentencePieceTokenizer,
}


@pytest.mark.parametrize(("package", "cls"), FROM_FILES.items(), ids=FROM_FILES)
def test_files_that_are_no_tokenizers(package, cls, tmp_path, monkeypatch):
    name = cls.__name__
    with pytest.raises(ValueError, match=f"{name}: path is not set"):
        cls()
    with pytest.raises(FileNotFoundError, match=rf"{name}: there is no file '.*no\.json'"):
        cls(path=tmp_path / "no.json")
    path = tmp_path / "bad.json"
    path.write_text("{}")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{name} needs the package {package}.*pax\[data\]"):
            cls(path=path)
    pytest.importorskip(package)
    with pytest.raises(ValueError, match=rf"{name}: '.*bad.json' cannot be read"):
        cls(path=path)
