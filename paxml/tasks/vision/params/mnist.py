"""A small residual network for images of digits."""

from typing import Any

from paxml.experiment.registry import register
from paxml.tasks.vision.images import ImageClassification, LayerTpl
from praxis import optimizers, pax_fiddle, schedules
from praxis.layers import resnets


@register(tags=["example"])
class MnistExperiment(ImageClassification):
    """1000 steps on one device."""

    BATCH_SIZE = 1024
    IMAGE_SHAPE = (28, 28, 1)
    NUM_CLASSES = 10
    MAX_STEPS = 1000
    LEARNING_RATE = 1e-3
    ICI_MESH_SHAPE = (1, 1, 1)

    CHANNELS = (32, 64)

    def network(self) -> tuple[LayerTpl, int]:
        network = pax_fiddle.Config(
            resnets.ResNet,
            strides=(1, 2),
            channels=self.CHANNELS,
            blocks=(1, 1),
            kernels=(3, 3),
            entryflow_conv_kernel=(3, 3, 1),
            entryflow_conv_stride=(2, 2),
        )
        return network, self.CHANNELS[-1]

    def optimizer(self) -> pax_fiddle.Config[Any]:
        return pax_fiddle.Config(
            optimizers.Adam,
            learning_rate=self.LEARNING_RATE,
            lr_schedule=pax_fiddle.Config(schedules.Constant, value=1.0),
        )
