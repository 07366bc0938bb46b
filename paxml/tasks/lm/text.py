"""Text of local files as bytes, in rows of a fixed length."""

import glob
from typing import Any, ClassVar

import numpy as np

from paxml.tasks.lm.synthetic import SyntheticInput, TokenDataset
from praxis import base_input, pax_fiddle

START = 0  # stands in front of a row's first byte


class LocalTextInput(base_input.NumpyInput):
    """Rows of the bytes of files, one segment a row.

    Attributes:
      files: Pattern of the files, as of `glob`, with ** for all folders below.
      seq_len: T, bytes in a row.

    Raises:
      FileNotFoundError: when the first batch is read, if no row is full.
    """

    files: str = ""
    seq_len: int = 0

    def load(self) -> dict[str, Any]:
        parts = []
        for path in sorted(glob.glob(self.files, recursive=True)):
            with open(path, "rb") as file:
                parts.append(file.read())
        text = np.frombuffer(b"\n".join(parts), np.uint8).astype(np.int32)
        rows = len(text) // self.seq_len
        if not rows:
            raise FileNotFoundError(
                f"{self._text}: the files that match {self.files!r} hold {len(text)} bytes, fewer "
                f"than the {self.seq_len} of one row. Set TEXT_FILES to text files, e.g. "
                "--set='TEXT_FILES=\"/data/**/*.txt\"'."
            )
        labels = text[: rows * self.seq_len].reshape(rows, self.seq_len)
        ones = np.ones(labels.shape, np.int32)
        return {
            "ids": np.pad(labels[:, :-1], ((0, 0), (1, 0)), constant_values=START),
            "labels": labels,
            "paddings": np.zeros(labels.shape, np.float32),
            "weights": np.ones(labels.shape, np.float32),
            "segment_ids": ones,
            "segment_pos": np.tile(np.arange(self.seq_len, dtype=np.int32), (rows, 1)),
        }


class TextDataset(TokenDataset):
    """An experiment that was made for C4 and a vocabulary of word pieces, which are not shipped.

    Without files its tokens are all 1; with TEXT_FILES they are bytes of these files, and both
    splits read the same ones. The shapes of batches and the names of the inputs are those of C4;
    losses are not comparable. Override `split` for the real data.

    Attributes:
      TEXT_FILES: Pattern of local files, as of `glob`; "" for synthetic tokens.
    """

    TEXT_FILES: ClassVar[str] = ""

    TRAIN_NAME: ClassVar[str] = "C4Train"
    EVAL_NAME: ClassVar[str] = "C4Validation"

    def split(self, *, is_training: bool) -> pax_fiddle.Config[base_input.BaseInput]:
        fields = {
            "name": self.TRAIN_NAME if is_training else self.EVAL_NAME,
            "is_training": is_training,
            **self.batch_fields(),
        }
        if not self.TEXT_FILES:
            return pax_fiddle.Config(SyntheticInput, **fields)
        return pax_fiddle.Config(
            LocalTextInput,
            files=self.TEXT_FILES,
            shuffle=is_training,
            **fields,
        )
