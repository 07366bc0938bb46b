"""Mistakes with inputs and batches."""

import jax.numpy as jnp
import numpy as np

from docs.situations.examples import initialise
from docs.situations.situation import situation
from praxis import (
    base_input,
    base_model,
    pax_fiddle,
    py_utils,
)

Config = pax_fiddle.Config

DATA = "Inputs and batches"


@situation(DATA, "No batch size")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="train"))


@situation(DATA, "A name with a space")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="my data", batch_size=2))


@situation(DATA, "An input without data")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="train", batch_size=2)).get_next()


@situation(DATA, "A field of an input that does not exist")
def _() -> None:
    Config(base_input.NumpyInput, batchsize=4)


@situation(DATA, "Arrays of different lengths")
def _() -> None:
    data = {"ids": np.zeros([5, 3]), "labels": np.zeros([4])}
    pax_fiddle.build(
        Config(base_input.NumpyInput, name="train", batch_size=2, data=data)
    ).get_next()


@situation(DATA, "A key that no batch has")
def _() -> None:
    _ = py_utils.NestedMap(ids=1, paddings=2).idz


@situation(DATA, "A key that a NestedMap cannot have")
def _() -> None:
    py_utils.NestedMap(items=1)


@situation(DATA, "Paddings of another length than the inputs")
def _() -> None:
    py_utils.apply_padding(jnp.ones([2, 5, 3]), jnp.zeros([2, 4]))


@situation(DATA, "A batch that does not divide over the devices")
def _() -> None:
    py_utils.reshape_with_outer_batch_size(np.ones([5, 3]), 2)


@situation(DATA, "Trees of different structure")
def _() -> None:
    tree = py_utils.NestedMap(a=jnp.ones([2]))
    py_utils.assert_same_shape_and_dtype(tree, py_utils.NestedMap(a=jnp.ones([3])))


@situation(DATA, "A model without a loss")
def _() -> None:
    initialise(Config(base_model.BaseModel, name="model"), py_utils.NestedMap())
