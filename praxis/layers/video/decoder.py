"""Decoder of video: from a small grid of vectors back to frames."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.checks import check_sizes
from praxis.layers.video.causal import CausalConv
from praxis.layers.video.checks import check_video
from praxis.layers.video.levels import check_levels
from praxis.layers.video.norm import CondNormLayer, GroupNormSpatial
from praxis.layers.video.resample import depth_to_space, upsample
from praxis.layers.video.residual import ResBlock

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class Decoder(base_layer.BaseLayer):
    """Turns vectors into video, through the levels of `Encoder` in the opposite order.

    Residual blocks; then at each of L levels, from the last to the first, a normalization with the
    latents as condition, more residual blocks, and a step to the next level: a convolution, whose
    channels become pixels and frames. The first frame is decoded on its own. Shapes: E is
    `embedding_dim`, C is `output_dim`, K and P are as in `Encoder`.

    Attributes:
      output_dim: C.
      embedding_dim: E.
      filters: Channels that the entries of `channel_multipliers` multiply.
      num_res_blocks: Residual blocks of a level.
      channel_multipliers: Channels of each level, as multiples of `filters`, as in the encoder.
      temporal_downsample: As in the encoder.
      conv_tpl: Config of the convolutions. Shapes are filled in.
      res_block_tpl: Config of the residual blocks. Sizes are filled in.
      cond_norm_tpl: Config of the conditional normalizations. Sizes are filled in.
      norm_tpl: Config of the last normalization. Its width is filled in.
      activation_tpl: Config of the nonlinearity behind it.

    Variables:
      conv_first/w, b: [3, 3, 3, E, D] and [D], D the channels of the last level
      res_blocks_k: as in `ResBlock`; those before the levels, then those of the levels in the order
        they are passed
      cond_norm_layers_k: as in `CondNormLayer`, in that order
      conv_upsample_layers_k/w, b: [3, 3, 3, D_k, 4 R D_k] and [4 R D_k], in that order; D_k are the
        channels of the level, R is 2 if the step doubles the frames, else 1
      norm: as in `norm_tpl`
      conv_last/w, b: [3, 3, 3, D_0, C] and [C], D_0 the channels of the first level

    Raises:
      ValueError: during setup, if the fields do not go together; in `__call__`, for inputs of
        another rank or width.
    """

    output_dim: int = 3
    embedding_dim: int = 8
    filters: int = 128
    num_res_blocks: int = 4
    channel_multipliers: Sequence[int] = (1, 2, 2, 4)
    temporal_downsample: Sequence[bool] = (False, True, True)
    conv_tpl: LayerTpl = template_field(CausalConv)
    res_block_tpl: LayerTpl = template_field(ResBlock)
    cond_norm_tpl: LayerTpl = template_field(CondNormLayer)
    norm_tpl: LayerTpl = template_field(GroupNormSpatial)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(
        activations.Swish
    )

    def _strides(self) -> list[int]:
        """Frames that one becomes in each step, in the order that the steps are taken."""
        return [2 if halved else 1 for halved in reversed(self.temporal_downsample)]

    def setup(self) -> None:
        check_sizes(self, "output_dim", "embedding_dim", "filters", "num_res_blocks")
        check_levels(self, self.channel_multipliers, self.temporal_downsample)
        widths = [self.filters * multiplier for multiplier in reversed(self.channel_multipliers)]
        self.create_child("conv_first", self._conv(3, self.embedding_dim, widths[0]))
        blocks, norms = [], []
        before = widths[0]
        for width in [widths[0], *widths]:
            for i in range(self.num_res_blocks):
                block = self.res_block_tpl.clone()
                blocks.append(block.set(input_dim=width if i else before, output_dim=width))
            before = width
        for width in [widths[0], *widths[:-1]]:
            norm = self.cond_norm_tpl.clone()
            norms.append(norm.set(dim=width, emb_dim=self.embedding_dim))
        steps = [
            self._conv(3, width, 4 * stride * width)
            for width, stride in zip(widths[:-1], self._strides(), strict=True)
        ]
        self.create_children("res_blocks", blocks)
        self.create_children("cond_norm_layers", norms)
        if steps:
            self.create_children("conv_upsample_layers", steps)
        self.create_child("norm", self.norm_tpl.clone().set(dim=widths[-1]))
        self.create_child("activation", self.activation_tpl)
        self.create_child("conv_last", self._conv(3, widths[-1], self.output_dim))

    def _conv(self, size: int, width: int, output_width: int) -> LayerTpl:
        return self.conv_tpl.clone().set(filter_shape=(size, size, size, width, output_width))

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B T_ H_ W_ C"]:
        """Decodes latents.

        Args:
          inputs: [B, 1 + n, H, W, E].

        Returns:
          [B, 1 + K n, P H, P W, C].
        """
        check_video(self, inputs, "embedding_dim")
        strides = self._strides()
        latents = inputs
        hidden = self._blocks(self.conv_first(inputs), 0)
        for level, norm in enumerate(self.cond_norm_layers):
            hidden = self._blocks(norm(hidden, latents), level + 1)
            if level < len(strides):
                stride, width = strides[level], hidden.shape[-1]
                hidden = self.conv_upsample_layers[level](hidden)
                # The first frame of all stands for itself alone.
                hidden = depth_to_space(hidden, stride, width)[:, stride - 1 :]
                latents = upsample(latents, stride)[:, stride - 1 :]
        return self.conv_last(self.activation(self.norm(hidden)))

    def _blocks(self, hidden: Float[Array, "B T H W _"], level: int) -> Float[Array, "B T H W _"]:
        start = level * self.num_res_blocks
        for block in self.res_blocks[start : start + self.num_res_blocks]:
            hidden = block(hidden)
        return hidden
