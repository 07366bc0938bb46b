"""MobileNet V2, a network for images with few parameters."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv_bn_act import ConvBNAct
from praxis.layers.model.image_stages import SPATIAL_POOLING, check_stages
from praxis.layers.normalization.batch import BatchNorm
from praxis.layers.sequential import Sequential

Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


_CONV = Config(
    ConvBNAct, batch_norm_tpl=Config(BatchNorm, decay=0.9), activation_tpl=Config(activations.ReLU6)
)


def make_divisible(value: float, divisor: int, minimum: int | None = None) -> int:
    """Rounds to a multiple of `divisor` of at least `minimum`, and of at least 0.9 of the value.

    Args:
      value: A number of channels.
      divisor: What the result is a multiple of.
      minimum: None takes `divisor`.
    """
    least = divisor if minimum is None else minimum
    rounded = max(least, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _sized(conv: Any, kernel: Sequence[int], shape: Sequence[int], stride: Sequence[int]) -> Any:
    return conv.clone().set(filter_shape=(*kernel, *shape), filter_stride=tuple(stride))


class InvertedResidualBlock(base_layer.BaseLayer):
    """Widens with a 1x1 convolution, convolves each channel on its own, and narrows again.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
    arXiv:1801.04381, section 3.3. Shapes: C is `input_dim`, F is `output_dim`. With C = F and no
    stride the inputs are added.

    Attributes:
      input_dim: C, at least 1. Required.
      output_dim: F, at least 1. Required.
      kernel_size: Of the convolution of each channel, in pixels.
      stride: Of it, in pixels.
      expansion: Factor of the width inside; 1 leaves the first convolution out.
      activation_tpl: Config of the nonlinearity of the first two convolutions.
      conv_params: Config of each convolution. Its shapes and its nonlinearity are filled in.

    Variables:
      body/layers_0, body/layers_1, ...: as in `conv_params`

    Raises:
      ValueError: during setup, if a size is missing or below 1.
    """

    input_dim: int = 0
    output_dim: int = 0
    kernel_size: int = 3
    stride: int = 1
    expansion: int = 6
    activation_tpl: Config[activations.BaseActivation] = template_field(activations.ReLU6)
    conv_params: LayerTpl = template_field(_CONV)

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim", "kernel_size", "stride", "expansion")
        width = self.input_dim * self.expansion
        conv = self.conv_params.clone().set(activation_tpl=self.activation_tpl.clone())
        kernel, stride = (self.kernel_size,) * 2, (self.stride,) * 2
        layers = [
            _sized(conv, kernel, (1, width), stride).set(name="depthwise_conv"),
            _sized(conv, (1, 1), (width, self.output_dim), (1, 1)).set(
                name="project", activation_tpl=Config(activations.Identity)
            ),
        ]
        if self.expansion > 1:
            expand = _sized(conv, (1, 1), (self.input_dim, width), (1, 1))
            layers.insert(0, expand.set(name="expansion"))
        self.create_child("body", Config(Sequential, layers=layers))

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H_ W_ F"]:
        """Applies the block to `inputs`, [B, H, W, C]; returns [B, H', W', F]."""
        outputs = self.body(inputs)
        if self.input_dim == self.output_dim and self.stride == 1:
            outputs = outputs + inputs
        return outputs


class MobileNet(base_layer.BaseLayer):
    """A convolution, inverted residual blocks, a 1x1 convolution, a pooling, maybe a classifier.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
    arXiv:1801.04381, table 2.

    Attributes:
      conv_params: Config of the convolutions outside of the blocks. Their shapes are filled in.
      block_params: Config of each block. Its sizes are filled in.
      strides: Of each block, in pixels.
      channels: Of each block, before the multiplier.
      expansions: Of each block.
      entryflow_conv_kernel: (height, width, image channels) of the first convolution.
      entryflow_conv_stride: (height, width) of its steps, in pixels.
      multiplier: Factor of all channels; those at the end only grow.
      divisible_by: The channels are rounded to multiples of it.
      min_depth: Least number of channels.
      output_channels: Of the last convolution.
      output_spatial_pooling_params: Config of the pooling at the end; None leaves it out.
      num_classes: Number of classes to predict; 0 returns features.
      predict_params: Config of the classifier. Its sizes are filled in. The default has a ReLU, so
        its logits are not negative; set `activation_tpl` to Identity for others.

    Variables:
      body/layers_0, body/layers_1, ...: as in `conv_params`, `block_params` and `predict_params`

    Raises:
      ValueError: during setup, if the lists of the blocks do not have the same length, or a size
        is below 1.
    """

    conv_params: LayerTpl = template_field(_CONV)
    block_params: LayerTpl = template_field(InvertedResidualBlock)
    strides: Sequence[int] = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
    channels: Sequence[int] = (
        *(16, 24, 24, 32, 32, 32, 64, 64, 64, 64),
        *(96, 96, 96, 160, 160, 160, 320),
    )
    expansions: Sequence[int] = (1, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
    entryflow_conv_kernel: Sequence[int] = (3, 3, 3)
    entryflow_conv_stride: Sequence[int] = (2, 2)
    multiplier: float = 1.0
    divisible_by: int = 8
    min_depth: int = 8
    output_channels: int = 1280
    output_spatial_pooling_params: LayerTpl | None = template_field(SPATIAL_POOLING)
    num_classes: int = 0
    predict_params: LayerTpl = template_field(linears.FeedForward)

    def setup(self) -> None:
        check_stages(self, ("strides", "channels", "expansions"))
        check_sizes(self, "divisible_by", "min_depth", "output_channels")
        width = self._scaled(32)
        entry = _sized(
            self.conv_params, self.entryflow_conv_kernel, (width,), self.entryflow_conv_stride
        )
        layers = [entry.set(name="entryflow_conv")]
        blocks = zip(self.channels, self.strides, self.expansions, strict=True)
        for i, (channels, stride, expansion) in enumerate(blocks):
            block = self.block_params.clone().set(
                name=f"block_{i}",
                input_dim=width,
                output_dim=self._scaled(channels),
                stride=stride,
                expansion=expansion,
            )
            layers.append(block)
            width = self._scaled(channels)
        outputs = self.output_channels
        if self.multiplier > 1.0:
            outputs = self._scaled(outputs)
        final = _sized(self.conv_params, (1, 1), (width, outputs), (1, 1))
        layers.append(final.set(name="final_conv"))
        if self.output_spatial_pooling_params is not None:
            pooling = self.output_spatial_pooling_params.clone()
            layers.append(pooling.set(name="output_spatial_pooling"))
        if self.num_classes:
            predict = self.predict_params.clone().set(
                name="predictions", input_dims=outputs, output_dims=self.num_classes
            )
            layers.append(predict)
        self.create_child("body", Config(Sequential, layers=layers))

    def _scaled(self, channels: int) -> int:
        return make_divisible(channels * self.multiplier, self.divisible_by, self.min_depth)

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, " B *_"]:
        """Computes features or logits of images, [B, H, W, C]; returns [B, F] with the pooling."""
        return self.body(inputs)
