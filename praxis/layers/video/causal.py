"""Convolution of video in which no output sees later frames."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis.layers.convolution.conv import Conv3D
from praxis.layers.convolution.padding import causal_padding


class CausalConv(Conv3D):
    """Convolves video that is continued by copies of its first frame and of its outermost pixels.

    Yu et al., "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation", 2023,
    arXiv:2310.05737, section 3.2. With e the size of the kernel along an axis, there are e - 1
    frames before the first one, and (e - 1) // 2 pixels before and e // 2 after each row and
    column.

    Attributes:
      filter_shape: (frames, height, width, input channels, F). Required.
      filter_stride: (frames, height, width), in frames and pixels.
      bias: Whether to add `b`.
      padding: "VALID": what the kernel meets at the borders is settled before the convolution.

    Variables:
      w: `filter_shape`, sharded with `weight_split_dims_mapping.wt`
      b: [F], with `bias`

    Raises:
      ValueError: as `Conv3D`; and during setup, for another `padding`.
    """

    filter_stride: Sequence[int] = (1, 1, 1)
    bias: bool = True
    padding: str = "VALID"

    def check_dimensions(self) -> None:
        """Refuses fields that contradict each other, and other paddings.

        Raises:
          ValueError: naming the layer and the field.
        """
        super().check_dimensions()
        if self.padding != "VALID":
            raise ValueError(
                f"{self.path_text}: padding is {self.padding!r}, expected 'VALID', since the layer "
                "pads by itself."
            )

    def __call__(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T_ H_ W_ F"]:
        """Convolves `inputs`, [B, T, H, W, C]; returns [B, T', H', W', F] in `fprop_dtype`."""
        frames, height, width = (
            causal_padding(size, rate)
            for size, rate in zip(self.filter_shape[:3], self.dilations, strict=True)
        )
        space = [(total // 2, total - total // 2) for total in (height, width)]
        return super().__call__(jnp.pad(inputs, [(0, 0), (frames, 0), *space, (0, 0)], mode="edge"))
