"""What networks for images made of stages share."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers.poolings import GlobalPooling, Pooling

Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


# Mean over height and width of [B, H, W, C].
SPATIAL_POOLING = pax_fiddle.Config(GlobalPooling, pooling_dims=[1, 2])


def check_stages(layer: base_layer.BaseLayer, fields: Sequence[str]) -> None:
    """Refuses lists with one number a stage, or a block, that have not the same length.

    Raises:
      ValueError: naming the layer and the lists; also if a number is below 1.
    """
    values = {field: tuple(getattr(layer, field)) for field in fields}
    given = ", ".join(f"{field} = {value}" for field, value in values.items())
    if len({len(value) for value in values.values()}) != 1:
        raise ValueError(f"{layer.path_text}: {given}; expected lists of the same length.")
    if not all(value and min(value) >= 1 for value in values.values()):
        raise ValueError(f"{layer.path_text}: {given}; expected numbers of at least 1.")


class StagedNet(base_layer.BaseLayer):
    """Base of networks of a convolution, a maximum over windows, stages of blocks, and a pooling.

    A subclass declares `conv_params` and `block_params`, and how the first convolution acts.

    Attributes:
      strides: Of the first block of each stage, in pixels.
      channels: Of each stage.
      blocks: Number of blocks in each stage.
      kernels: Size of the kernels in each stage, in pixels.
      entryflow_conv_stride: (height, width) of the steps of the first convolution, in pixels.
      output_spatial_pooling_params: Config of the pooling at the end; None leaves it out.
    """

    strides: Sequence[int] = (1, 2, 2, 2)
    channels: Sequence[int] = (256, 512, 1024, 2048)
    blocks: Sequence[int] = (3, 4, 6, 3)
    kernels: Sequence[int] = (3, 3, 3, 3)
    entryflow_conv_stride: Sequence[int] = (2, 2)
    output_spatial_pooling_params: LayerTpl | None = template_field(SPATIAL_POOLING)

    def _create_layers(
        self, *, entry_conv: Any, entry_kernel: Sequence[int], entry_channels: int, block: Any
    ) -> None:
        """Creates all children.

        Args:
          entry_conv: Config of the first convolution.
          entry_kernel: Its (height, width, input channels).
          entry_channels: Its output channels.
          block: Config of a block, which gets its sizes and its stride here.
        """
        check_stages(self, ("strides", "channels", "blocks", "kernels"))
        entry = entry_conv.clone().set(
            filter_shape=(*entry_kernel, entry_channels),
            filter_stride=tuple(self.entryflow_conv_stride),
        )
        self.create_child("entryflow_conv", entry)
        maxpool = Config(Pooling, window_shape=(3, 3), window_stride=(2, 2), pooling_type="MAX")
        self.create_child("entryflow_maxpool", maxpool)
        width = entry_channels
        for i, num_blocks in enumerate(self.blocks):
            for j in range(num_blocks):
                one = block.clone().set(
                    input_dim=width,
                    output_dim=self.channels[i],
                    kernel_size=self.kernels[i],
                    stride=self.strides[i] if j == 0 else 1,
                )
                self.create_child(f"stage_{i}_block_{j}", one)
                width = self.channels[i]
        if self.output_spatial_pooling_params is not None:
            self.create_child("output_spatial_pooling", self.output_spatial_pooling_params)

    def _run_stages(self, features: Float[Array, "B H W C"]) -> list[Float[Array, "B _ _ _"]]:
        """What each stage returns; the first one gets `features`."""
        outputs = []
        for i, num_blocks in enumerate(self.blocks):
            for j in range(num_blocks):
                features = getattr(self, f"stage_{i}_block_{j}")(features)
            outputs.append(features)
        return outputs

    def _pool_output(self, features: Float[Array, "B H W F"]) -> Float[Array, " B *_"]:
        if self.output_spatial_pooling_params is None:
            return features
        return self.output_spatial_pooling(features)
