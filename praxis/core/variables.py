"""Making, reading and updating the variables of a layer."""

import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import flax.errors
import jax
import jax.numpy as jnp
from absl import logging
from jax.typing import DTypeLike

from praxis.core import boxed, initializers, weights
from praxis.core.names import (
    DECODE_CACHE,
    NON_TRAINABLE,
    PARAMS,
)
from praxis.core.weights import WeightHParams, WeightHParamsCollection

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer


def create_variable(
    layer: "BaseLayer", name: str, var_hparams: WeightHParams, trainable: bool
) -> Any:
    """Declares a variable of a layer, see `BaseLayer.create_variable`."""
    if not isinstance(var_hparams, WeightHParams):
        raise TypeError(
            f"{layer.path_text}: variable {name!r} is declared by a {type(var_hparams).__name__}, "
            "expected WeightHParams, e.g. WeightHParams(shape=[2, 3])."
        )
    _check_name(layer, name)
    hparams = var_hparams.copy_with_defaults(layer.params_init, plain_dtype(layer.dtype))
    _add_collections(layer, hparams, trainable)
    _check_sharding(layer, name, hparams)

    collection = PARAMS if trainable else NON_TRAINABLE
    layer.weight_hparams[name] = hparams
    try:
        variable = layer.variable(collection, name, _initial, layer, name, hparams)
    except (flax.errors.ScopeCollectionNotFound, flax.errors.ScopeVariableNotFoundError) as error:
        raise ValueError(
            f"{layer.path_text}: variable {name!r} of shape {list(hparams.shape)} is not in the "
            f"collection {collection!r} that was given. "
            f"{name_hint(name, _names(layer, collection))} Were the variables made by "
            "`layer.init` of the same config?"
        ) from error
    _check_value(layer, name, hparams, variable.value)
    return read_trainable(layer, name) if trainable else variable.value


def _initial(layer: "BaseLayer", name: str, hparams: WeightHParams) -> boxed.BoxedParam:
    key = make_rng(layer, PARAMS)
    full_name = "/".join((*layer.path, name))
    return boxed.box(initializers.init_var(hparams, key, full_name), hparams)


def read_trainable(layer: "BaseLayer", name: str) -> Any:
    """Returns a trainable variable, cast for computation.

    Raises:
      ValueError: if the layer is unbound or has no such variable.
    """
    value = _read(layer, PARAMS, name, "trainable variable")
    return jax.tree.map(lambda leaf: _cast(layer, leaf, layer.weight_hparams.get(name)), value)


def read_non_trainable(layer: "BaseLayer", name: str) -> Any:
    """Returns a non-trainable variable as it is stored.

    Raises:
      ValueError: if the layer is unbound or has no such variable.
    """
    advice = "Create it with create_variable(..., trainable=False)."
    return _read(layer, NON_TRAINABLE, name, "non-trainable variable", advice)


def update_non_trainable(layer: "BaseLayer", name: str, value: Any) -> None:
    """Stores a new value, see `BaseLayer.update_var`."""
    old = read_non_trainable(layer, name)
    if jnp.shape(old) != jnp.shape(value):
        raise ValueError(
            f"{layer.path_text}: update_var({name!r}) got shape {jnp.shape(value)}, expected "
            f"{jnp.shape(old)}, the shape of the variable."
        )
    if layer.is_initializing() or not layer.is_mutable_collection(NON_TRAINABLE):
        return
    value = jnp.asarray(value, jnp.result_type(old))
    stored = layer.scope_or_raise().get_variable(NON_TRAINABLE, name)
    if isinstance(stored, boxed.BoxedParam):
        value = stored.replace_boxed(value)
    layer.put_variable(NON_TRAINABLE, name, value)


def read_decode_state(layer: "BaseLayer", name: str) -> Any:
    """Returns an entry of the decode cache.

    Raises:
      ValueError: if the layer is unbound or has no such entry.
    """
    advice = f"Run the prefix through the model first, with mutable=[{DECODE_CACHE!r}]."
    return _read(layer, DECODE_CACHE, name, "decode state", advice)


def plain_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns a dtype that is given as text, which pins it in a config, as a dtype."""
    return jnp.dtype(dtype) if isinstance(dtype, str) else dtype


def cast_to_fprop_dtype(layer: "BaseLayer", value: Any) -> Any:
    """Casts the floating leaves of a tree to the layer's `fprop_dtype`."""
    return jax.tree.map(lambda leaf: _cast(layer, leaf, None), value)


