"""Mistakes in configs."""

import jax.numpy as jnp

from docs.situations.examples import KEY, language_model, linear
from docs.situations.situation import situation
from praxis import (
    base_hyperparams,
    base_layer,
    inspection,
    pax_fiddle,
)
from praxis.layers import attentions, linears

Config = pax_fiddle.Config

CONFIGS = "Configs"


@situation(CONFIGS, "A field that does not exist")
def _() -> None:
    linear().inptu_dims = 8


@situation(CONFIGS, "The same when a config is made")
def _() -> None:
    Config(linears.Linear, output_dim=8)


@situation(CONFIGS, "The same in `set`")
def _() -> None:
    language_model().set(vocabsize=8)


@situation(CONFIGS, "Reading a field that does not exist")
def _() -> None:
    _ = linear().weights


@situation(CONFIGS, "Calling a method of the class on its config")
def _() -> None:
    linear().init(KEY, jnp.ones([2, 3]))


@situation(CONFIGS, "A layer made from its config by calling the class")
def _() -> None:
    linears.Linear(linear())


@situation(CONFIGS, "Positional arguments for a layer")
def _() -> None:
    Config(linears.Linear, jnp.bfloat16)


@situation(CONFIGS, "A config of a config")
def _() -> None:
    Config(linear())


@situation(CONFIGS, "A config of something that is neither class nor function")
def _() -> None:
    Config(3)


@situation(CONFIGS, "A config that contains itself")
def _() -> None:
    config = Config(attentions.DotProductAttention)
    config.proj_tpl = None
    config.params_init = [config]
    pax_fiddle.build(config)


@situation(CONFIGS, "Another class that lacks some fields")
def _() -> None:
    linear().cls = linears.Bias


@situation(CONFIGS, "Copying fields from another kind of object")
def _() -> None:
    linear().copy_fields_from({"input_dims": 3})


@situation(CONFIGS, "Copying a field that the target lacks")
def _() -> None:
    Config(linears.Bias).copy_fields_from(linear())


@situation(CONFIGS, "A mesh shape without names of its axes")
def _() -> None:
    _ = linear(ici_mesh_shape=[2, 4], dcn_mesh_shape=[2]).mesh_shape


@situation(CONFIGS, "Old nested `HParams`")
def _() -> None:
    type("Old", (base_layer.BaseLayer,), {"HParams": type("HParams", (), {})})


@situation(CONFIGS, "A function without a name in a module, written as JSON")
def _() -> None:
    inspection.config_to_json(linear(params_init=lambda: 3))


@situation(CONFIGS, "Another text read as JSON of a config")
def _() -> None:
    inspection.config_from_json('{"a": 1}')


@situation(CONFIGS, "Positional arguments for an input, learner or dataset")
def _() -> None:
    base_hyperparams.FiddleBaseParameterizable("train")  # pyright: ignore[reportCallIssue]
