"""Projections between the model width and the heads of attention."""

from typing import Any

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_last_axis, check_sizes

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


def merge_split_dims(split: SplitDimsMapping, first: int) -> SplitDimsMapping:
    """The sharding of a shape after its axes `first` and `first + 1` became one.

    Mesh axes of both go to the merged one. A mapping that is already as short as the merged shape,
    of two axes, is returned as it is.
    """
    if split is None or len(split) == 2:
        return split
    merged: list[Any] = []
    for entry in split[first : first + 2]:
        axes = [entry] if isinstance(entry, str | int) else list(entry or ())
        merged += [axis for axis in axes if isinstance(axis, str) or axis >= 0]
    return [*split[:first], tuple(merged) or None, *split[first + 2 :]]


class AttentionProjection(base_layer.BaseLayer):
    """Projects to the heads, `inputs @ w + b`, or from them back to the model width.

    Shapes: D is `input_dim`, N is `num_heads`, H is `dim_per_head`. The default initializer reads
    the fans of `w` as those of a convolution, D N and D H, unless `explicit_fan_in_fan_out_axes`.

    Attributes:
      input_dim: D, at least 1: the width of the inputs, or of the outputs of an output projection.
        Required.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      is_output_projection: Project from the heads to D, not from D to the heads.
      use_bias: Whether to add `b`.
      attention_combine_dims: Store `w` with one axis for N and H. Not with `use_bias`.
      use_nhd_shape: Store the `w` of an output projection as [N, H, D], not [D, N, H].
      explicit_fan_in_fan_out_axes: The fans of `w` are D and N H, in this order also for an output
        projection stored as [D, N, H]; for one stored as [N, H, D] the order is as stored last:
        in is D, out is N H.
      einsum_tpl: Config of the operation that multiplies.

    Variables:
      w: [D, N, H], or [N, H, D] with `use_nhd_shape`; [D, N H] or [N H, D] with
        `attention_combine_dims`. `weight_split_dims_mapping.wt` is for the three axes.
      b: [N, H], or [D] for an output projection; with `use_bias`.

    Raises:
      ValueError: during setup, if a size is below 1 or options contradict each other; in
        `__call__`, if the inputs have another width.
    """

    input_dim: int = 0
    num_heads: int = 0
    dim_per_head: int = 0
    is_output_projection: bool = False
    use_bias: bool = True
    attention_combine_dims: bool = False
    use_nhd_shape: bool = False
    explicit_fan_in_fan_out_axes: bool = False
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)

    @property
    def _heads_first(self) -> bool:
        return self.is_output_projection and self.use_nhd_shape

    def setup(self) -> None:
        check_sizes(self, "input_dim", "num_heads", "dim_per_head")
        if self.attention_combine_dims and self.use_bias:
            raise ValueError(
                f"{self.path_text}: attention_combine_dims = True and use_bias = True contradict "
                "each other: there is no bias for merged heads. Set use_bias to False."
            )
        wt = self.weight_split_dims_mapping.wt
        heads = [self.num_heads, self.dim_per_head]
        stored = [heads[0] * heads[1]] if self.attention_combine_dims else heads
        shape = [*stored, self.input_dim] if self._heads_first else [self.input_dim, *stored]
        fans: dict[str, Any] = {}
        if self.explicit_fan_in_fan_out_axes:
            width_axis, head_axes = -len(shape), list(range(-len(stored), 0))
            if self._heads_first:
                width_axis, head_axes = -1, [axis - 1 for axis in head_axes]
            fans = {"fan_in_axes": [width_axis], "fan_out_axes": head_axes}
        merged = merge_split_dims(wt, 0 if self._heads_first else 1)
        self.create_variable(
            "w",
            WeightHParams(
                shape=shape,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=merged if self.attention_combine_dims else wt,
                **fans,
            ),
        )
        if self.use_bias:
            bias_split = None
            if wt is not None:
                # Of an [N, H, D] output projection this is the entry of N: a published sharding.
                bias_split = [wt[0]] if self.is_output_projection else [wt[1], wt[2]]
            self.create_variable(
                "b",
                WeightHParams(
                    shape=[self.input_dim] if self.is_output_projection else heads,
                    init=WeightInit.Constant(0.0),
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=bias_split,
                ),
            )
        self.create_child("einsum", self.einsum_tpl)

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Projects.

        Args:
          inputs: [..., D], or [..., N, H] for an output projection.

        Returns:
          [..., N, H], or [..., D] for an output projection; in `fprop_dtype`.
        """
        inputs = self._cast_to_fprop_dtype(inputs)
        heads = (self.num_heads, self.dim_per_head)
        weight = self.theta.w
        if self.attention_combine_dims:
            last = (self.input_dim,)
            weight = weight.reshape(heads + last if self._heads_first else last + heads)
        if self.is_output_projection:
            if inputs.shape[-2:] != heads:
                raise ValueError(
                    f"{self.path_text}: inputs have shape {inputs.shape}, expected [..., N, H] "
                    f"with N = num_heads = {heads[0]} and H = dim_per_head = {heads[1]}."
                )
            equation = "...NH,NHD->...D" if self.use_nhd_shape else "...NH,DNH->...D"
        else:
            check_last_axis(self, inputs, "input_dim")
            equation = "...D,DNH->...NH"
        outputs = self.einsum(equation, inputs, weight)
        if self.use_bias:
            bias = self.theta.b
            outputs += jnp.expand_dims(bias, range(outputs.ndim - bias.ndim))
        return outputs

    def extend_step(
        self, inputs: Float[Array, "..."], *, time_step: TimeStep
    ) -> Float[Array, "..."]:
        """Projects one decoding step, or several: as `__call__`."""
        del time_step
        return self(inputs)


class CombinedQKVProjectionLayer(base_layer.BaseLayer):
    """Projects one input to queries, keys and values, with one variable.

    Shapes: D is `input_dim`, N is `num_heads`, H is `dim_per_head`.

    Attributes:
      input_dim: D, at least 1. Required.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      use_bias: Whether to add `b`.
      attention_combine_dims: Store `w` and `b` with one axis for N and H.
      explicit_fan_in_fan_out_axes: The fans of `w` are D and N H.
      einsum_tpl: Config of the operation that multiplies.

    Variables:
      w: [3, D, N, H], or [3, D, N H] with `attention_combine_dims`: query, key, value.
        `weight_split_dims_mapping.wt` is for the axes after the first.
      b: [3, N, H] or [3, N H]; with `use_bias`.

    Raises:
      ValueError: during setup, if a size is below 1; in `__call__`, if the inputs have another
        width.
    """

    input_dim: int = 0
    num_heads: int = 0
    dim_per_head: int = 0
    use_bias: bool = True
    attention_combine_dims: bool = False
    explicit_fan_in_fan_out_axes: bool = False
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)

    def setup(self) -> None:
        check_sizes(self, "input_dim", "num_heads", "dim_per_head")
        wt = self.weight_split_dims_mapping.wt
        stored = [self.num_heads, self.dim_per_head]
        if self.attention_combine_dims:
            stored = [self.num_heads * self.dim_per_head]
            wt = merge_split_dims(wt, 1)
        fans: dict[str, Any] = {}
        if self.explicit_fan_in_fan_out_axes:
            head_axes = list(range(-len(stored), 0))
            fans = {"fan_in_axes": [-len(stored) - 1], "fan_out_axes": head_axes}
        self.create_variable(
            "w",
            WeightHParams(
                shape=[3, self.input_dim, *stored],
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=None if wt is None else [None, *wt],
                **fans,
            ),
        )
        if self.use_bias:
            self.create_variable(
                "b",
                WeightHParams(
                    shape=[3, *stored],
                    init=WeightInit.Constant(0.0),
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=None if wt is None else [None, *wt[1:]],
                ),
            )
        self.create_child("einsum", self.einsum_tpl)

    def __call__(
        self, inputs: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B N H"], Float[Array, "*B N H"], Float[Array, "*B N H"]]:
        """Projects.

        Args:
          inputs: [..., D].

        Returns:
          Query, key and value, each [..., N, H], in `fprop_dtype`.
        """
        inputs = self._cast_to_fprop_dtype(inputs)
        check_last_axis(self, inputs, "input_dim")
        heads = (self.num_heads, self.dim_per_head)
        weight = self.theta.w.reshape(3, self.input_dim, *heads)
        outputs = self.einsum("...D,KDNH->K...NH", inputs, weight)
        if self.use_bias:
            lead = (1,) * (inputs.ndim - 1)
            outputs += self.theta.b.reshape(3, *lead, *heads)
        outputs = checkpoint_name(outputs, "combined_qkv_proj")
        query, key, value = outputs
        return (
            checkpoint_name(query, "query_proj"),
            checkpoint_name(key, "key_proj"),
            checkpoint_name(value, "value_proj"),
        )

    def extend_step(
        self, inputs: Float[Array, "*B D"], *, time_step: TimeStep
    ) -> tuple[Float[Array, "*B N H"], Float[Array, "*B N H"], Float[Array, "*B N H"]]:
        """Projects one decoding step, or several: as `__call__`."""
        del time_step
        return self(inputs)
