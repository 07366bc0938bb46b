"""From the text of an example to what a language model reads and predicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from praxis.input.text.source import TextSource
from praxis.input.text.tokenizer import Tokenizer


def frame(
    tokens: Int[np.ndarray, " N"], bos_id: int | None, eos_id: int | None
) -> dict[str, np.ndarray]:
    """What is read and what is predicted at each position of a text.

    Args:
      tokens: [N], ids of the text.
      bos_id: Put in front, if any.
      eos_id: Put behind, if any.

    Returns:
      `ids` and `labels`, [T] with T one less than the framed text has tokens, at least 0.
    """
    front = np.array([] if bos_id is None else [bos_id], np.int32)
    back = np.array([] if eos_id is None else [eos_id], np.int32)
    framed = np.concatenate([front, tokens.astype(np.int32), back])
    return {"ids": framed[:-1], "labels": framed[1:]}


def fill_row(row: Mapping[str, np.ndarray] | None, row_length: int) -> dict[str, np.ndarray]:
    """A row in the fields that Grain's packing makes, with zeros behind the sequence.

    Args:
      row: A row of Grain's packing, which stays as it is; a sequence of `frame` of T positions, T
        at most `row_length`; or None for nothing but padding.
      row_length: Positions of the row.

    Returns:
      [row_length] each: `ids`, `labels`, `ids_segment_ids`, `ids_positions`.
    """
    if row is not None and "ids_positions" in row:
        return dict(row)
    if row is None:
        row = frame(np.zeros(0, np.int32), None, None)
    length = len(row["ids"])
    inside = np.arange(row_length) < length
    return {
        "ids": np.pad(row["ids"], (0, row_length - length)),
        "labels": np.pad(row["labels"], (0, row_length - length)),
        "ids_segment_ids": inside.astype(np.int32),
        "ids_positions": np.where(inside, np.arange(row_length), 0).astype(np.int32),
    }


def stack_rows(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch for a language model.

    Args:
      rows: B rows of `fill_row` or of Grain's packing.

    Returns:
      [B, T] each: `ids`, `labels`, `segment_ids` (from 1 in each row, 0 behind the last),
      `segment_pos`, `weights` and `paddings` (1 marks padding).
    """
    names = {
        "ids": "ids",
        "labels": "labels",
        "segment_ids": "ids_segment_ids",
        "segment_pos": "ids_positions",
    }
    batch = {name: np.stack([row[key] for row in rows]) for name, key in names.items()}
    batch["weights"] = (batch["segment_ids"] > 0).astype(np.float32)
    batch["paddings"] = 1.0 - batch["weights"]
    return batch


class Sequences:
    """The sequences of a source, in its order; a source for Grain."""

    def __init__(
        self, source: TextSource, tokenizer: Tokenizer, *, max_length: int | None, truncate: bool
    ) -> None:
        """Notes how to make sequences.

        Args:
          source: The texts.
          tokenizer: Makes ids of them.
          max_length: Positions that a sequence may take; None for any number.
          truncate: Whether to cut off what is beyond; else that is an error.
        """
        self._source = source
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._truncate = truncate
        self._empty_in_turn = 0

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return f"Sequences({type(self._source).__name__}, {len(self)})"

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        """Sequence number `index`.

        Raises:
          ValueError: naming the text, if it is too long, or no text of its format; if as many
            texts as there are, one after the other, had nothing to predict.
          TypeError: if it is none at all.
        """
        tokenizer = self._tokenizer
        tokens = tokenizer.encode(self._source[index])
        sequence = frame(tokens, tokenizer.bos_id, tokenizer.eos_id)
        length = len(sequence["ids"])
        self._check_something_to_predict(length)
        if self._max_length is None or length <= self._max_length:
            return sequence
        if not self._truncate:
            raise ValueError(
                f"{self._source.describe(index)}: the sequence has {length} positions, more than "
                f"row_length = {self._max_length}. Set truncate to cut it off, packing to SPLIT to "
                "continue it in the next row, or a greater row_length."
            )
        return {name: values[: self._max_length] for name, values in sequence.items()}

    def _check_something_to_predict(self, length: int) -> None:
        """Packing would look for a sequence for ever."""
        self._empty_in_turn = 0 if length else self._empty_in_turn + 1
        if self._empty_in_turn > len(self):
            raise ValueError(
                f"{type(self._source).__name__}: {self._empty_in_turn} texts, one after the other, "
                "have fewer than 2 tokens, so there is nothing to predict. Use a tokenizer with "
                "tokens in front of a text or behind it, or other data."
            )
