"""Shapes and dtypes of the batches that a model will see."""

from typing import Any

import jax
import numpy as np

from praxis import pax_fiddle
from praxis.config.parameterizable import FiddleBaseParameterizable


class BaseInputSpecsProvider(FiddleBaseParameterizable):
    """Says what a batch of one process looks like, without the padding for devices."""

    def get_input_specs(self) -> Any:
        """A tree of `jax.ShapeDtypeStruct`.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement get_input_specs.")


class DatasetInputSpecsProvider(BaseInputSpecsProvider):
    """Looks at one padded batch of an input.

    The batch comes from an instance of its own, so no data of the training input is consumed.

    Attributes:
      input_p: Config of the input. Required.

    Raises:
      ValueError: when built without `input_p`.
    """

    input_p: pax_fiddle.Config | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_p is None:
            raise ValueError(
                f"{type(self).__name__}: input_p is not set, expected an input config."
            )

    def get_input_specs(self) -> Any:
        assert self.input_p is not None
        batch = self.input_p.clone().Instantiate().get_next_padded()
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), batch)
