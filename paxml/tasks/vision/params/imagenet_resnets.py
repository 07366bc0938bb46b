"""ResNet-50, with the learning rates of Goyal et al., 2017, arXiv:1706.02677."""

from typing import Any

from paxml.experiment.registry import register
from paxml.tasks.vision.images import ImageClassification, LayerTpl
from praxis import optimizers, pax_fiddle, schedules
from praxis.layers import resnets

NUM_IMAGES = 1_281_167  # in the training split of ImageNet


@register(tags=["example"])
class ResNet50Pjit(ImageClassification):
    """90 epochs on 8 devices."""

    BATCH_SIZE = 512
    IMAGE_SHAPE = (224, 224, 3)
    NUM_CLASSES = 1000
    EPOCHS = 90
    LEARNING_RATE = 0.2
    ICI_MESH_SHAPE = (1, 8, 1)

    STEPS_PER_EPOCH = NUM_IMAGES // BATCH_SIZE
    MAX_STEPS = EPOCHS * STEPS_PER_EPOCH

    def network(self) -> tuple[LayerTpl, int]:
        return pax_fiddle.Config(resnets.ResNet), 2048

    def optimizer(self) -> pax_fiddle.Config[Any]:
        epochs = (5, 30, 60, 80)  # The end of the warm-up, and three drops.
        return pax_fiddle.Config(
            optimizers.Sgd,
            momentum=0.9,
            l2_regularizer_weight=1e-4,
            learning_rate=self.LEARNING_RATE,
            lr_schedule=pax_fiddle.Config(
                schedules.LinearRampupPiecewiseConstant,
                boundaries=[epoch * self.STEPS_PER_EPOCH for epoch in epochs],
                values=[1.0, 0.1, 0.01, 0.001],
            ),
        )
