"""Boxes that carry metadata beside a variable while a layer is initialised."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import struct
from flax.core import meta as flax_meta

from praxis.config.config import PaxConfig
from praxis.core.weights import SplitDimsMapping, WeightHParams


class BoxedParam(struct.PyTreeNode, flax_meta.AxisMetadata):
    """A variable and its WeightHParams.

    Flax's `nn.scan`, `nn.vmap` and `nn.add_metadata_axis` tell the box when they stack variables:
    they call `add_axis` and `remove_axis` with the `metadata_params` of the transformation, which
    holds `is_initializing`, `x_times` (size of the stack), `sub_weight_split_dims_mapping` and
    `optimizer_dims_mapping` (None or one entry each).

    Attributes:
      value: The array.
      meta: Its declaration. Static: JAX does not look inside.
    """

    value: Any
    meta: WeightHParams = struct.field(pytree_node=False)

    def unbox(self, apply_constraint: bool = True) -> Any:
        """Returns the array. No sharding constraint is ever added: layers annotate themselves."""
        del apply_constraint
        return self.value

    def replace_boxed(self, val: Any) -> "BoxedParam":
        """Returns a box of `val` with the same metadata."""
        return self.replace(value=val)

    # The name of the parameter is that of the public API, not Flax's.
    def add_axis(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, index: int, metadata_params: dict[Any, Any]
    ) -> "BoxedParam":
        """Returns the box of the stacked variable: one more entry in front of the prefix.

        Raises:
          ValueError: if the new axis is not the first.
        """
        _check_first_axis(index)
        if not metadata_params["is_initializing"]:
            return self
        meta = self.meta
        prefix = list(meta.repeat_prefix or ())
        mapping = _prefix_mapping(meta.repeat_prefix_split_dims_mapping, len(prefix))
        optimizer = _prefix_mapping(meta.repeat_optimizer_dims_mapping, len(prefix))
        sub = _only_entry(metadata_params["sub_weight_split_dims_mapping"])
        optimizer_sub = _only_entry(metadata_params["optimizer_dims_mapping"])
        return self.replace(
            meta=_replace(
                meta,
                repeat_prefix=[metadata_params["x_times"], *prefix],
                repeat_prefix_split_dims_mapping=(sub, *mapping),
                repeat_optimizer_dims_mapping=(optimizer_sub, *optimizer),
                fan_in_axes=_shifted(meta.fan_in_axes, 1),
                fan_out_axes=_shifted(meta.fan_out_axes, 1),
            )
        )

    def remove_axis(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, index: int, metadata_params: dict[Any, Any]
    ) -> "BoxedParam":
        """Returns the box before `add_axis` with the same arguments.

        Raises:
          ValueError: if the axis is not the first, or the entries in front are not those added.
        """
        _check_first_axis(index)
        if not metadata_params["is_initializing"]:
            return self
        meta = self.meta
        added = (
            metadata_params["x_times"],
            _only_entry(metadata_params["sub_weight_split_dims_mapping"]),
            _only_entry(metadata_params["optimizer_dims_mapping"]),
        )
        fields = (
            meta.repeat_prefix,
            meta.repeat_prefix_split_dims_mapping,
            meta.repeat_optimizer_dims_mapping,
        )
        front = tuple(field[0] if field else None for field in fields)
        if front != added:
            raise ValueError(
                f"The stacked axis of a variable of shape {list(meta.shape)} is {front} (size, "
                f"sharding, optimizer sharding), but {added} is to be removed."
            )
        prefix, mapping, optimizer = (tuple(field[1:]) if field else () for field in fields)
        return self.replace(
            meta=_replace(
                meta,
                repeat_prefix=list(prefix) or None,
                repeat_prefix_split_dims_mapping=mapping or None,
                repeat_optimizer_dims_mapping=optimizer or None,
                fan_in_axes=_shifted(meta.fan_in_axes, -1),
                fan_out_axes=_shifted(meta.fan_out_axes, -1),
            )
        )


class BoxedPartitionSpec(struct.PyTreeNode):
    """A PartitionSpec that JAX takes for one leaf-less node.

    Attributes:
      meta: The PartitionSpec.
    """

    meta: Any = struct.field(pytree_node=False)


class WrappedHParams(struct.PyTreeNode):
    """The config of a layer, stored among its variables; JAX does not look inside.

    Attributes:
      meta: The config.
    """

    meta: PaxConfig = struct.field(pytree_node=False)


def box(value: Any, meta: WeightHParams) -> BoxedParam:
    """Returns `value` in a box.

    Raises:
      ValueError: if it is in one already.
    """
    if isinstance(value, BoxedParam):
        raise ValueError(f"A variable of shape {list(meta.shape)} is in a box already.")
    return BoxedParam(value=value, meta=meta)


def maybe_unbox_value(tree: Any) -> Any:
    """Returns the tree with arrays in place of boxes; a tree without boxes is returned equal."""
    return jax.tree.map(lambda x: x.value if _is_box(x) else x, tree, is_leaf=_is_box)


def unbox_meta(tree: Any) -> Any:
    """Returns the tree with a WeightHParams in place of each box or array."""
    return jax.tree.map(
        lambda x: x.meta if _is_box(x) else WeightHParams(shape=x.shape, dtype=x.dtype),
        tree,
        is_leaf=_is_box,
    )


def _is_box(x: Any) -> bool:
    return isinstance(x, BoxedParam)


def _check_first_axis(index: int) -> None:
    if index != 0:
        raise ValueError(f"Variables are stacked along axis {index}, expected 0: the first axis.")


def _replace(meta: WeightHParams, **fields: Any) -> WeightHParams:
    own = meta.copy_with_defaults(meta.init, meta.dtype)
    for name, value in fields.items():
        setattr(own, name, value)
    return own


def _only_entry(mapping: SplitDimsMapping) -> Any:
    if mapping is None:
        return -1
    if len(mapping) != 1:
        raise ValueError(f"The sharding of a stack is {mapping}, expected None or one entry.")
    return mapping[0]


def _prefix_mapping(mapping: SplitDimsMapping, length: int) -> Sequence[Any]:
    return [-1] * length if mapping is None else mapping


def _shifted(axes: Sequence[int] | None, by: int) -> Sequence[int] | None:
    """Axes counted from the front move with the new axis; those counted from the end stay."""
    if axes is None:
        return None
    return [axis + by if axis >= 0 else axis for axis in axes]
