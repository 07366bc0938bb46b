"""Sizes and shapes that do not fit."""

from typing import Any

import jax.numpy as jnp

from docs.situations.examples import initialise, language_model, linear
from docs.situations.situation import situation
from praxis import (
    pax_fiddle,
    py_utils,
)
from praxis.layers import attentions, linears, repeats

Config = pax_fiddle.Config

SIZES = "Sizes and shapes of layers"


@situation(SIZES, "A size that was not set")
def _() -> None:
    initialise(linear(input_dims=0), jnp.ones([2, 3]))


@situation(SIZES, "Inputs of another width")
def _() -> None:
    initialise(linear(), jnp.ones([2, 4]))


@situation(SIZES, "Arrays that do not fit each other, deep in a model")
def _() -> None:
    config = language_model()
    block = config.stacked_transformer_tpl.transformer_layer_params_tpl
    block.tr_fflayer_tpl.fflayer_tpl.linear_tpl.cls = Mistaken
    initialise(config, jnp.zeros([2, 7], jnp.int32), jnp.zeros([2, 7]))


class Mistaken(linears.Linear):
    """Adds something of a shape of its own."""

    def __call__(self, inputs: Any) -> Any:
        return super().__call__(inputs) + jnp.ones([3, 5])


@situation(SIZES, "Heads that do not divide the width")
def _() -> None:
    config = Config(
        attentions.DotProductAttention, name="atten", input_dim=8, hidden_dim=8, num_heads=3
    )
    x = jnp.ones([2, 5, 8])
    initialise(config, x, x, x, jnp.zeros([1, 1, 5, 5]))


@situation(SIZES, "A mask of integers")
def _() -> None:
    py_utils.apply_mask_to_logits(jnp.ones([2, 3]), jnp.ones([2, 3], jnp.int32))


@situation(SIZES, "A size that is no number")
def _() -> None:
    initialise(linear(output_dims="5"), jnp.ones([2, 3]))


@situation(SIZES, "A stack of no layers")
def _() -> None:
    config = language_model()
    config.stacked_transformer_tpl.num_layers = 0
    initialise(config, jnp.zeros([2, 7], jnp.int32), jnp.zeros([2, 7]))


@situation(SIZES, "A repeated layer without a template")
def _() -> None:
    initialise(Config(repeats.Repeat, name="stack", x_times=3), jnp.ones([2]))
