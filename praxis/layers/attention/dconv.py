"""Causal depthwise convolution over time, for queries, keys and values."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from praxis import base_layer
from praxis.layers.attention.blocks import shift_1d
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_sizes

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams


class CausalDepthwiseConv1D(base_layer.BaseLayer):
    """Computes `y_t = sum_i x_{t - i} * dconv_i` over time, for each feature on its own.

    So et al., "Primer: Searching for Efficient Transformers for Language Modeling", 2021,
    arXiv:2109.08668. Shapes: k is `kernel_size`.

    Attributes:
      kernel_size: k, at least 1.
      hidden_dims: Shape of the features, which come after time: a width, or e.g. heads and their
        width. Required.

    Variables:
      dconv_0, ..., dconv_{k - 1}: of the shape of the features; sharded as
        `weight_split_dims_mapping.wt`. The first starts as 0.5, the others as 0.5 / k.

    Raises:
      ValueError: during setup, if a size is below 1; in calls, if the inputs do not end with the
        features.
    """

    kernel_size: int = 3
    hidden_dims: int | Sequence[int] = 0

    @property
    def _features(self) -> tuple[int, ...]:
        dims = self.hidden_dims
        return (dims,) if isinstance(dims, int) else tuple(dims)

    def setup(self) -> None:
        check_sizes(self, "kernel_size")
        if not self._features or min(self._features) < 1:
            raise ValueError(
                f"{self.path_text}: hidden_dims is {self.hidden_dims}, expected at least 1. "
                "Set it in the config, e.g. config.hidden_dims = 512."
            )
        for i in range(self.kernel_size):
            self.create_variable(
                f"dconv_{i}",
                WeightHParams(
                    shape=self._features,
                    init=WeightInit.Constant(0.5 if i == 0 else 0.5 / self.kernel_size),
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
                ),
            )

    def _taps(self) -> list[Float[Array, "..."]]:
        return [getattr(self.theta, f"dconv_{i}") for i in range(self.kernel_size)]

    def __call__(
        self,
        inputs: Float[Array, " B *D"],
        axis: int,
        segment_pos: Int[Array, "_ T"] | None = None,
    ) -> Float[Array, " B *D"]:
        """Convolves along an axis; what is before the start counts as 0.

        Args:
          inputs: [B, T, ...], or with time on another axis, ending with the features.
          axis: That of time.
          segment_pos: [B, T], position in the segment: nothing before its start is read. None:
            each row is one segment.

        Returns:
          Of the shape of the inputs.
        """
        axis = self._check_axis(inputs, axis)
        outputs = jnp.zeros_like(inputs)
        for i, tap in enumerate(self._taps()):
            term = shift_1d(inputs, i, axis) * _at_end(tap, inputs.ndim)
            if segment_pos is not None and i > 0:
                shape = [1] * inputs.ndim
                shape[0], shape[axis] = segment_pos.shape
                term = jnp.where((segment_pos >= i).reshape(shape), term, jnp.zeros_like(term))
            outputs += term
        return outputs

    def extend_step(
        self,
        inputs: Float[Array, " B *D"],
        axis: int,
        step: TimeStep,
        segment_pos: Int[Array, " B"] | None,
    ) -> Float[Array, " B *_"]:
        """The value at one step.

        Args:
          inputs: [B, T, ...], as in `__call__`, known up to `step`. Only k steps are read.
          axis: That of time.
          step: Index on that axis.
          segment_pos: [B], position of the step in its segment; None: `step`.

        Returns:
          [B, ...], without the axis of time.
        """
        axis = self._check_axis(inputs, axis)
        position = jnp.asarray(step if segment_pos is None else segment_pos)
        outputs = None
        for i, tap in enumerate(self._taps()):
            index = jnp.maximum(step - i, 0)
            term = lax.dynamic_index_in_dim(inputs, index, axis, keepdims=False)
            term = term * _at_end(tap, term.ndim)
            if i > 0:
                # Also by the index: a segment cannot start before the row.
                within = (position >= i) & (jnp.asarray(step) >= i)
                within = within.reshape(*within.shape, *(1,) * (term.ndim - within.ndim))
                within = jnp.broadcast_to(within, term.shape)
                term = jnp.where(within, term, jnp.zeros_like(term))
            outputs = term if outputs is None else outputs + term
        assert outputs is not None  # kernel_size is at least 1
        return outputs

    def _check_axis(self, inputs: Float[Array, "..."], axis: int) -> int:
        """The axis of time counted from 0; refuses inputs that do not fit."""
        features = self._features
        first = inputs.ndim - len(features)
        from_zero = axis + inputs.ndim if axis < 0 else axis
        if inputs.shape[first:] != features or not 0 < from_zero < first:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape} with time on axis {axis}, "
                f"expected [B, T, ...] that ends with hidden_dims = {features}."
            )
        return from_zero


def _at_end(x: Float[Array, "..."], ndim: int) -> Float[Array, "..."]:
    """Adds axes of size 1 in front, up to a rank."""
    return jnp.expand_dims(x, range(ndim - x.ndim))
