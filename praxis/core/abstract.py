"""What init would make, worked out from shapes: no memory, no arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from praxis.core import boxed, names
from praxis.core.context import JaxContext

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer

_STREAMS = (names.PARAMS, names.RANDOM, names.NON_PAX_RNG_KEY)


def abstract_init(
    layer: "BaseLayer",
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    context: JaxContext.HParams,
    mutable: Sequence[str],
    method: Callable[..., Any] | str | None,
    capture_intermediates: bool,
) -> dict[str, Any]:
    """Runs `init` on shapes.

    Args:
      layer: An unbound layer.
      args: Arrays or ShapeDtypeStructs are traced, anything else stays as it is.
      kwargs: As `args`.
      context: Settings of the JaxContext that the call sees.
      mutable: Collections of the result.
      method: Method that is run; None: `__call__`.
      capture_intermediates: Whether outputs of layers are kept in `intermediates`.

    Returns:
      Tree of boxes and ShapeDtypeStructs.
    """
    found, arguments = split_arrays(args, kwargs)
    traced = {key: _abstract(layer, leaf) for key, leaf in found.items()}

    def init(keys: dict[str, jax.Array], arrays: dict[int, Any]) -> Any:
        init_args, init_kwargs = arguments(arrays)
        return nn.Module.init(
            layer,
            keys,
            *init_args,
            method=method,
            mutable=list(mutable),
            capture_intermediates=capture_intermediates,
            **init_kwargs,
        )

    keys = {stream: jax.random.PRNGKey(0) for stream in _STREAMS}
    with JaxContext.new_context(hparams=context):
        return jax.eval_shape(init, keys, traced)


def split_arrays(
    args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[dict[int, Any], Callable[[Mapping[int, Any]], tuple[Any, Any]]]:
    """Takes the arrays out of arguments.

    Args:
      args: Trees; arrays and ShapeDtypeStructs are taken out, anything else stays.
      kwargs: As `args`.

    Returns:
      The arrays by a key of each, and a function that makes (args, kwargs) with other arrays of
      the same keys. An array that is passed twice, as to self-attention, stays one.
    """
    leaves, structure = jax.tree.flatten((tuple(args), kwargs))
    arrays = {id(leaf): leaf for leaf in leaves if _is_array(leaf)}

    def fill(others: Mapping[int, Any]) -> tuple[Any, Any]:
        return jax.tree.unflatten(structure, [others.get(id(leaf), leaf) for leaf in leaves])

    return arrays, fill


def metadata_tree(variables: dict[str, Any]) -> dict[str, Any]:
    """Returns the WeightHParams of the boxes in the result of `abstract_init`."""
    return boxed.unbox_meta(
        {name: tree for name, tree in variables.items() if name != "params_axes"}
    )


def config_tree(variables: dict[str, Any]) -> dict[str, Any]:
    """Returns the configs of layers from the result of `abstract_init`, nested by child."""

    def is_config(value: Any) -> bool:
        return isinstance(value, boxed.WrappedHParams)

    return jax.tree.map(
        lambda wrapped: wrapped.meta, variables.get(names.HYPER_PARAMS, {}), is_leaf=is_config
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _abstract(layer: "BaseLayer", leaf: Any) -> jax.ShapeDtypeStruct:
    low_precision = layer.fprop_dtype == jnp.bfloat16 and leaf.dtype == jnp.float32
    dtype = jnp.bfloat16 if low_precision else jax.dtypes.canonicalize_dtype(leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, dtype)
