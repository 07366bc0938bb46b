"""Base of models: what the trainer asks of one."""

from collections.abc import Sequence
from typing import Any

from praxis import base_layer
from praxis.input.base import BaseInput


class BaseModel(base_layer.BaseLayer):
    """A model: predictions and loss of a batch, and decoding.

    A subclass implements `compute_predictions` and `compute_loss`, and for decoding `decode` and
    `process_decode_out`.

    A dict of weighted scalars holds, by name, a value and its weight; over several batches they
    are averaged as `sum(value * weight) / sum(weight)`. A dict of metrics holds, by name, an
    object with the methods `merge` and `compute`.
    """

    def compute_predictions(self, input_batch: Any) -> Any:
        """What the model computes from a batch before the labels come in.

        Args:
          input_batch: NestedMap of arrays [B, ...].

        Returns:
          Anything that `compute_loss` takes.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise self._missing("compute_predictions")

    def compute_loss(self, predictions: Any, input_batch: Any) -> tuple[Any, dict[str, Any]]:
        """Loss and metrics of predictions.

        Args:
          predictions: From `compute_predictions`.
          input_batch: NestedMap of arrays [B, ...].

        Returns:
          Weighted scalars, of which the learner names the loss, and a dict of outputs for each
          example [B, ...].

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise self._missing("compute_loss")

    def __call__(self, input_batch: Any) -> tuple[Any, dict[str, Any]]:
        """The loss of the predictions for a batch, as `compute_loss` returns it."""
        return self.compute_loss(self.compute_predictions(input_batch), input_batch)

    def decode(self, input_batch: Any) -> tuple[Any, Any, Any]:
        """Decodes a batch.

        Returns:
          Weighted scalars, a NestedMap of results [B, ...], and metrics.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise self._missing("decode")

    def process_decode_out(
        self, input_obj: BaseInput, decode_out: Any
    ) -> tuple[Any, Sequence[tuple[str, Any]], Any]:
        """Turns the results of `decode` into what is written down; runs on the host.

        Args:
          input_obj: The input that the batch came from, for its `ids_to_strings`.
          decode_out: The results of `decode`, as NumPy arrays.

        Returns:
          Weighted scalars, pairs of a key and a value for each example, and metrics.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise self._missing("process_decode_out")

    def _missing(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{self.path_text} must implement {method}.")
