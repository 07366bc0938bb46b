"""Deep networks for images without shortcuts and without normalization."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv import Conv2D
from praxis.layers.model.image_stages import StagedNet

WeightInit = base_layer.WeightInit
Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


_CONV = Config(Conv2D, bias=True, params_init=WeightInit.ScaledDeltaOrthogonal(1.0))


def tailored_lrelu(negative_slope: float, x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """`sqrt(2 / (1 + a^2)) * leaky_relu(x, a)`, which keeps the variance of normal inputs.

    Zhang et al., "Deep Learning without Shortcuts: Shaping the Kernel with Tailored Rectifiers",
    2022, arXiv:2203.08120.

    Args:
      negative_slope: a.
      x: [...].
    """
    scale = jnp.asarray(np.sqrt(2.0 / (1.0 + negative_slope**2)), x.dtype)
    return scale * jax.nn.leaky_relu(x, negative_slope)


class VanillaBlock(base_layer.BaseLayer):
    """A bottleneck without shortcut: three convolutions, each followed by `tailored_lrelu`.

    Shapes: C is `input_dim`, F is `output_dim`.

    Attributes:
      input_dim: C, at least 1. Required.
      output_dim: F, a multiple of 4. Required.
      kernel_size: Of the middle convolution, in pixels.
      stride: Of it, in pixels.
      conv_params: Config of each convolution. Its shapes are filled in.
      negative_slope: Of the nonlinearity.

    Variables:
      body_0, body_1, body_2: as in `conv_params`

    Raises:
      ValueError: during setup, if a size is missing, below 1 or no multiple of 4.
    """

    input_dim: int = 0
    output_dim: int = 0
    kernel_size: int = 3
    stride: int = 1
    conv_params: LayerTpl = template_field(_CONV)
    negative_slope: float = 0.4

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim", "kernel_size", "stride")
        if self.output_dim % 4:
            raise ValueError(
                f"{self.path_text}: output_dim is {self.output_dim}, expected a multiple of 4: the "
                "bottleneck has a quarter of the output channels."
            )
        width = self.output_dim // 4
        sizes = [
            (1, self.input_dim, width, 1),
            (self.kernel_size, width, width, self.stride),
            (1, width, self.output_dim, 1),
        ]
        body: list[Any] = [
            self.conv_params.clone().set(
                filter_shape=(kernel, kernel, inputs, outputs), filter_stride=(stride, stride)
            )
            for kernel, inputs, outputs, stride in sizes
        ]
        self.create_children("body", body)

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H_ W_ F"]:
        """Applies the block to `inputs`, [B, H, W, C]; returns [B, H', W', F]."""
        for layer in self.body:
            inputs = tailored_lrelu(self.negative_slope, layer(inputs))
        return inputs


class VanillaNet(StagedNet):
    """Stages of plain bottlenecks: a ResNet without shortcuts and without normalization.

    Attributes:
      strides: Of the first block of each stage, in pixels.
      channels: Of each stage.
      blocks: Number of blocks in each stage.
      kernels: Size of the kernels in each stage, in pixels.
      entryflow_conv_stride: (height, width) of the steps of the first convolution, in pixels.
      output_spatial_pooling_params: Config of the pooling at the end; None leaves it out.
      conv_params: Config of each convolution, in the blocks as well. Its shapes are filled in.
      block_params: Config of each block. Its sizes, `conv_params` and `negative_slope` are filled
        in.
      entryflow_conv_kernel: (height, width) of the first convolution, of images of 3 channels.
      negative_slope: Of the nonlinearity.

    Variables:
      entryflow_conv: as in `conv_params`
      stage_0_block_0, stage_0_block_1, ...: as in `block_params`

    Raises:
      ValueError: during setup, if the lists of the stages do not have the same length, or a size
        is below 1.
    """

    conv_params: LayerTpl = template_field(_CONV)
    block_params: LayerTpl = template_field(VanillaBlock)
    entryflow_conv_kernel: Sequence[int] = (7, 7)
    negative_slope: float = 0.4

    @classmethod
    def HParamsVanillaNet5(cls) -> Config:
        """One small bottleneck, for tests."""
        return Config(cls, strides=(1,), channels=(16,), blocks=(1,), kernels=(3,))

    @classmethod
    def HParamsVanillaNet50(cls) -> Config:
        """As deep as ResNet-50."""
        return Config(cls, blocks=(3, 4, 6, 3))

    @classmethod
    def HParamsVanillaNet101(cls) -> Config:
        """As deep as ResNet-101."""
        return Config(cls, blocks=(3, 4, 23, 3))

    @classmethod
    def HParamsVanillaNet152(cls) -> Config:
        """As deep as ResNet-152."""
        return Config(cls, blocks=(3, 8, 36, 3))

    def setup(self) -> None:
        block = self.block_params.clone().set(
            conv_params=self.conv_params.clone(), negative_slope=self.negative_slope
        )
        self._create_layers(
            entry_conv=self.conv_params,
            entry_kernel=(*self.entryflow_conv_kernel, 3),
            entry_channels=self.channels[0] // 4,
            block=block,
        )

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, " B *_"]:
        """Computes features of images, [B, H, W, 3]; returns [B, F] with the pooling."""
        outputs = tailored_lrelu(self.negative_slope, self.entryflow_conv(inputs))
        outputs, _ = self.entryflow_maxpool(outputs)
        return self._pool_output(self._run_stages(outputs)[-1])