def make_rng(layer: "BaseLayer", stream: str) -> jax.Array:
    """Draws the next key of a stream.

    Raises:
      flax.errors.InvalidRngError: if neither that stream nor `params` was given.
      ValueError: if the layer is unbound.
    """
    scope = layer.scope_or_raise()
    try:
        return scope.make_rng(stream)
    except flax.errors.InvalidRngError as error:
        given = ", ".join(map(repr, sorted(scope.rngs))) or "none"
        raise flax.errors.InvalidRngError(
            f"{layer.path_text} needs random numbers of the stream {stream!r}, but the streams "
            f"given are: {given}. Pass rngs={{{stream!r}: key}} to init or apply."
        ) from error


def name_hint(name: str, available: Iterable[str]) -> str:
    """Returns text that lists what exists and asks for the nearest name."""
    names = sorted(available)
    near = difflib.get_close_matches(name, names, n=1)
    question = f" Did you mean {near[0]!r}?" if near else ""
    return f"It has {', '.join(map(repr, names)) or 'none'}.{question}"


def _read(layer: "BaseLayer", collection: str, name: str, kind: str, advice: str = "") -> Any:
    layer.ensure_setup()
    value = layer.scope_or_raise().get_variable(collection, name)
    if value is None:
        hint = name_hint(name, _names(layer, collection))
        raise ValueError(f"{layer.path_text} has no {kind} {name!r}. {hint} {advice}".rstrip())
    return boxed.maybe_unbox_value(value)


def _names(layer: "BaseLayer", collection: str) -> list[str]:
    scope = layer.scope_or_raise()
    return [name for name in scope.variables().get(collection, {}) if name not in layer.children]


def _cast(layer: "BaseLayer", leaf: Any, hparams: WeightHParams | None) -> Any:
    dtype = getattr(leaf, "dtype", None)
    target = layer.fprop_dtype
    if dtype is None or dtype == target or not jnp.issubdtype(dtype, jnp.floating):
        return leaf
    keeps = hparams is not None and weights.var_disallow_bfloat16_conversion(hparams)
    if keeps and jnp.finfo(target).bits <= 16:
        return leaf
    return leaf.astype(target)


def _check_name(layer: "BaseLayer", name: str) -> None:
    if hasattr(type(layer), name) or name in vars(layer):
        raise AttributeError(
            f"{layer.path_text}: variable {name!r} has the name of a field, method or child of "
            f"{type(layer).__name__}. Choose another name."
        )


def _add_collections(layer: "BaseLayer", hparams: WeightHParams, trainable: bool) -> None:
    wanted = []
    if layer.skip_lp_regularization:
        wanted.append(WeightHParamsCollection.SKIP_LP_REGULARIZATION)
    if not trainable:
        wanted.append(WeightHParamsCollection.NON_TRAINABLE)
    own = hparams.collections or []
    hparams.collections = [*own, *(name for name in wanted if name not in own)]


def _check_sharding(layer: "BaseLayer", name: str, hparams: WeightHParams) -> None:
    mapping, shape = hparams.tensor_split_dims_mapping, hparams.shape
    if mapping is not None and len(mapping) != len(shape):
        raise ValueError(
            f"{layer.path_text}: variable {name!r} of shape {list(shape)} has the sharding "
            f"{mapping}, expected {len(shape)} entries, one for each dim."
        )
    if mapping is None and layer.mesh_shape is not None:
        if sum(size > 1 for size in shape) > 1:
            logging.warning(
                "%s: variable %r of shape %s has no sharding on mesh %s: every device holds it.",
                layer.path_text,
                name,
                list(shape),
                layer.mesh_shape,
            )
        hparams.mesh_shape = layer.mesh_shape


def _check_value(layer: "BaseLayer", name: str, hparams: WeightHParams, value: Any) -> None:
    # Injected operations may put a quantized structure here; only plain arrays are compared.
    given = getattr(boxed.maybe_unbox_value(value), "shape", None)
    if given is not None and math.prod(given) and tuple(given) != tuple(hparams.shape):
        raise ValueError(
            f"{layer.path_text}: variable {name!r} was given with shape {tuple(given)}, but the "
            f"config asks for {tuple(hparams.shape)}."
        )
