"""The smallest experiments: names to find, and a classifier to train."""

from paxml.experiment.registry import register
from paxml.tasks.vision.params.mnist import MnistExperiment
from praxis import base_input, pax_fiddle


@register(tags=["example", "test"])
class SyntheticClassifier(MnistExperiment):
    """Images of 8 by 8 pixels, 8 in a batch, 10 steps."""

    BATCH_SIZE = 8
    IMAGE_SHAPE = (8, 8, 1)
    MAX_STEPS = 10
    CHANNELS = (8, 8)


@register(tags=["example", "test"])
class SharedNameExperiment(SyntheticClassifier):
    """No data: only its name matters."""

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        return []
