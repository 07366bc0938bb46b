"""Tokenizers: bytes, and the files of the packages `tokenizers` and `sentencepiece`."""

import abc
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from praxis.config.parameterizable import FiddleBaseParameterizable
from praxis.input.text import extras

Ids = Sequence[int] | Int[np.ndarray, " T"]


class Tokenizer(FiddleBaseParameterizable, abc.ABC):
    """Turns texts into ids and back."""

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """V: ids are from 0 to V - 1, special ones included."""

    @property
    @abc.abstractmethod
    def bos_id(self) -> int | None:
        """Id in front of a text, None if there is none."""

    @property
    @abc.abstractmethod
    def eos_id(self) -> int | None:
        """Id behind a text, None if there is none."""

    @abc.abstractmethod
    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """The ids of a text, without special ones."""

    @abc.abstractmethod
    def decode(self, ids: Ids) -> str:
        """The text of ids, without the special ones."""


class ByteTokenizer(Tokenizer):
    """Bytes of UTF-8 as ids 0 to 255, then 256 in front of a text and 257 behind it.

    Example:
      >>> ByteTokenizer().encode("hé")
      array([104, 195, 169], dtype=int32)
    """

    @property
    def vocab_size(self) -> int:
        return 258

    @property
    def bos_id(self) -> int | None:
        return 256

    @property
    def eos_id(self) -> int | None:
        return 257

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(self, ids: Ids) -> str:
        return bytes(int(i) for i in ids if 0 <= i < 256).decode(errors="replace")


class _FileTokenizer(Tokenizer):
    """A tokenizer in a file.

    Attributes:
      path: The file. Required.
    """

    path: str | os.PathLike[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not os.fspath(self.path):
            raise ValueError(f"{name}: path is not set, expected a file.")
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"{name}: there is no file {os.fspath(self.path)!r}.")

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(
            f"{type(self).__name__}: {os.fspath(self.path)!r} cannot be read: {error}"
        )


class HuggingFaceTokenizer(_FileTokenizer):
    """A `tokenizer.json` of the package `tokenizers`, of the extra `data`.

    Attributes:
      bos: The token in front of a text, e.g. `<s>`; None for none.
      eos: The token behind it, e.g. `</s>` or `<|endoftext|>`; None for none.

    Raises:
      ImportError: when built without the package.
      FileNotFoundError: when built, if there is no file.
      ValueError: when built, if the file is none of a tokenizer, or lacks `bos` or `eos`.
    """

    bos: str | None = None
    eos: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        library = extras.load("tokenizers", type(self).__name__)
        try:
            self._tokenizer: Any = library.Tokenizer.from_file(os.fspath(self.path))
        except Exception as error:  # The package raises nothing narrower.
            raise self._unreadable(error) from error
        # Rows are filled here, not there.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        for field in ("bos", "eos"):
            token = getattr(self, field)
            if token is not None and self._tokenizer.token_to_id(token) is None:
                raise ValueError(
                    f"{type(self).__name__}: {field} = {token!r} is no token of "
                    f"{os.fspath(self.path)!r}."
                )

    @property
    def vocab_size(self) -> int:
        # Ids may have gaps, which the number of tokens does not count.
        return 1 + max(self._tokenizer.get_vocab().values())

    @property
    def bos_id(self) -> int | None:
        return None if self.bos is None else self._tokenizer.token_to_id(self.bos)

    @property
    def eos_id(self) -> int | None:
        return None if self.eos is None else self._tokenizer.token_to_id(self.eos)

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Ids) -> str:
        return self._tokenizer.decode([int(i) for i in ids])


class SentencePieceTokenizer(_FileTokenizer):
    """A model file of the package `sentencepiece`, of the extra `data`.

    The ids in front of a text and behind it are those of the model, where it has them.

    Raises:
      ImportError: when built without the package.
      FileNotFoundError: when built, if there is no file.
      ValueError: when built, if the file is no model.
    """

    @functools.cached_property
    def _model(self) -> Any:
        library = extras.load("sentencepiece", type(self).__name__)
        try:
            return library.SentencePieceProcessor(model_file=os.fspath(self.path))
        except Exception as error:  # The package raises RuntimeError or OSError, by version.
            raise self._unreadable(error) from error

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._model

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size()

    @property
    def bos_id(self) -> int | None:
        return _id_or_none(self._model.bos_id())

    @property
    def eos_id(self) -> int | None:
        return _id_or_none(self._model.eos_id())

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.array(self._model.encode(text), np.int32)

    def decode(self, ids: Ids) -> str:
        return self._model.decode([int(i) for i in ids])


def _id_or_none(token: int) -> int | None:
    return None if token < 0 else token
