"""Data that costs nothing: all tokens are 1, in the shapes of packed text."""

from typing import Any, ClassVar

import jax
import numpy as np

from paxml.experiment.base import BaseExperiment
from paxml.tasks.batch import mesh_size, rows_per_process
from praxis import base_input, pax_fiddle, py_utils


class SyntheticInput(base_input.BaseInput):
    """Batches of the same row: tokens and labels 1, one segment, no padding.

    Attributes:
      seq_len: T, tokens in a row.
    """

    seq_len: int = 0

    def get_next(self) -> py_utils.NestedMap:
        return token_batch(self._batch_rows, self.seq_len)

    def _get_state_internal(self) -> bytes:
        return b""

    def _set_state_internal(self, state: bytes) -> None:
        del state  # All batches are alike.


class TokenSpecs(base_input.BaseInputSpecsProvider):
    """Shapes of a batch of packed text, without reading any.

    Attributes:
      batch_size: B, rows of one process.
      seq_len: T, tokens in a row.
    """

    batch_size: int = 0
    seq_len: int = 0

    def get_input_specs(self) -> py_utils.NestedMap:
        one = token_batch(1, self.seq_len)
        shape = (self.batch_size, self.seq_len)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(shape, x.dtype), one)


def token_batch(batch_size: int, seq_len: int) -> py_utils.NestedMap:
    """A packed batch, all [B, T], in which each row is one segment of the token 1."""
    shape = (batch_size, seq_len)
    return py_utils.NestedMap(
        ids=np.ones(shape, np.int32),
        labels=np.ones(shape, np.int32),
        paddings=np.zeros(shape, np.float32),
        weights=np.ones(shape, np.float32),
        segment_ids=np.ones(shape, np.int32),
        segment_pos=np.tile(np.arange(seq_len, dtype=np.int32), (batch_size, 1)),
    )


class TokenDataset(BaseExperiment):
    """An experiment on rows of tokens, a training and an evaluation split of the same shape.

    A process reads PERCORE_BATCH_SIZE rows for each of its devices, in all.

    Attributes:
      PERCORE_BATCH_SIZE: Rows of a device; below 1 several devices share a row.
      MAX_SEQ_LEN: T, tokens in a row.
    """

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 16
    MAX_SEQ_LEN: ClassVar[int] = 1024

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return [self.split(is_training=True), self.split(is_training=False)]

    def split(self, *, is_training: bool) -> pax_fiddle.Config[base_input.BaseInput]:
        """Config of the input of one split; subclasses define it."""
        raise NotImplementedError

    def batch_fields(self) -> dict[str, Any]:
        """Fields of an input's config that say how much it reads."""
        batch_size, num_hosts = self._rows()
        return {
            "batch_size": batch_size,
            "num_infeed_hosts": num_hosts,
            "seq_len": self.MAX_SEQ_LEN,
        }

    def get_input_specs_provider_params(
        self,
    ) -> pax_fiddle.Config[base_input.BaseInputSpecsProvider]:
        return pax_fiddle.Config(TokenSpecs, batch_size=self._rows()[0], seq_len=self.MAX_SEQ_LEN)

    def _rows(self) -> tuple[int, int]:
        shapes = (getattr(self, name, None) for name in ("ICI_MESH_SHAPE", "DCN_MESH_SHAPE"))
        ici, dcn = shapes
        return rows_per_process(
            self.PERCORE_BATCH_SIZE, None if ici is None else mesh_size(ici, dcn)
        )


class SyntheticDataset(TokenDataset):
    """An experiment whose tokens are all 1; for speed, memory and the machinery, not for a loss."""

    def split(self, *, is_training: bool) -> pax_fiddle.Config[base_input.BaseInput]:
        return pax_fiddle.Config(
            SyntheticInput,
            name="SyntheticTrain" if is_training else "SyntheticEval",
            is_training=is_training,
            **self.batch_fields(),
        )
