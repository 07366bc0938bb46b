"""Convolutions, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit
from praxis.layers.convolution.conv import Conv2D, Conv3D
from praxis.layers.convolution.conv_bn_act import ConvBNAct, ConvBNActWithPadding
from praxis.layers.convolution.depthwise import BaseDepthwiseConv1D, DepthwiseConv1D
from praxis.layers.convolution.light import LightConv1D
from praxis.layers.convolution.padding import causal_padding
from praxis.pax_fiddle import template_field

__all__ = [
    "BaseDepthwiseConv1D",
    "Conv2D",
    "Conv3D",
    "ConvBNAct",
    "ConvBNActWithPadding",
    "DepthwiseConv1D",
    "LightConv1D",
    "WeightHParams",
    "WeightInit",
    "causal_padding",
    "template_field",
]
