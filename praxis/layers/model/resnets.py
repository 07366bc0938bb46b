"""Residual networks for images."""

from collections.abc import Sequence
from typing import Any

import fiddle as fdl
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv_bn_act import ConvBNAct
from praxis.layers.model.image_stages import StagedNet
from praxis.layers.normalization.batch import BatchNorm
from praxis.layers.stochastics import StochasticResidual

WeightInit = base_layer.WeightInit
Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


_CONV = Config(
    ConvBNAct,
    batch_norm_tpl=Config(BatchNorm, decay=0.9),
    params_init=WeightInit.GaussianSqrtFanOut(1.4141),
)


class ResNetBlock(base_layer.BaseLayer):
    """Computes `activation(shortcut(x) + body(x))` with a bottleneck as body.

    The body is a 1x1 convolution to a quarter of the output channels, a kxk one with the stride,
    and a 1x1 one to the output channels. He et al., "Deep Residual Learning for Image Recognition",
    2015, arXiv:1512.03385, figure 5. Shapes: C is `input_dim`, F is `output_dim`.

    Attributes:
      input_dim: C, at least 1. Required.
      output_dim: F, at least 1; here a multiple of 4. Required.
      kernel_size: k, in pixels.
      stride: Of the block, in pixels. With a stride, or with C other than F, the shortcut is a 1x1
        convolution, and otherwise the inputs themselves.
      activation_tpl: Config of the nonlinearity of the sum.
      conv_params: Config of each convolution, which normalizes and activates too. Its shapes are
        filled in; the shortcut and the end of the body get no nonlinearity.
      residual_droppath_prob: Probability of dropping the body for an example, in training.
      zero_init_residual: Start with a body that is 0: the last batch normalization, which
        multiplies by 1 + gamma, starts with gamma = -1.

    Variables:
      body_0, body_1, ...: as in `conv_params`
      shortcut: as in `conv_params`, with a stride or if C is not F

    Raises:
      ValueError: during setup, if a size or a probability is out of range.
      NotImplementedError: during setup, for `zero_init_residual` without a batch normalization.
    """

    input_dim: int = 0
    output_dim: int = 0
    kernel_size: int = 3
    stride: int = 1
    activation_tpl: Config[activations.BaseActivation] = template_field(activations.ReLU)
    conv_params: LayerTpl = template_field(ConvBNAct)
    residual_droppath_prob: float = 0.0
    zero_init_residual: bool = False

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim", "kernel_size", "stride")
        if not 0.0 <= self.residual_droppath_prob < 1.0:
            raise ValueError(
                f"{self.path_text}: residual_droppath_prob is {self.residual_droppath_prob}, "
                "expected a probability of dropping, at least 0 and below 1."
            )
        body = self._body()
        identity = Config(activations.Identity)
        body[-1].activation_tpl = identity
        if self.zero_init_residual:
            if body[-1].batch_norm_tpl is None:
                raise NotImplementedError(
                    f"{self.path_text}: zero_init_residual = True needs a batch normalization to "
                    "start from 0, but conv_params.batch_norm_tpl is None. Set one of them."
                )
            body[-1].batch_norm_tpl.gamma_init = WeightInit.Constant(-1.0)
        self.create_children("body", body)
        if self.input_dim != self.output_dim or self.stride != 1:
            shortcut = self._conv(1, self.input_dim, self.output_dim, stride=self.stride)
            self.create_child("shortcut", shortcut.set(activation_tpl=identity.clone()))
        if self.residual_droppath_prob > 0.0:
            drop = Config(StochasticResidual, survival_prob=1.0 - self.residual_droppath_prob)
            self.create_child("residual_droppath", drop)
        self.create_child("postact", self.activation_tpl)

    def _conv(self, kernel_size: int, inputs: int, outputs: int, *, stride: int = 1) -> LayerTpl:
        """Config of a convolution of the block."""
        return self.conv_params.clone().set(
            filter_shape=(kernel_size, kernel_size, inputs, outputs),
            filter_stride=(stride, stride),
        )

    def _body(self) -> list[Any]:
        """Configs of the convolutions of the body."""
        if self.output_dim % 4:
            raise ValueError(
                f"{self.path_text}: output_dim is {self.output_dim}, expected a multiple of 4: the "
                "bottleneck has a quarter of the output channels."
            )
        width = self.output_dim // 4
        return [
            self._conv(1, self.input_dim, width),
            self._conv(self.kernel_size, width, width, stride=self.stride),
            self._conv(1, width, self.output_dim),
        ]

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H_ W_ F"]:
        """Applies the block to `inputs`, [B, H, W, C]; returns [B, H', W', F]."""
        outputs = inputs
        for layer in self.body:
            outputs = layer(outputs)
        if self.input_dim != self.output_dim or self.stride != 1:
            inputs = self.shortcut(inputs)
        if self.residual_droppath_prob > 0.0:
            outputs = self.residual_droppath(inputs, outputs)
        else:
            outputs = inputs + outputs
        return self.postact(outputs)


