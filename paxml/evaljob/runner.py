"""What turns a batch into the records of an inference job."""

import abc
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from paxml.output.write import JnpEncoder
from paxml.train_states import TrainState
from praxis import base_hyperparams, base_model


class BaseInferenceRunner(base_hyperparams.FiddleBaseParameterizable, abc.ABC):
    """Says what is inferred from a batch, and how it is written down.

    Attributes:
      model: The model; the task fills it in.
    """

    model: base_model.BaseModel = None  # pyright: ignore[reportAssignmentType]  # the task sets it

    @abc.abstractmethod
    def infer(
        self,
        train_state: TrainState,
        prng_key: jax.Array,
        var_weight_hparams: Any,
        input_batch: Any,
    ) -> Any:
        """Computes outputs; it is compiled for the mesh.

        Args:
          train_state: State without an optimizer part, its variables in the dtype of the forward
            pass.
          prng_key: The same for all batches.
          var_weight_hparams: `WeightHParams` of the variables.
          input_batch: Global batch.

        Returns:
          Tree of arrays [B, ...].
        """

    @property
    def output_schema(self) -> Any:
        """Types of a record in a file that needs them; JSON lines need none, so None."""
        return None

    def serialize_outputs(self, outputs: Any) -> Sequence[bytes]:
        """The records of a batch: one JSON object for each example.

        Args:
          outputs: Tree of NumPy arrays [B, ...], from `infer`.

        Raises:
          ValueError: if the arrays differ in B.
        """
        leaves, structure = jax.tree.flatten(outputs)
        sizes = sorted({np.shape(leaf)[:1] for leaf in leaves})
        if len(sizes) != 1 or sizes == [()]:
            shapes = [np.shape(leaf) for leaf in leaves]
            raise ValueError(
                f"{type(self).__name__}: the outputs of infer have shapes {shapes}, expected "
                "[B, ...] with one B."
            )
        rows = [structure.unflatten([leaf[row] for leaf in leaves]) for row in range(sizes[0][0])]
        return [json.dumps(row, cls=JnpEncoder).encode() for row in rows]
