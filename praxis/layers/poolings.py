"""Maxima and means over windows of images or sequences, and over whole axes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num, Shaped

from praxis import base_layer, py_utils
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.padding import same_output_paddings

POOLING_TYPES = ("MAX", "AVG")
PADDINGS = ("SAME", "VALID")


def lowest(dtype: Any) -> np.ndarray:
    """The neutral element of the maximum: -inf, or the smallest integer."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return np.asarray(-np.inf if is_float else jnp.iinfo(dtype).min, dtype)


def max_pool(
    inputs: Num[Array, "..."],
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
) -> Num[Array, "..."]:
    """The largest element of each window.

    Args:
      inputs: [...].
      window: Size along each axis.
      strides: Step along each axis.
      padding: "SAME", as XLA understands it, or "VALID".
    """
    window, strides = tuple(window), tuple(strides)
    return lax.reduce_window(inputs, lowest(inputs.dtype), lax.max, window, strides, padding)


def mean_pool(
    inputs: Num[Array, "..."],
    valid: Num[Array, "..."],
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
) -> Float[Array, "..."]:
    """The mean over the valid elements of each window, 0 without any; in float32 at least.

    Args:
      inputs: [...].
      valid: Broadcasts to the inputs; 1 for elements that count, 0 for the others.
      window: Size along each axis.
      strides: Step along each axis.
      padding: "SAME", as XLA understands it, or "VALID".
    """
    dtype = jnp.promote_types(inputs.dtype, jnp.float32)

    def window_sum(x: Num[Array, "..."]) -> Float[Array, "..."]:
        zero, x = np.zeros([], dtype), x.astype(dtype)
        return lax.reduce_window(x, zero, lax.add, tuple(window), tuple(strides), padding)

    valid = jnp.broadcast_to(valid, inputs.shape)
    total = window_sum(jnp.where(valid > 0, inputs, jnp.zeros_like(inputs)))
    return total / jnp.maximum(window_sum(valid), 1.0)


def _check_choice(layer: base_layer.BaseLayer, field: str, choices: Sequence[str]) -> None:
    value = getattr(layer, field)
    if value not in choices:
        raise ValueError(f"{layer.path_text}: {field} is {value!r}, expected one of {choices}.")


