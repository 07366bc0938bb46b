"""Downsampling of video that keeps it smooth, and the block of the discriminator around it."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv import Conv3D
from praxis.layers.video.checks import check_video

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field
LEAKY_RELU = pax_fiddle.Config(activations.LeakyReLU, negative_slope=0.2)


def binomial_kernel(size: int) -> Float[np.ndarray, "K K K"]:
    """Products of binomial coefficients in three directions; they sum to 1."""
    row = np.array([math.comb(size - 1, k) for k in range(size)]) / 2.0 ** (size - 1)
    return functools.reduce(np.multiply.outer, (row, row, row))


class BlurPool3D(base_layer.BaseLayer):
    """Blurs each channel with a binomial filter, then drops frames and pixels.

    Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019, arXiv:1904.11486.

    Attributes:
      filter_size: Frames, rows and columns that the filter covers, 2 to 7.
      strides: Step in frames, rows and columns.
      padding: "SAME" or "VALID", as XLA understands them.

    Raises:
      ValueError: during setup, if a field is out of range; in `__call__`, for another rank.
    """

    filter_size: int = 3
    strides: tuple[int, int, int] = (2, 2, 2)
    padding: str = "SAME"

    def setup(self) -> None:
        if not 2 <= self.filter_size <= 7:
            raise ValueError(
                f"{self.path_text}: filter_size is {self.filter_size}, expected 2 to 7."
            )
        if len(self.strides) != 3 or min(self.strides) < 1:
            raise ValueError(
                f"{self.path_text}: strides is {self.strides}, expected 3 steps of at least 1, for "
                "frames, rows and columns."
            )
        if self.padding not in ("SAME", "VALID"):
            raise ValueError(
                f"{self.path_text}: padding is {self.padding!r}, expected 'SAME' or 'VALID'."
            )

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B T_ H_ W_ C"]:
        """Blurs and downsamples `inputs`, [B, T, H, W, C]; returns [B, T', H', W', C]."""
        if inputs.ndim != 5:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, T, H, W, C]."
            )
        inputs, channels = self._cast_to_fprop_dtype(inputs), inputs.shape[-1]
        kernel = jnp.asarray(binomial_kernel(self.filter_size), inputs.dtype)
        return lax.conv_general_dilated(
            inputs,
            jnp.tile(kernel[..., jnp.newaxis, jnp.newaxis], channels),
            window_strides=tuple(self.strides),
            padding=self.padding,
            dimension_numbers=("NTHWC", "THWIO", "NTHWC"),
            feature_group_count=channels,
        )


class DiscriminatorResBlock(base_layer.BaseLayer):
    """Halves frames, rows and columns: convolutions plus a residual path, over the root of 2.

    Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2019, arXiv:1912.04958,
    in three dimensions: `(act(conv(pool(act(conv(x))))) + conv(pool(x))) / sqrt(2)`. Shapes: D is
    `input_dim`, F is `output_dim`.

    Attributes:
      input_dim: D, at least 1. Required.
      output_dim: F.
      blur_filter_size: Size of the filter before frames and pixels are dropped.
      conv_layer_tpl: Config of the convolutions. Their shapes and strides are filled in.
      activation_tpl: Config of the nonlinearity.
      blur_pool_tpl: Config of the downsampling. The size of its filter is filled in.

    Variables:
      conv_0/w: [3, 3, 3, D, F]
      conv_1/w: [3, 3, 3, F, F]
      conv_residual/w: [1, 1, 1, D, F]

    Raises:
      ValueError: during setup, if a size is missing; in `__call__`, if the inputs do not have D
        channels.
    """

    input_dim: int = 0
    output_dim: int = 128
    blur_filter_size: int = 3
    conv_layer_tpl: LayerTpl = template_field(Conv3D)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(LEAKY_RELU)
    blur_pool_tpl: LayerTpl = template_field(BlurPool3D)

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim")
        for name, size, width in (
            ("conv_0", 3, self.input_dim),
            ("conv_1", 3, self.output_dim),
            ("conv_residual", 1, self.input_dim),
        ):
            conv = self.conv_layer_tpl.clone().set(
                filter_shape=(size, size, size, width, self.output_dim), filter_stride=(1, 1, 1)
            )
            self.create_child(name, conv)
        self.create_child("activation", self.activation_tpl)
        self.create_child(
            "blur_pool", self.blur_pool_tpl.clone().set(filter_size=self.blur_filter_size)
        )

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B T_ H_ W_ F"]:
        """Transforms `inputs`, [B, T, H, W, D]; returns [B, ceil(T / 2), ceil(H / 2), ..., F]."""
        check_video(self, inputs, "input_dim")
        inputs = self._cast_to_fprop_dtype(inputs)
        outputs = self.blur_pool(self.activation(self.conv_0(inputs)))
        outputs = self.activation(self.conv_1(outputs))
        return (outputs + self.conv_residual(self.blur_pool(inputs))) / math.sqrt(2.0)