class ResNetBasicBlock(ResNetBlock):
    """`ResNetBlock` with two kxk convolutions as body, for networks that are not deep.

    Attributes:
      output_dim: F, at least 1. Required.

    Variables:
      body_0, body_1: as in `conv_params`
      shortcut: as in `ResNetBlock`

    Raises:
      ValueError: during setup, if a size or a probability is out of range.
      NotImplementedError: during setup, for `zero_init_residual` without a batch normalization.
    """

    def _body(self) -> list[Any]:
        return [
            self._conv(self.kernel_size, self.input_dim, self.output_dim, stride=self.stride),
            self._conv(self.kernel_size, self.output_dim, self.output_dim),
        ]


class ResNet(StagedNet):
    """Stages of residual blocks, each of them with its number of channels.

    He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385, table 1.
    Shapes: F is the number of channels of the last stage.

    Attributes:
      strides: Of the first block of each stage, in pixels.
      channels: Of each stage.
      blocks: Number of blocks in each stage.
      kernels: Size of the kernels in each stage, in pixels.
      entryflow_conv_stride: (height, width) of the steps of the first convolution, in pixels.
      output_spatial_pooling_params: Config of the pooling at the end; None leaves it out.
      conv_params: Config of each convolution, which normalizes and activates too, in the blocks
        as well. Its shapes are filled in.
      block_params: Config of each block. Its sizes, its stride and `conv_params` are filled in.
      entryflow_conv_kernel: (height, width, image channels) of the first convolution. It has as
        many output channels as the first bottleneck, or, when `block_params` is of a subclass of
        `ResNetBlock`, as the first stage.
      return_block_features: Return the features of each stage.
      entry_max_pool: Whether to take the maximum over 3x3 windows, with stride 2, after the first
        convolution.

    Variables:
      entryflow_conv: as in `conv_params`
      stage_0_block_0, stage_0_block_1, ...: as in `block_params`

    Raises:
      ValueError: during setup, if the lists of the stages do not have the same length, or a size
        is below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = pax_fiddle.build(ResNet.HParamsResNet5())
      >>> x = jnp.ones([2, 8, 8, 3])  # [B, H, W, C]
      >>> layer.apply(layer.init(jax.random.PRNGKey(0), x), x).shape
      (2, 16)
    """

    conv_params: LayerTpl = template_field(_CONV)
    block_params: LayerTpl = template_field(ResNetBlock)
    entryflow_conv_kernel: Sequence[int] = (7, 7, 3)
    return_block_features: bool = False
    entry_max_pool: bool = True

    @classmethod
    def HParamsResNet5(cls) -> Config:
        """One small bottleneck, for tests."""
        return Config(cls, strides=(1,), channels=(16,), blocks=(1,), kernels=(3,))

    @classmethod
    def HParamsResNet18(cls) -> Config:
        """ResNet-18, of basic blocks."""
        return cls._hparams_basic((2, 2, 2, 2))

    @classmethod
    def HParamsResNet34(cls) -> Config:
        """ResNet-34, of basic blocks."""
        return cls._hparams_basic((3, 4, 6, 3))

    @classmethod
    def HParamsResNet50(cls) -> Config:
        """ResNet-50."""
        return Config(cls, blocks=(3, 4, 6, 3))

    @classmethod
    def HParamsResNet56(cls) -> Config:
        """ResNet-50 with two more blocks in the third stage."""
        return Config(cls, blocks=(3, 4, 8, 3))

    @classmethod
    def HParamsResNet83(cls) -> Config:
        """ResNet-50 with eleven more blocks in the third stage."""
        return Config(cls, blocks=(3, 4, 17, 3))

    @classmethod
    def HParamsResNet101(cls) -> Config:
        """ResNet-101."""
        return Config(cls, blocks=(3, 4, 23, 3))

    @classmethod
    def HParamsResNet152(cls) -> Config:
        """ResNet-152."""
        return Config(cls, blocks=(3, 8, 36, 3))

    @classmethod
    def _hparams_basic(cls, blocks: Sequence[int]) -> Config:
        return Config(
            cls,
            channels=(64, 128, 256, 512),
            blocks=blocks,
            block_params=Config(ResNetBasicBlock),
        )

    def setup(self) -> None:
        # The class itself, without subclasses: checkpoints have these shapes.
        is_bottleneck = fdl.get_callable(self.block_params) is ResNetBlock
        self._create_layers(
            entry_conv=self.conv_params,
            entry_kernel=self.entryflow_conv_kernel,
            entry_channels=self.channels[0] // (4 if is_bottleneck else 1),
            block=self.block_params.clone().set(conv_params=self.conv_params.clone()),
        )

    def __call__(
        self, inputs: Float[Array, "B H W C"]
    ) -> Float[Array, " B *_"] | dict[int, Float[Array, "B _ _ _"]]:
        """Computes the features of images.

        Args:
          inputs: [B, H, W, C].

        Returns:
          [B, F], or [B, H', W', F] without pooling. With `return_block_features`, the features of
          stage i, [B, H_i, W_i, F_i], under the key i + 2, about the logarithm of H / H_i.
        """
        outputs = self.entryflow_conv(inputs)
        if self.entry_max_pool:
            outputs, _ = self.entryflow_maxpool(outputs)
        stages = self._run_stages(outputs)
        if self.return_block_features:
            return {2 + i: features for i, features in enumerate(stages)}
        return self._pool_output(stages[-1])
