"""BERT: Devlin et al., 2018, arXiv:1810.04805; L in a name is the number of layers, H the width.

The data that they were made for is not shipped: tokens are synthetic, or bytes of local files, see
`TextDataset`. Override `split` for real data.
"""

from collections.abc import Sequence
from typing import ClassVar

from paxml.experiment.registry import register
from paxml.task.single_task import SingleTask
from paxml.tasks.lm.model_params import (
    TransformerBertPmapAdam,
    TransformerBertSpmdAdafactor,
    set_default_adam,
)
from paxml.tasks.lm.text import TextDataset
from praxis import pax_fiddle

TAGS = ["example"]


class BertDataset(TextDataset):
    """Rows of 512 tokens."""

    MAX_SEQ_LEN: ClassVar[int] = 512
    TRAIN_NAME: ClassVar[str] = "BertTrain"
    EVAL_NAME: ClassVar[str] = "BertEval"


@register(tags=TAGS)
class BertAdamL4H128(BertDataset, TransformerBertPmapAdam):
    """4 layers of width 128 on each device."""

    NUM_LAYERS = 4
    NUM_HEADS = 2
    MODEL_DIMS = 128


class BertSpmd(BertDataset, TransformerBertSpmdAdafactor):
    """On a mesh, with Adam."""

    USE_REPEATED_LAYER: ClassVar[bool] = True

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        set_default_adam(task, self.LEARNING_RATE, self.WEIGHT_DECAY)


@register(tags=TAGS)
class BertSpmdL4H128(BertSpmd):
    """4 layers of width 128 on one device."""

    NUM_LAYERS = 4
    NUM_HEADS = 2
    DIMS_PER_HEAD = None
    MODEL_DIMS = 128
    ICI_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class BertSpmdL33H12kBiggerBatch(BertSpmd):
    """33 layers of width 12288 on 512 devices."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 8
    NUM_LAYERS = 33
    MODEL_DIMS = 12288
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 64, 8)


@register(tags=TAGS)
class BertSpmdL33H12kBiggerBatch8x8x16(BertSpmdL33H12kBiggerBatch):
    """33 layers on 8 by 8 by 16 devices."""

    ICI_MESH_SHAPE = (8, 8, 16)


@register(tags=TAGS)
class BertSpmdL66H12kBiggerBatch8x8x16(BertSpmdL33H12kBiggerBatch8x8x16):
    """66 layers on 8 by 8 by 16 devices."""

    NUM_LAYERS = 66


@register(tags=TAGS)
class BertSpmdL66H12kBiggerBatch8x8x8(BertSpmdL66H12kBiggerBatch8x8x16):
    """66 layers on 8 by 8 by 8 devices."""

    ICI_MESH_SHAPE = (8, 8, 8)