def _check_inputs(layer: base_layer.BaseLayer, inputs: Array, shape: str, rank: int) -> None:
    """Refuses inputs of another rank, or of no numbers.

    Raises:
      ValueError: naming the layer, and the shape or the dtype.
    """
    is_number = any(jnp.issubdtype(inputs.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not is_number:
        raise ValueError(
            f"{layer.path_text}: inputs have dtype {inputs.dtype}, expected a floating or integer "
            "one."
        )
    if inputs.ndim < rank:
        raise ValueError(f"{layer.path_text}: inputs have shape {inputs.shape}, expected {shape}.")


def _align_paddings(
    layer: base_layer.BaseLayer, inputs: Array, paddings: Shaped[Array, "B T"]
) -> Shaped[Array, "B T *_"]:
    """Gives paddings of the first two axes the rank of the inputs.

    Raises:
      ValueError: if they do not have these axes.
    """
    if paddings.shape != inputs.shape[:2]:
        raise ValueError(
            f"{layer.path_text}: paddings have shape {paddings.shape}, inputs have shape "
            f"{inputs.shape}; expected paddings of shape {inputs.shape[:2]}."
        )
    return paddings.reshape(paddings.shape + (1,) * (inputs.ndim - 2))


def _result_dtype(dtype: Any) -> Any:
    """Dtype of a mean: that of floating inputs, float32 for integers."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


class Pooling(base_layer.BaseLayer):
    """The maximum or the mean over windows of images.

    Shapes: H and W are the height and the width of the inputs, C their channels.

    Attributes:
      window_shape: (height, width) of a window, in pixels. Required.
      window_stride: (height, width) of a step, in pixels. Required.
      pooling_type: "MAX" or "AVG".
      padding: "SAME", as XLA understands it, or "VALID". What is added counts in no mean.

    Raises:
      ValueError: during setup, if a shape is missing or a choice unknown; in `__call__`, if the
        inputs are no images, or no numbers, or the paddings do not fit.
    """

    window_shape: Sequence[int] = (0, 0)
    window_stride: Sequence[int] = (0, 0)
    pooling_type: str = "MAX"
    padding: str = "SAME"

    def setup(self) -> None:
        for field in ("window_shape", "window_stride"):
            value = tuple(getattr(self, field))
            if len(value) != 2 or min(value) < 1:
                raise ValueError(
                    f"{self.path_text}: {field} is {value}, expected 2 sizes of at least 1, "
                    "(height, width). Set it in the config."
                )
        _check_choice(self, "pooling_type", POOLING_TYPES)
        _check_choice(self, "padding", PADDINGS)

    def __call__(
        self, inputs: Num[Array, "..."], paddings: Shaped[Array, "..."] | None = None
    ) -> tuple[Num[Array, "B H_ W_ C"], Shaped[Array, "B H_"] | None]:
        """Pools images.

        Args:
          inputs: [B, H, W, C], floating or integer.
          paddings: [B, H], for sequences whose height is time; 1 marks padding, which enters no
            maximum and no mean.

        Returns:
          Outputs [B, H', W', C], in the dtype of the inputs (float32 for the mean of integers); and
          their paddings [B, H'], or None. With a stride of 1 and padding "SAME" the paddings stay
          as they are, otherwise an output whose window meets padding is padding. Padded outputs are
          0.
        """
        _check_inputs(self, inputs, "[B, H, W, C]", 4)
        geometry = {
            "window": (1, *self.window_shape, 1),
            "strides": (1, *self.window_stride, 1),
            "padding": self.padding,
        }
        padded = None if paddings is None else _align_paddings(self, inputs, paddings)
        if self.pooling_type == "MAX":
            if padded is not None:
                inputs = jnp.where(padded > 0, jnp.asarray(lowest(inputs.dtype)), inputs)
            outputs = max_pool(inputs, **geometry)
        else:
            valid = jnp.ones_like(inputs) if padded is None else 1 - padded
            outputs = mean_pool(inputs, valid, **geometry).astype(_result_dtype(inputs.dtype))
        if paddings is None:
            return outputs, None
        if self.padding == "VALID" or self.window_stride[0] > 1:
            window, stride = self.window_shape[0], self.window_stride[0]
            paddings = max_pool(
                paddings, window=(1, window), strides=(1, stride), padding=self.padding
            )
        # A select, since a window of padding alone has the maximum -inf.
        return py_utils.apply_padding(outputs, paddings, axis=0), paddings


class GlobalPooling(base_layer.BaseLayer):
    """The maximum or the mean over whole axes.

    Attributes:
      pooling_type: "AVG" or "MAX".
      pooling_dims: The axes, counted from 0. Required.
      keepdims: Whether the axes stay, with size 1.

    Raises:
      ValueError: during setup, if the axes are missing or negative, or the type is unknown; in
        `__call__`, if the inputs have no such axes, or the paddings do not fit.
    """

    pooling_type: str = "AVG"
    pooling_dims: Sequence[int] | None = None
    keepdims: bool = False

    def setup(self) -> None:
        _check_choice(self, "pooling_type", POOLING_TYPES)
        if not self.pooling_dims or min(self.pooling_dims) < 0:
            raise ValueError(
                f"{self.path_text}: pooling_dims is {self.pooling_dims}, expected a list of axes, "
                "counted from 0. Set it in the config, e.g. config.pooling_dims = [1, 2] for "
                "images [B, H, W, C]."
            )

    def __call__(
        self,
        inputs: Num[Array, "..."],
        epsilon: float = 1e-8,
        compatible_paddings: Shaped[Array, "..."] | None = None,
    ) -> Num[Array, "..."]:
        """Pools over `pooling_dims`.

        Args:
          inputs: [...], floating or integer.
          epsilon: Added to the number of elements of a mean with paddings.
          compatible_paddings: Of the rank of the inputs, with their sizes on the pooled axes and
            those or 1 elsewhere; 1 marks padding, which does not count. None: all counts.

        Returns:
          [...], without the pooled axes or with size 1 there, in the dtype of the inputs. Where all
          is padding, the mean is 0 and the maximum -inf or the smallest integer.
        """
        assert self.pooling_dims is not None  # checked in setup
        axes = tuple(self.pooling_dims)
        _check_inputs(self, inputs, f"at least {max(axes) + 1} axes", max(axes) + 1)
        dtype = inputs.dtype
        if self.pooling_type == "MAX":
            if compatible_paddings is not None:
                self._check_paddings(inputs, compatible_paddings, axes)
                is_padded = compatible_paddings > 0
                inputs = jnp.where(is_padded, jnp.asarray(lowest(dtype)), inputs)
            return jnp.max(inputs, axis=axes, keepdims=self.keepdims)
        wide = inputs.astype(jnp.promote_types(dtype, jnp.float32))
        if compatible_paddings is None:
            return jnp.mean(wide, axis=axes, keepdims=self.keepdims).astype(dtype)
        self._check_paddings(inputs, compatible_paddings, axes)
        total = jnp.sum(py_utils.apply_padding(wide, compatible_paddings), axes, keepdims=True)
        valid = 1 - compatible_paddings.astype(wide.dtype)
        outputs = (total / (jnp.sum(valid, axes, keepdims=True) + epsilon)).astype(dtype)
        return outputs if self.keepdims else jnp.squeeze(outputs, axes)

    def _check_paddings(self, inputs: Array, paddings: Array, axes: tuple[int, ...]) -> None:
        fits = paddings.ndim == inputs.ndim and all(
            have == full or (have == 1 and axis not in axes)
            for axis, (have, full) in enumerate(zip(paddings.shape, inputs.shape, strict=True))
        )
        if not fits:
            raise ValueError(
                f"{self.path_text}: compatible_paddings have shape {paddings.shape}, inputs have "
                f"shape {inputs.shape}; expected the same rank, the same sizes on pooling_dims = "
                f"{axes}, and the same or 1 elsewhere."
            )


class Pooling1D(base_layer.BaseLayer):
    """The maximum or the mean over windows of sequences, padded as "SAME".

    Attributes:
      window: Length of a window, in frames; 0 takes `stride`.
      stride: Length of a step, in frames, at least 1.
      pooling_type: "AVG" or "MAX".

    Raises:
      ValueError: during setup, if a size or the type is out of range; in `__call__`, if the inputs
        are no sequences of numbers, or the paddings do not fit.
    """

    window: int = 0
    stride: int = 1
    pooling_type: str = "AVG"

    def setup(self) -> None:
        _check_choice(self, "pooling_type", POOLING_TYPES)
        check_sizes(self, "stride")
        if self.window < 0:
            raise ValueError(
                f"{self.path_text}: window is {self.window}, expected at least 1, or 0 for that of "
                "the stride."
            )

    def __call__(
        self, inputs: Num[Array, "B T *D"], paddings: Shaped[Array, "..."] | None = None
    ) -> tuple[Num[Array, "B T_ *D"], Shaped[Array, "B T_"] | None]:
        """Pools over time.

        Args:
          inputs: [B, T, ...], floating or integer.
          paddings: [B, T], 1 marks padding, which enters no maximum and no mean of more than one
            frame.

        Returns:
          Outputs [B, T', ...] with T' = ceil(T / stride), in the dtype of the inputs (float32 for
          the mean of integers); and their paddings [B, T'], or None: output i is padding if frame
          i * stride is. Padded maxima are 0; a mean over padding alone is 0.
        """
        _check_inputs(self, inputs, "[B, T, ...]", 2)
        padded = None if paddings is None else _align_paddings(self, inputs, paddings)
        window = self.window or self.stride
        if paddings is not None:
            paddings = same_output_paddings(paddings, self.stride)
        if window == 1:
            return inputs[:, :: self.stride], paddings
        others = (1,) * (inputs.ndim - 2)
        geometry = {
            "window": (1, window, *others),
            "strides": (1, self.stride, *others),
            "padding": "SAME",
        }
        if self.pooling_type == "AVG":
            valid = jnp.ones_like(inputs) if padded is None else 1 - padded
            outputs = mean_pool(inputs, valid, **geometry)
            return outputs.astype(_result_dtype(inputs.dtype)), paddings
        if padded is None or paddings is None:
            return max_pool(inputs, **geometry), paddings
        inputs = jnp.where(padded > 0, jnp.asarray(lowest(inputs.dtype)), inputs)
        outputs = max_pool(inputs, **geometry)
        return py_utils.apply_padding(outputs, paddings, axis=0), paddings
