"""A vision transformer of a few thousand parameters."""

from examples.digits.data import IMAGE_SIZE, NUM_CLASSES
from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax, models, vits

_PATCH_SIZE = 2  # pixels
_WIDTH = 32


def config() -> pax_fiddle.Config[models.ClassificationModel]:
    """16 tokens of 2 by 2 pixels, 2 layers, the mean of the tokens, a softmax."""
    grid = IMAGE_SIZE // _PATCH_SIZE
    network = vits.build_vision_transformer_hparams_for_test(
        pos_emb_shapes=(grid, grid),
        patch_size=_PATCH_SIZE,
        image_channels=1,
        model_dims=_WIDTH,
        mlp_dims=2 * _WIDTH,
        num_xformer_layers=2,
        num_heads=4,
    )
    network.exit_layers_tpl.output_fc_tanh = False
    softmax = pax_fiddle.Config(
        embedding_softmax.FullSoftmax, input_dims=_WIDTH, num_classes=NUM_CLASSES
    )
    return pax_fiddle.Config(
        models.ClassificationModel, name="digits", network_tpl=network, softmax_tpl=softmax
    )


def build() -> base_layer.BaseLayer:
    """The model."""
    return pax_fiddle.build(config())
