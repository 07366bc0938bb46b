"""Discriminator of video: tells what was recorded from what was decoded."""

import itertools
from collections.abc import Sequence

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv import Conv3D
from praxis.layers.video.blur import LEAKY_RELU, DiscriminatorResBlock
from praxis.layers.video.checks import check_video

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class Discriminator(base_layer.BaseLayer):
    """One logit for a video: large for one that looks real.

    A convolution, residual blocks that halve frames, rows and columns, another convolution, and two
    dense layers over all that is left. Shapes: T, H, W and C are `num_frames`, `image_height`,
    `image_width` and `input_dim`, T', H' and W' are what L blocks leave of them, D_i are the
    channels of block i.

    Attributes:
      input_dim: C.
      num_frames: T.
      image_height: H.
      image_width: W.
      filters: Channels that the entries of `channel_multipliers` multiply.
      channel_multipliers: Channels of each block, as multiples of `filters`.
      blur_filter_size: Size of the filter of the blocks.
      conv_tpl: Config of the convolutions. Shapes and strides are filled in.
      res_block_tpl: Config of the blocks. Sizes and nonlinearity are filled in.
      proj_tpl: Config of the dense layers. Sizes and nonlinearity are filled in.
      activation_tpl: Config of the nonlinearity.

    Variables:
      conv_first/w: [3, 3, 3, C, filters]
      res_blocks_i: as in `DiscriminatorResBlock`
      conv_last/w: [3, 3, 3, D_L, D_L]
      proj/mlp_layers_0/linear/w: [T' H' W' D_L, D_L]
      proj/mlp_layers_1/linear/w: [D_L, 1]

    Raises:
      ValueError: during setup, if a size is missing; in `__call__`, for video of another size.
    """

    input_dim: int = 3
    num_frames: int = 1
    image_height: int = 256
    image_width: int = 256
    filters: int = 128
    channel_multipliers: Sequence[int] = (2, 4, 4, 4)
    blur_filter_size: int = 3
    conv_tpl: LayerTpl = template_field(Conv3D)
    res_block_tpl: LayerTpl = template_field(DiscriminatorResBlock)
    proj_tpl: LayerTpl = template_field(linears.MLPBlock)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(LEAKY_RELU)

    def setup(self) -> None:
        sizes = ("num_frames", "image_height", "image_width")
        check_sizes(self, "input_dim", "filters", *sizes)
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError(
                f"{self.path_text}: channel_multipliers is {tuple(self.channel_multipliers)}, "
                "expected one number of at least 1 for each block."
            )
        self.create_child("activation", self.activation_tpl)
        self.create_child("conv_first", self._conv(self.input_dim, self.filters))
        widths = [self.filters, *(self.filters * m for m in self.channel_multipliers)]
        blocks = [
            self.res_block_tpl.clone().set(
                input_dim=before,
                output_dim=after,
                blur_filter_size=self.blur_filter_size,
                activation_tpl=self.activation_tpl.clone(),
            )
            for before, after in itertools.pairwise(widths)
        ]
        self.create_children("res_blocks", blocks)
        width = widths[-1]
        self.create_child("conv_last", self._conv(width, width))
        flat = width
        for field in sizes:
            flat *= -(-getattr(self, field) // 2 ** len(blocks))
        proj = self.proj_tpl.clone().set(num_layers=2, hidden_dims=width, activate_final=False)
        proj.ff_tpl = proj.ff_tpl.clone().set(
            input_dims=flat, output_dims=1, activation_tpl=self.activation_tpl.clone()
        )
        self.create_child("proj", proj)

    def _conv(self, width: int, output_width: int) -> LayerTpl:
        return self.conv_tpl.clone().set(
            filter_shape=(3, 3, 3, width, output_width), filter_stride=(1, 1, 1)
        )

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B 1"]:
        """Judges `inputs`, [B, T, H, W, C]; returns logits [B, 1]."""
        check_video(self, inputs, "input_dim")
        size = (self.num_frames, self.image_height, self.image_width)
        if inputs.shape[1:4] != size:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, T, H, W, C] "
                f"with (T, H, W) = (num_frames, image_height, image_width) = {size}."
            )
        hidden = self.activation(self.conv_first(inputs))
        for block in self.res_blocks:
            hidden = block(hidden)
        return self.proj(self.conv_last(hidden).reshape(len(inputs), -1))
