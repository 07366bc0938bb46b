"""The convolution module of the Conformer."""

import math

import jax
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.convolution.depthwise import DepthwiseConv1D
from praxis.layers.normalization.batch import BatchNorm
from praxis.layers.normalization.layer import LayerNorm
from praxis.layers.stochastics import Dropout

WeightInit = base_layer.WeightInit
SplitDimsMapping = base_layer.SplitDimsMapping
Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


_LINEAR = Config(
    linears.FeedForward,
    activation_tpl=Config(activations.Identity),
    params_init=WeightInit.Xavier(math.sqrt(1.5)),
)


class LightConv1D(base_layer.BaseLayer):
    """Adds to its inputs what a gated linear layer and a depthwise convolution make of them.

    With `z = layer_norm(x)`, `z = z @ w_act * sigmoid(z @ w_gated)` (both with a bias), the result
    is `x + linear(act(norm(depthwise_conv(z))))`. Gulati et al., "Conformer: Convolution-augmented
    Transformer for Speech Recognition", 2020, arXiv:2005.08100, section 2.2. Shapes: D is
    `input_dims`, k is `kernel_size`.

    Attributes:
      input_dims: D, at least 1. Required.
      kernel_size: k, in frames, at least 1. Required.
      conv_activation_tpl: Config of the nonlinearity after the convolution.
      dropout_prob: Probability of dropping an element of the branch.
      is_causal: Whether no output sees later frames.
      use_2d_conv_norm: Hand the norm after the convolution [B, T, 1, D], in place of [B, T, D].
      ln_tpl: Config of the first normalization. D is filled in.
      linear_start_tpl: Config of the first two projections. D and the sharding are filled in.
      depthwise_conv_tpl: Config of the convolution. Its shape, `is_causal` and the sharding are
        filled in.
      conv_norm_layer_tpl: Config of the normalization after the convolution. D is filled in.
      linear_end_tpl: Config of the last projection. D and the sharding are filled in.
      dropout_tpl: Config of the dropout. Its probability is filled in.

    Variables:
      ln: as in `ln_tpl`
      linear_start_act, linear_start_gated, linear_end: as in their templates, [D, D]
      depthwise_conv1d/w: [k, 1, D]
      conv_norm: as in `conv_norm_layer_tpl`

    Raises:
      ValueError: during setup, if a size is missing or below 1 or the probability is out of range;
        in `__call__`, if the last axis of the inputs is not D or the paddings do not fit.
    """

    input_dims: int | None = None
    kernel_size: int | None = None
    conv_activation_tpl: Config[activations.BaseActivation] = template_field(activations.Swish)
    dropout_prob: float = 0.0
    is_causal: bool = False
    use_2d_conv_norm: bool = False
    ln_tpl: LayerTpl = template_field(LayerNorm)
    linear_start_tpl: LayerTpl = template_field(_LINEAR)
    depthwise_conv_tpl: LayerTpl = template_field(DepthwiseConv1D)
    conv_norm_layer_tpl: LayerTpl = template_field(BatchNorm)
    linear_end_tpl: LayerTpl = template_field(_LINEAR)
    dropout_tpl: LayerTpl = template_field(Dropout)

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          df: Of the first projections: inputs, outputs. Reversed for the last one.
          him: Of the convolution: height (time), input channels of a group, output channels.
        """

        df: SplitDimsMapping = None
        him: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          blf: Of what the first projections return, [B, T, D].
          bld: Of the output, [B, T, D].
        """

        blf: SplitDimsMapping = None
        bld: SplitDimsMapping = None

    weight_split_dims_mapping: Config[WeightSharding] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        template_field(WeightSharding)
    )
    activation_split_dims_mapping: Config[ActivationSharding] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        template_field(ActivationSharding)
    )

    def setup(self) -> None:
        check_sizes(self, "input_dims", "kernel_size")
        if not 0.0 <= self.dropout_prob < 1.0:
            raise ValueError(
                f"{self.path_text}: dropout_prob is {self.dropout_prob}, expected a probability of "
                "dropping, at least 0 and below 1."
            )
        width = self.input_dims
        weights, outputs = self.weight_split_dims_mapping, self.activation_split_dims_mapping
        self.create_child("ln", self.ln_tpl.clone().set(dim=width))
        start = self.linear_start_tpl.clone().set(input_dims=width, output_dims=width)
        start.weight_split_dims_mapping.wt = weights.df
        start.activation_split_dims_mapping.out = outputs.blf
        self.create_child("linear_start_act", start)
        self.create_child("linear_start_gated", start)
        conv = self.depthwise_conv_tpl.clone().set(
            filter_shape=(self.kernel_size, width, 1), is_causal=self.is_causal
        )
        conv.weight_split_dims_mapping.him = weights.him
        self.create_child("depthwise_conv1d", conv)
        self.create_child("conv_norm", self.conv_norm_layer_tpl.clone().set(dim=width))
        self.create_child("conv_activation", self.conv_activation_tpl)
        end = self.linear_end_tpl.clone().set(input_dims=width, output_dims=width)
        end.weight_split_dims_mapping.wt = None if weights.df is None else list(weights.df)[::-1]
        end.activation_split_dims_mapping.out = outputs.bld
        self.create_child("linear_end", end)
        dropout = self.dropout_tpl.clone().set(keep_prob=1.0 - self.dropout_prob)
        self.create_child("dropout", dropout)

    def __call__(
        self, inputs: Float[Array, "B T D"], paddings: Shaped[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Applies the module.

        Args:
          inputs: [B, T, D].
          paddings: [B, T], 1 marks padding, which no other frame sees.

        Returns:
          [B, T, D].
        """
        check_last_axis(self, inputs, "input_dims")
        branch = self.ln(inputs, paddings)
        branch = self.linear_start_act(branch) * jax.nn.sigmoid(self.linear_start_gated(branch))
        branch = self.depthwise_conv1d(branch, paddings)
        if self.use_2d_conv_norm:
            # [B, T, 1, D]: a norm that splits the channels may take the third axis as one of space.
            branch = self.conv_norm(branch[:, :, None], paddings[:, :, None])[:, :, 0]
        else:
            branch = self.conv_norm(branch, paddings)
        branch = self.dropout(self.linear_end(self.conv_activation(branch)))
        return branch + inputs
