"""Encoder of video: causal convolutions down to a small grid of vectors."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.checks import check_sizes
from praxis.layers.video.causal import CausalConv
from praxis.layers.video.checks import check_video
from praxis.layers.video.levels import check_levels
from praxis.layers.video.norm import GroupNormSpatial
from praxis.layers.video.residual import ResBlock

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class Encoder(base_layer.BaseLayer):
    """Turns video into vectors, each for a few frames and a square of pixels.

    Yu et al., "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation", 2023,
    arXiv:2310.05737. Residual blocks at each of L levels, each of half the height and width of the
    one before; then some more. The first frame is encoded on its own. Shapes: C is `input_dim`, E
    is `embedding_dim`, K is the product of the steps in time, 2 to the number of true entries of
    `temporal_downsample`, and P is 2^(L - 1).

    Attributes:
      input_dim: C.
      embedding_dim: E.
      filters: Channels that the entries of `channel_multipliers` multiply.
      num_res_blocks: Residual blocks of a level.
      channel_multipliers: Channels of each level, as multiples of `filters`.
      temporal_downsample: Whether the step from each level to the next also halves the frames.
      conv_downsample: True; the steps are convolutions.
      conv_tpl: Config of the convolutions. Shapes and strides are filled in.
      res_block_tpl: Config of the residual blocks. Sizes are filled in.
      norm_tpl: Config of the last normalization. Its width is filled in.
      activation_tpl: Config of the nonlinearity behind it.

    Variables:
      conv_first/w: [3, 3, 3, C, filters]
      res_blocks_k: as in `ResBlock`; those of the levels in order, then the others
      conv_downsample_layers_i/w, b: [4, 4, 4, D_i, D_i] and [D_i], D_i the channels of level i
      norm: as in `norm_tpl`
      conv_last/w, b: [1, 1, 1, D, E] and [E], D the channels of the last level

    Raises:
      ValueError: during setup, if the fields do not go together; in `__call__`, for inputs of
        another rank or width, or of a number of frames that is not 1 + K n.
    """

    input_dim: int = 3
    embedding_dim: int = 8
    filters: int = 128
    num_res_blocks: int = 4
    channel_multipliers: Sequence[int] = (1, 2, 2, 4)
    temporal_downsample: Sequence[bool] = (False, True, True)
    conv_downsample: bool = True
    conv_tpl: LayerTpl = template_field(CausalConv)
    res_block_tpl: LayerTpl = template_field(ResBlock)
    norm_tpl: LayerTpl = template_field(GroupNormSpatial)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(
        activations.Swish
    )

    def setup(self) -> None:
        check_sizes(self, "input_dim", "embedding_dim", "filters", "num_res_blocks")
        check_levels(self, self.channel_multipliers, self.temporal_downsample)
        if not self.conv_downsample:
            raise ValueError(
                f"{self.path_text}: conv_downsample is False, expected True: there is no other "
                "way from level to level."
            )
        first = (3, 3, 3, self.input_dim, self.filters)
        self.create_child("conv_first", self.conv_tpl.clone().set(filter_shape=first, bias=False))
        width = self.filters
        blocks, steps = [], []
        for level, multiplier in enumerate([*self.channel_multipliers, None]):
            if multiplier is not None:
                width, before = self.filters * multiplier, width
            else:
                before = width
            for i in range(self.num_res_blocks):
                block = self.res_block_tpl.clone()
                blocks.append(block.set(input_dim=width if i else before, output_dim=width))
            if level < len(self.temporal_downsample):
                stride = (2 if self.temporal_downsample[level] else 1, 2, 2)
                step = self.conv_tpl.clone()
                steps.append(step.set(filter_shape=(4, 4, 4, width, width), filter_stride=stride))
        self.create_children("res_blocks", blocks)
        if steps:
            self.create_children("conv_downsample_layers", steps)
        self.create_child("norm", self.norm_tpl.clone().set(dim=width))
        self.create_child("activation", self.activation_tpl)
        last = (1, 1, 1, width, self.embedding_dim)
        self.create_child("conv_last", self.conv_tpl.clone().set(filter_shape=last))

    def _check(self, inputs: Float[Array, "..."]) -> None:
        check_video(self, inputs, "input_dim")
        factor = 2 ** sum(self.temporal_downsample)
        if inputs.shape[1] % factor != 1 % factor or not inputs.shape[1]:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, that is {inputs.shape[1]} "
                f"frames, expected 1 + {factor} * n of them, since temporal_downsample = "
                f"{tuple(self.temporal_downsample)} makes one of {factor}."
            )

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "B T_ H_ W_ E"]:
        """Encodes video.

        Args:
          inputs: [B, 1 + K n, H, W, C].

        Returns:
          [B, 1 + n, H / P, W / P, E], sizes rounded up.
        """
        self._check(inputs)
        hidden = self.conv_first(inputs)
        for k, block in enumerate(self.res_blocks):
            hidden = block(hidden)
            level, rest = divmod(k + 1, self.num_res_blocks)
            if not rest and 1 <= level <= len(self.temporal_downsample):
                hidden = self.conv_downsample_layers[level - 1](hidden)
        return self.conv_last(self.activation(self.norm(hidden)))
