"""Configs of chains in few words, and small layers that are used in chains.

    chain(dict_to_args("inputs"), repeat(3, add_residual(feed_forward(8, 8))), name="net")

Variables are found by the names of layers. Those that have none are called `layers0`, `layers1`,
..., after their place in the chain; a name that was there before gets its place appended.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jaxtyping import Array, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import linears, repeats
from praxis.layers.chain.apply import Chain

BaseLayer = base_layer.BaseLayer
Config = pax_fiddle.Config
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def kwargs_with_name(default_name: str, **kwargs: Any) -> dict[str, Any]:
    """Keyword arguments, with a `name` if there was none."""
    return {"name": default_name, **kwargs}


def _named(layers_tpl: Sequence[Any]) -> list[Any]:
    """Copies of configs with names that differ; functions as they are."""
    copies = [layer.clone() if isinstance(layer, Config) else layer for layer in layers_tpl]
    taken = set()
    for i, layer in enumerate(copies):
        if not isinstance(layer, Config):
            continue
        if layer.name is None or layer.name in taken:
            layer.name = f"{layer.name or 'layers'}{i}"
        taken.add(layer.name)
    return copies


# ---- chains -------------------------------------------------------------------------------------


def chain(*layers_tpl: LayerTpl, **kwargs: Any) -> LayerTpl:
    """Config of a `Chain`.

    Args:
      *layers_tpl: Configs of the layers; functions too.
      **kwargs: Fields of the chain, as `name`.
    """
    return Config(Chain, layers=_named(layers_tpl), **kwargs_with_name("chain", **kwargs))


def copy_n_times(num_times: int, *layers_tpl: LayerTpl, **kwargs: Any) -> LayerTpl:
    """Config of a chain of the same layers again and again, each time with other variables."""
    return chain(*layers_tpl * num_times, **kwargs)


def repeat(x_times: int, *layers_tpl: LayerTpl, **kwargs: Any) -> LayerTpl:
    """As `copy_n_times`, but as a loop: config of a `Repeat` of a chain, with stacked variables."""
    return Config(
        repeats.Repeat,
        x_times=x_times,
        sub_tpl=chain(*layers_tpl),
        **kwargs_with_name("repeat", **kwargs),
    )


class AddResidual(Chain):
    """A chain that adds its first argument to its output.

    If the output is a tuple, to the first of it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Computes `x + chain(x, ...)`."""
        outputs = self.call_chain(*args, **kwargs)
        if isinstance(outputs, tuple):
            return (args[0] + outputs[0], *outputs[1:])
        return args[0] + outputs


def add_residual(*layers: LayerTpl, **kwargs: Any) -> LayerTpl:
    """Config of an `AddResidual` of the layers."""
    return Config(AddResidual, layers=_named(layers), **kwargs_with_name("add_residual", **kwargs))


# ---- layers -------------------------------------------------------------------------------------


def feed_forward(
    input_dims: int, output_dims: int, activation_tpl: LayerTpl | None = None, **kwargs: Any
) -> LayerTpl:
    """Config of a `FeedForward`; without `activation_tpl`, with its default nonlinearity."""
    if activation_tpl is not None:
        kwargs["activation_tpl"] = activation_tpl.clone()
    return Config(
        linears.FeedForward,
        input_dims=input_dims,
        output_dims=output_dims,
        **kwargs_with_name("feed_forward", **kwargs),
    )


class ApplyPadding(base_layer.BaseLayer):
    """Writes 0 in padded places.

    Attributes:
      axis: The axis of the inputs that the first one of the paddings is.
    """

    axis: int = 0

    def __call__(
        self, inputs: Shaped[Array, "..."], paddings: Shaped[Array, "..."]
    ) -> Shaped[Array, "..."]:
        """Applies paddings, 1 in padded places, to the inputs."""
        return py_utils.apply_padding(inputs, paddings, axis=self.axis)


def apply_padding(**kwargs: Any) -> LayerTpl:
    """Config of an `ApplyPadding`."""
    return Config(ApplyPadding, **kwargs_with_name("apply_padding", **kwargs))


class DictToArgs(base_layer.BaseLayer):
    """Makes arguments for the next layer of entries of a batch.

    Attributes:
      keys: Names of the entries, in the order of the arguments. Required.

    Raises:
      ValueError: in `__call__`, if the batch lacks an entry.
    """

    keys: Sequence[str] = ()

    def __call__(self, input_batch: Mapping[str, Any]) -> Any:
        """The entries: a tuple; alone if there is one."""
        missing = [key for key in self.keys if key not in input_batch]
        if missing or not self.keys:
            raise ValueError(
                f"{self.path_text}: keys = {tuple(self.keys)}, of which the batch lacks {missing}. "
                f"It has {sorted(input_batch)}."
            )
        values = [input_batch[key] for key in self.keys]
        return tuple(values) if len(values) > 1 else values[0]


def dict_to_args(*keys: str, **kwargs: Any) -> LayerTpl:
    """Config of a `DictToArgs`."""
    return Config(DictToArgs, keys=keys, **kwargs_with_name("dict_to_args", **kwargs))


class FullLike(base_layer.BaseLayer):
    """Returns a constant of the shape and dtype of the inputs.

    Attributes:
      fill_value: The constant.
    """

    fill_value: float = 1.0

    def __call__(self, inputs: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """The constant, in each place."""
        return jnp.full_like(inputs, self.fill_value)


def full_like(fill_value: float, **kwargs: Any) -> LayerTpl:
    """Config of a `FullLike`."""
    return Config(FullLike, fill_value=fill_value, **kwargs_with_name("full_like", **kwargs))


class LogArgs(base_layer.BaseLayer):
    """Logs its arguments, and hands them to the next layer.

    Attributes:
      message: What the lines start with; None: the path of the layer.
      log_values: Log the values too, each time the layer runs; otherwise shapes and dtypes, each
        time it is traced.
    """

    message: str | None = None
    log_values: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the positional arguments: a tuple; alone if there is one."""
        message = self.path_text if self.message is None else self.message

        def shape(x: Any) -> Any:
            return f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else x

        logging.info("%s: %s", message, jax.tree.map(shape, (args, kwargs)))
        if self.log_values:
            jax.debug.callback(
                lambda values: logging.info("%s: %s", message, values), (args, kwargs)
            )
        return args if len(args) != 1 else args[0]


def log_args(message: str | None = None, log_values: bool = False, **kwargs: Any) -> LayerTpl:
    """Config of a `LogArgs`."""
    return Config(
        LogArgs, message=message, log_values=log_values, **kwargs_with_name("log_args", **kwargs)
    )
