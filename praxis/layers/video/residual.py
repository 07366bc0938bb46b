"""Residual block of causal convolutions."""

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.checks import check_sizes
from praxis.layers.video.causal import CausalConv
from praxis.layers.video.checks import check_video
from praxis.layers.video.norm import GroupNormSpatial

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class ResBlock(base_layer.BaseLayer):
    """Computes `x + conv(act(norm(conv(act(norm(x))))))`.

    Kernels cover 3 frames and 3 by 3 pixels. Shapes: D is `input_dim`, F is `output_dim`. If they
    differ, a convolution without bias takes x to F channels.

    Attributes:
      input_dim: D, at least 1. Required.
      output_dim: F.
      use_conv_shortcut: That convolution has the kernel of the others; by default it sees a single
        pixel.
      norm_layer_tpl: Config of the normalizations. Their widths are filled in.
      conv_layer_tpl: Config of the convolutions. Their shapes are filled in; they have no bias.
      activation_tpl: Config of the nonlinearity.

    Variables:
      norm_0: as in `norm_layer_tpl`, of width D
      conv_0/w: [3, 3, 3, D, F]
      norm_1: as in `norm_layer_tpl`, of width F
      conv_1/w: [3, 3, 3, F, F]
      conv_shortcut/w: [1, 1, 1, D, F] or [3, 3, 3, D, F], if D and F differ

    Raises:
      ValueError: during setup, if a size is missing; in `__call__`, if the inputs do not have D
        channels.
    """

    input_dim: int = 0
    output_dim: int = 128
    use_conv_shortcut: bool = False
    norm_layer_tpl: LayerTpl = template_field(GroupNormSpatial)
    conv_layer_tpl: LayerTpl = template_field(CausalConv)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(
        activations.Swish
    )

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim")
        self.create_child("activation", self.activation_tpl)
        for i, width in enumerate((self.input_dim, self.output_dim)):
            self.create_child(f"norm_{i}", self.norm_layer_tpl.clone().set(dim=width))
            self.create_child(f"conv_{i}", self._conv(3, width))
        if self.input_dim != self.output_dim:
            size = 3 if self.use_conv_shortcut else 1
            self.create_child("conv_shortcut", self._conv(size, self.input_dim))

    def _conv(self, size: int, width: int) -> LayerTpl:
        shape = (size, size, size, width, self.output_dim)
        return self.conv_layer_tpl.clone().set(filter_shape=shape, bias=False)

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B T H W F"]:
        """Transforms `inputs`, [B, T, H, W, D], to [B, T, H, W, F]."""
        check_video(self, inputs, "input_dim")
        inputs = self._cast_to_fprop_dtype(inputs)
        outputs = self.conv_0(self.activation(self.norm_0(inputs)))
        outputs = self.conv_1(self.activation(self.norm_1(outputs)))
        if self.input_dim != self.output_dim:
            inputs = self.conv_shortcut(inputs)
        return inputs + outputs
