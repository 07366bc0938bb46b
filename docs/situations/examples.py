"""Layers and models in which situations go wrong."""

from collections.abc import Callable
from typing import Any

import jax

from praxis import (
    base_layer,
    pax_fiddle,
)
from praxis.layers import linears, transformer_models, transformers

Config = pax_fiddle.Config
KEY = jax.random.PRNGKey(0)


def linear(**fields: Any) -> Any:
    """Config of a small layer."""
    return Config(linears.Linear, name="lin", **{"input_dims": 3, "output_dims": 5, **fields})


def language_model(**fields: Any) -> Any:
    """Config of a small language model."""
    stack = Config(
        transformers.StackedTransformer, num_layers=1, num_heads=2, model_dims=8, hidden_dims=16
    )
    return Config(
        transformer_models.TransformerLm,
        name="lm",
        vocab_size=11,
        model_dims=8,
        stacked_transformer_tpl=stack,
    ).set(**fields)


def initialise(config: Any, *args: Any, **kwargs: Any) -> Any:
    """Builds a layer and makes its variables."""
    return pax_fiddle.build(config).init(KEY, *args, **kwargs)


class Counter(base_layer.BaseLayer):
    """A layer with one variable of each kind, that does what `then` says."""

    then: Callable[[Any], Any] | None = None

    def setup(self) -> None:
        self.create_variable("weight", base_layer.WeightHParams([2]))
        self.create_variable("count", base_layer.WeightHParams([2]), trainable=False)

    def __call__(self, inputs: Any = None) -> Any:
        return self.then(self) if self.then is not None else inputs


def counter(then: Callable[[Any], Any] | None = None) -> Any:
    """Runs a `Counter`."""
    return initialise(Config(Counter, name="counter", then=then))


class Declares(base_layer.BaseLayer):
    """A layer whose `setup` is given."""

    declare: Callable[[Any], Any] | None = None

    def setup(self) -> None:
        assert self.declare is not None
        self.declare(self)

    def __call__(self) -> None:
        pass


def declares(declare: Callable[[Any], Any], **fields: Any) -> Any:
    """Runs a layer with that `setup`."""
    return initialise(Config(Declares, name="layer", declare=declare, **fields))
