"""Behaviour 38 of the utilities: the contract of models."""

import jax.numpy as jnp
import pytest

from praxis import base_input, pax_fiddle
from praxis.base_model import BaseModel
from praxis.core.nested_map import NestedMap


def build(cls):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="model"))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("compute_predictions", (NestedMap(),)),
        ("compute_loss", (NestedMap(), NestedMap())),
        ("__call__", (NestedMap(),)),
        ("decode", (NestedMap(),)),
        (
            "process_decode_out",
            (base_input.BaseInput.config(batch_size=1).Instantiate(), NestedMap()),
        ),
    ],
)
def test_abstract_methods_name_the_class(method, arguments):
    """Behaviour 38."""
    name = "compute_predictions" if method == "__call__" else method
    with pytest.raises(NotImplementedError, match=rf"BaseModel 'model' must implement {name}\."):
        build(BaseModel).apply({}, *arguments, method=getattr(BaseModel, method))


def test_call_chains_predictions_and_loss():
    class Doubles(BaseModel):
        def compute_predictions(self, input_batch):
            return 2 * input_batch.x

        def compute_loss(self, predictions, input_batch):
            loss = jnp.sum(predictions - input_batch.x)
            return NestedMap(loss=(loss, 3)), NestedMap()

    scalars, outputs = build(Doubles).apply({}, NestedMap(x=jnp.arange(3)))
    assert float(scalars.loss[0]) == 3 and scalars.loss[1] == 3 and outputs == {}
