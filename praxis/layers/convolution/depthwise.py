"""Convolution over time of each channel on its own."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers.convolution.conv import zeros_init
from praxis.layers.convolution.padding import causal_padding
from praxis.utils.broadcasting import expand_rank

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
SplitDimsMapping = base_layer.SplitDimsMapping
template_field = base_layer.template_field


class BaseDepthwiseConv1D(base_layer.BaseLayer):
    """Base of convolutions over time of each channel on its own.

    Attributes:
      filter_shape: (k, C, multiplier): the size of the kernel, in frames; the channels of the
        inputs; and the channels that each of them gives. Required.
      bias: Whether to add `b`.
      bias_init: Initializer of `b`.
      is_causal: Whether no output sees later frames.
      use_2d_conv_weight_shape: Give `w` a fourth axis, of size 1, as in checkpoints of a
        two-dimensional convolution.
      rhs_dilation_rate: Distance of the inputs that the kernel meets, in frames.
    """

    filter_shape: Sequence[int] = (0, 0, 0)
    bias: bool = False
    bias_init: WeightInit = zeros_init()
    is_causal: bool = False
    use_2d_conv_weight_shape: bool = False
    rhs_dilation_rate: int = 1

    def __call__(
        self, inputs: Float[Array, "B T C"], paddings: Shaped[Array, "B T"] | None = None
    ) -> Float[Array, "B T _"]:
        """Convolves over time.

        Args:
          inputs: [B, T, C].
          paddings: [B, T], 1 marks padding, which is zeroed first.

        Returns:
          [B, T, C * multiplier].
        """
        raise NotImplementedError(
            f"{self.path_text} does not define __call__; use a subclass such as "
            "convolutions.DepthwiseConv1D."
        )


class DepthwiseConv1D(BaseDepthwiseConv1D):
    """Convolves over time each channel on its own, and keeps the number of frames.

    Shapes: C is the number of input channels, F = C * multiplier that of the output channels; k is
    the size of the kernel.

    Attributes:
      filter_shape: (k, C, multiplier). Required.
      bias: Whether to add `b`.
      bias_init: Initializer of `b`.
      is_causal: Whether no output sees later frames.
      use_2d_conv_weight_shape: Give `w` a fourth axis, of size 1, as in checkpoints of a
        two-dimensional convolution.
      rhs_dilation_rate: Distance of the inputs that the kernel meets, in frames.

    Variables:
      w: [k, 1, F], or [k, 1, F, 1], sharded with `weight_split_dims_mapping.him`
      b: [F], with `bias`

    Raises:
      ValueError: during setup, if a size is missing or below 1; in `__call__`, if the channels or
        the paddings do not fit.
    """

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          him: Of `w`: height (time), input channels of a group, output channels.
        """

        him: SplitDimsMapping = None

    weight_split_dims_mapping: pax_fiddle.Config[WeightSharding] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        template_field(WeightSharding)
    )

    def setup(self) -> None:
        shape = tuple(self.filter_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(
                f"{self.path_text}: filter_shape is {shape}, expected 3 sizes of at least 1, "
                "(kernel size, channels, multiplier). Set it in the config."
            )
        if self.rhs_dilation_rate < 1:
            raise ValueError(
                f"{self.path_text}: rhs_dilation_rate is {self.rhs_dilation_rate}, expected at "
                "least 1."
            )
        kernel_size, channels, multiplier = shape
        weight_shape = [kernel_size, 1, channels * multiplier]
        mapping = self.weight_split_dims_mapping.him
        bias_mapping = None if mapping is None else [mapping[-1]]
        if self.use_2d_conv_weight_shape:
            weight_shape.append(1)
            mapping = None if mapping is None else [*mapping, None]
        self.create_variable(
            "w",
            WeightHParams(
                shape=weight_shape,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=mapping,
            ),
        )
        if self.bias:
            self.create_variable(
                "b",
                WeightHParams(
                    shape=[channels * multiplier],
                    init=self.bias_init,
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=bias_mapping,
                ),
            )

    def get_w(self) -> Float[Array, "_ 1 F"]:
        """The kernel, [k, 1, F], whatever shape the variable has."""
        weight = self.theta.w
        return jnp.squeeze(weight, -1) if self.use_2d_conv_weight_shape else weight

    def __call__(
        self, inputs: Float[Array, "B T C"], paddings: Shaped[Array, "B T"] | None = None
    ) -> Float[Array, "B T _"]:
        kernel_size, channels, _ = self.filter_shape
        if inputs.ndim != 3 or inputs.shape[-1] != channels:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, T, C] with C = "
                f"filter_shape[1] = {channels}."
            )
        if paddings is not None:
            if paddings.shape != inputs.shape[:2]:
                raise ValueError(
                    f"{self.path_text}: paddings have shape {paddings.shape}, inputs have shape "
                    f"{inputs.shape}; expected paddings [B, T] = {inputs.shape[:2]}."
                )
            inputs = py_utils.apply_padding(inputs, paddings, axis=0)
        before = causal_padding(kernel_size, self.rhs_dilation_rate)
        outputs = lax.conv_general_dilated(
            self._cast_to_fprop_dtype(inputs),
            self.get_w(),
            window_strides=(1,),
            padding=[(before, 0)] if self.is_causal else "SAME",
            rhs_dilation=(self.rhs_dilation_rate,),
            dimension_numbers=("NTC", "TIO", "NTC"),
            feature_group_count=channels,
        )
        return outputs + expand_rank(self.theta.b, outputs.ndim) if self.bias else outputs
