"""Quantized and sparse variables, and the trees that serving asks of every layer."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax.sharding import PartitionSpec

from praxis.core import boxed, names
from praxis.core.children import is_layer
from praxis.core.sharding import to_partition_spec
from praxis.core.weights import WeightHParams, WeightInit

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer


def create_quantized_variable(
    layer: "BaseLayer",
    name: str,
    weight_hparams: WeightHParams,
    scale_shape: Sequence[int],
    dtype: Any,
    use_symmetric: bool,
    scale_hparams: WeightHParams | None,
) -> None:
    """Declares a weight and its scale, see `BaseLayer.create_quantized_variable`."""
    if scale_shape and scale_hparams is not None:
        raise ValueError(
            f"{layer.path_text}: variable {name!r} got scale_shape = {list(scale_shape)} and "
            f"scale_hparams = {scale_hparams}; give one of them."
        )
    quantized = copy.copy(weight_hparams)
    quantized.dtype = dtype
    quantized.init = WeightInit.Constant(0)
    layer.create_variable(name, quantized)
    scale = scale_hparams or WeightHParams(shape=list(scale_shape))
    layer.create_variable(name + names.QUANTIZED_SCALE_NAME_POSTFIX, scale)
    if not use_symmetric:
        layer.create_variable(name + names.QUANTIZED_ZP_NAME_POSTFIX, scale)


def create_sparse_variable(layer: "BaseLayer", name: str, weight_hparams: WeightHParams) -> None:
    """Declares a weight and its mask, see `BaseLayer.create_sparse_variable`."""
    layer.create_variable(name, weight_hparams)
    mask = copy.copy(weight_hparams)
    mask.dtype = jnp.bool_
    mask.init = WeightInit.Constant(False)
    layer.create_variable(name + names.SPARSITY_NAME_POSTFIX, mask, trainable=False)


def quantize_weight(layer: "BaseLayer") -> dict[str, Any]:
    """Returns the variables of a layer, each child's as the child gives them."""
    return _collect(layer, lambda child: child.quantize_weight(), lambda _, value: value)


def quantized_partition_specs(layer: "BaseLayer") -> dict[str, Any]:
    """Returns the boxed PartitionSpecs of the variables, each child's as the child gives them."""

    def own(name: str, value: Any) -> boxed.BoxedPartitionSpec:
        hparams = layer.weight_hparams.get(name)
        mapping = hparams.tensor_split_dims_mapping if hparams is not None else None
        if mapping is None or not layer.mesh_axis_names:
            shape = hparams.shape if hparams is not None else jnp.shape(value)
            return boxed.BoxedPartitionSpec(meta=PartitionSpec(*([None] * len(shape))))
        return boxed.BoxedPartitionSpec(meta=to_partition_spec(mapping, layer.mesh_axis_names))

    return _collect(layer, lambda child: child.quantized_partition_specs(), own)


def _collect(
    layer: "BaseLayer", of_child: Callable[[Any], Any], of_variable: Callable[[str, Any], Any]
) -> dict[str, Any]:
    """Nested {collection: {child: ..., variable: ...}} over what the layer holds."""
    layer.ensure_setup()
    children = {child.name: child for child in _children(layer)}
    variables = layer.scope_or_raise().variables()
    result: dict[str, Any] = {}
    for child_name, child in children.items():
        held = any(child_name in variables.get(name, {}) for name in _COLLECTIONS)
        for name, tree in of_child(child).items() if held else ():
            result.setdefault(name, {})[child_name] = tree
    for name in _COLLECTIONS:
        for key, value in variables.get(name, {}).items():
            if key not in children:
                result.setdefault(name, {})[key] = of_variable(key, boxed.maybe_unbox_value(value))
    return result


_COLLECTIONS = (names.PARAMS, names.NON_TRAINABLE)


def _children(layer: "BaseLayer") -> Iterator[Any]:
    yield from layer.children.values()
    for field in dataclasses.fields(layer):
        if field.name not in ("parent", "name"):
            yield from _layers_in(getattr(layer, field.name))


def _layers_in(value: Any) -> Iterator[Any]:
    if is_layer(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _layers_in(item)
    elif hasattr(value, "values") and hasattr(value, "keys"):
        for item in value.values():
            yield from _layers_in(item)
