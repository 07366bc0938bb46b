"""Residual networks, gathered under their public path."""

from praxis.base_layer import WeightInit
from praxis.layers.model.resnets import ResNet, ResNetBasicBlock, ResNetBlock
from praxis.pax_fiddle import template_field

__all__ = ["ResNet", "ResNetBasicBlock", "ResNetBlock", "WeightInit", "template_field"]
