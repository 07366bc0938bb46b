"""Mistakes with variables, children and random streams."""

from typing import Any

import jax.numpy as jnp

from docs.situations.examples import Counter, counter, declares, linear
from docs.situations.situation import situation
from praxis import (
    base_layer,
    pax_fiddle,
)
from praxis.layers import linears

Config = pax_fiddle.Config

VARIABLES = "Variables, children, random streams"


@situation(VARIABLES, "A variable that does not exist")
def _() -> None:
    counter(lambda layer: layer.theta.weigth)


@situation(VARIABLES, "A non-trainable variable that does not exist")
def _() -> None:
    counter(lambda layer: layer.get_var("counts"))


@situation(VARIABLES, "A new value of another shape")
def _() -> None:
    counter(lambda layer: layer.update_var("count", jnp.ones([3])))


@situation(VARIABLES, "A name that is taken")
def _() -> None:
    declares(lambda layer: layer.create_variable("dtype", base_layer.WeightHParams([2])))


@situation(VARIABLES, "Two variables of one name")
def _() -> None:
    declares(
        lambda layer: [layer.create_variable("w", base_layer.WeightHParams([2])) for _ in range(2)]
    )


@situation(VARIABLES, "A shape with an axis of length 0")
def _() -> None:
    declares(lambda layer: layer.create_variable("w", base_layer.WeightHParams([2, 0])))


@situation(VARIABLES, "A declaration that is none")
def _() -> None:
    declares(lambda layer: layer.create_variable("w", [2, 3]))


@situation(VARIABLES, "An initializer that does not exist")
def _() -> None:
    init = base_layer.WeightInit("xaviar", 1.0)
    declares(lambda layer: layer.create_variable("w", base_layer.WeightHParams([2], init=init)))


@situation(VARIABLES, "A child whose config is a layer")
def _() -> None:
    declares(lambda layer: layer.create_child("lin", pax_fiddle.build(linear())))


@situation(VARIABLES, "A child whose config is a class")
def _() -> None:
    declares(lambda layer: layer.create_child("lin", linears.Linear))


@situation(VARIABLES, "Two children of one name")
def _() -> None:
    declares(lambda layer: [layer.create_child("lin", linear()) for _ in range(2)])


@situation(VARIABLES, "One template where a list is expected")
def _() -> None:
    declares(lambda layer: layer.create_children("lin", linear()))


@situation(VARIABLES, "Two configs under one `shared_weight_layer_id`")
def _() -> None:
    def declare(layer: Any) -> None:
        for index in range(2):
            config = linear(shared_weight_layer_id="table", output_dims=5 + index)
            layer.create_child(f"lin_{index}", config)

    with base_layer.JaxContext.new_context():
        declares(declare)


@situation(VARIABLES, "Variables of another config")
def _() -> None:
    variables = {"params": {"w": jnp.ones([3, 4])}}
    pax_fiddle.build(linear()).apply(variables, jnp.ones([2, 3]))


@situation(VARIABLES, "Variables that were not given")
def _() -> None:
    pax_fiddle.build(linear()).apply({"params": {"weight": jnp.ones([3, 5])}}, jnp.ones([2, 3]))


@situation(VARIABLES, "No key for random numbers")
def _() -> None:
    layer = pax_fiddle.build(Config(Counter, name="net", then=lambda net: net.next_prng_key()))
    variables = {"params": {"weight": jnp.ones([2])}, "non_trainable": {"count": jnp.ones([2])}}
    layer.apply(variables)


@situation(VARIABLES, "A child, or a variable, outside of `init` and `apply`")
def _() -> None:
    _ = pax_fiddle.build(linear()).einsum


@situation(VARIABLES, "Variables of a layer outside of `init` and `apply`")
def _() -> None:
    _ = pax_fiddle.build(linear()).theta.w


@situation(VARIABLES, "A child that does not exist")
def _() -> None:
    counter(lambda layer: layer.wieght)


@situation(VARIABLES, "Decoding without a cache")
def _() -> None:
    counter(lambda layer: layer.get_decode_state("key"))


@situation(VARIABLES, "No context")
def _() -> None:
    base_layer.cur_jax_context()


@situation(VARIABLES, "A summary of a wrong rank")
def _() -> None:
    def report(layer: Any) -> None:
        layer.add_summary("picture", jnp.ones([2]), base_layer.SummaryType.IMAGE)

    layer = pax_fiddle.build(Config(Counter, name="net", then=report))
    variables = {"params": {"weight": jnp.ones([2])}, "non_trainable": {"count": jnp.ones([2])}}
    layer.apply(variables, mutable=["summaries"])
