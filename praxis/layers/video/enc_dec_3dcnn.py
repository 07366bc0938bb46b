"""Parts of convolutional networks for video, gathered under their public path."""

from praxis.layers.video.blur import BlurPool3D, DiscriminatorResBlock
from praxis.layers.video.causal import CausalConv
from praxis.layers.video.norm import CondNormLayer, GroupNormSpatial
from praxis.layers.video.resample import depth_to_space, scan_function
from praxis.layers.video.residual import ResBlock
from praxis.pax_fiddle import template_field

__all__ = [
    "BlurPool3D",
    "CausalConv",
    "CondNormLayer",
    "DiscriminatorResBlock",
    "GroupNormSpatial",
    "ResBlock",
    "depth_to_space",
    "scan_function",
    "template_field",
]
