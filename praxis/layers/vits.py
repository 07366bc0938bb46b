"""Vision transformers, gathered under their public path."""

from praxis.base_layer import WeightHParams, WeightInit
from praxis.layers.model.vit_patches import (
    image_to_patch,
    interpolate_embedding_2d,
    patch_to_image,
)
from praxis.layers.model.vits import (
    VisionTransformer,
    VitEntryLayers,
    VitExitLayers,
    build_vision_transformer_hparams_for_test,
)
from praxis.pax_fiddle import template_field

__all__ = [
    "VisionTransformer",
    "VitEntryLayers",
    "VitExitLayers",
    "WeightHParams",
    "WeightInit",
    "build_vision_transformer_hparams_for_test",
    "image_to_patch",
    "interpolate_embedding_2d",
    "patch_to_image",
    "template_field",
]
