"""Language models on synthetic data, from two layers to a trillion parameters.

The names of the large ones give the number of parameters. Their meshes are parts of TPU pods;
LmCloudSpmdTest runs on what is at hand:
`python -m paxml.main --exp=tasks.lm.params.lm_cloud.LmCloudSpmdTest --job_log_dir=DIR`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.experiment.registry import register
from paxml.task.single_task import SingleTask
from paxml.tasks.lm.mlp import MlpOnMesh
from paxml.tasks.lm.model_params import (
    TransformerLmPmapAdam,
    TransformerLmSpmdAdafactor,
    TransformerLmSpmdPipelineAdafactor,
    set_default_adam,
)
from paxml.tasks.lm.synthetic import SyntheticDataset
from paxml.tasks.lm.transformer import AutodiffCheckpointType
from praxis import pax_fiddle
from praxis.layers import activations

TAGS = ["example"]


@register(tags=TAGS)
class LmCloudTransformerAdam(SyntheticDataset, TransformerLmPmapAdam):
    """32 layers on each device."""


@register(tags=TAGS)
class LmCloudTransformerAdamTest(LmCloudTransformerAdam):
    """2 layers on each device."""

    NUM_LAYERS = 2


@register(tags=TAGS)
class LmCloudTransformerAdamLimitSteps(LmCloudTransformerAdam):
    """10 layers on each device, 2000 steps."""

    NUM_LAYERS = 10
    MAX_STEPS = 2000


class LmCloudSettings(SyntheticDataset):
    """Adam, GELU and a loop over layers."""

    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.GELU
    USE_REPEATED_LAYER: ClassVar[bool] = True
    REPEAT_PREFIX_SEP: ClassVar[str] = "_"
    LEARNING_RATE: ClassVar[float]
    WEIGHT_DECAY: ClassVar[float]

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        set_default_adam(task, self.LEARNING_RATE, self.WEIGHT_DECAY)


class LmCloudSpmd(LmCloudSettings, TransformerLmSpmdAdafactor):
    """Weights split over data and model axes."""


@register(tags=TAGS)
class LmCloudSpmdTest(LmCloudSpmd):
    """2 small layers on one device, which may be a CPU."""

    PERCORE_BATCH_SIZE = 4
    NUM_LAYERS = 2
    MODEL_DIMS = 64
    DIMS_PER_HEAD = 8
    ICI_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class LmCloudSpmd2B(LmCloudSpmd):
    """2 billion parameters on 4 devices."""

    PERCORE_BATCH_SIZE = 8
    NUM_LAYERS = 18
    MODEL_DIMS = 3072
    ICI_MESH_SHAPE = (1, 4, 1)


@register(tags=TAGS)
class LmCloudSpmd2BLimitSteps(LmCloudSpmd2B):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class LmCloudSpmd32B(LmCloudSpmd):
    """32 billion parameters on 64 devices."""

    PERCORE_BATCH_SIZE = 8
    NUM_LAYERS = 40
    MODEL_DIMS = 8192
    CHECKPOINT_POLICY = AutodiffCheckpointType.SAVE_CONTEXT_AND_OUT_PROJ
    ICI_MESH_SHAPE = (1, 16, 4)


@register(tags=TAGS)
class LmCloudSpmd64B(LmCloudSpmd):
    """64 billion parameters on 128 devices."""

    PERCORE_BATCH_SIZE = 4
    NUM_LAYERS = 51
    MODEL_DIMS = 10240
    CHECKPOINT_POLICY = AutodiffCheckpointType.SAVE_CONTEXT_AND_OUT_PROJ
    ICI_MESH_SHAPE = (1, 16, 8)


@register(tags=TAGS)
class LmCloudSpmd128B(LmCloudSpmd):
    """128 billion parameters on 256 devices."""

    PERCORE_BATCH_SIZE = 4
    NUM_LAYERS = 71
    MODEL_DIMS = 12288
    ICI_MESH_SHAPE = (1, 64, 4)


@register(tags=TAGS)
class LmCloudSpmd256B(LmCloudSpmd):
    """256 billion parameters on 512 devices."""

    PERCORE_BATCH_SIZE = 4
    NUM_LAYERS = 80
    MODEL_DIMS = 16384
    ICI_MESH_SHAPE = (1, 64, 8)


@register(tags=TAGS)
class LmCloudSpmd512B(LmCloudSpmd):
    """512 billion parameters on 1024 devices."""

    PERCORE_BATCH_SIZE = 4
    NUM_LAYERS = 102
    MODEL_DIMS = 20480
    ICI_MESH_SHAPE = (1, 64, 16)


@register(tags=TAGS)
class LmCloudSpmd1024B(LmCloudSpmd):
    """A trillion parameters on 2048 devices."""

    PERCORE_BATCH_SIZE = 2
    NUM_LAYERS = 142
    MODEL_DIMS = 24576
    ICI_MESH_SHAPE = (1, 256, 8)


@register(tags=TAGS)
class LmCloudSpmdMultislice2B(LmCloudSpmd2B):
    """2 billion parameters, a copy on each of 2 slices."""

    PERCORE_BATCH_SIZE = 16
    DCN_MESH_SHAPE = (2, 1, 1)


class LmCloudSpmdPipeline(LmCloudSettings, TransformerLmSpmdPipelineAdafactor):
    """Layers split into stages."""


@register(tags=TAGS)
class LmCloudSpmdPipeline9B(LmCloudSpmdPipeline):
    """9 billion parameters in 16 stages of 4 devices."""

    PERCORE_BATCH_SIZE = 8
    NUM_LAYERS = 48
    MODEL_DIMS = 4096
    FPROP_DTYPE: ClassVar[Any] = jnp.float32
    MICROBATCH_SIZE = 4
    ICI_MESH_SHAPE = (16, 4, 1, 1)


@register(tags=TAGS)
class LmCloudSpmdPipeline175B(LmCloudSpmdPipeline):
    """175 billion parameters, a stage on each of 8 slices of 16 devices."""

    PERCORE_BATCH_SIZE = 0.75
    MAX_SEQ_LEN = 2048
    NUM_LAYERS = 96
    MODEL_DIMS = 12288
    MICROBATCH_SIZE = 2
    ICI_MESH_SHAPE = (1, 1, 1, 16)
    DCN_MESH_SHAPE = (8, 1, 1, 1)


@register(tags=TAGS)
class LmCloudSpmdPipelineMultislice2B(LmCloudSpmdPipeline):
    """2 billion parameters, a stage on each of 2 slices."""

    PERCORE_BATCH_SIZE = 16
    NUM_LAYERS = 18
    MODEL_DIMS = 3072
    MICROBATCH_SIZE = 4
    STREAM_IO = True
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 4, 1, 1)
    DCN_MESH_SHAPE = (2, 1, 1, 1)


@register(tags=TAGS)
class LmCloudSpmdPipelineMultislice2BCircular(LmCloudSpmdPipelineMultislice2B):
    """Each microbatch goes around the 2 stages 3 times."""

    MICROBATCH_SIZE = 8
    CIRCULAR_REPEAT = 3


@register(tags=TAGS)
class LargeMlp(MlpOnMesh):
    """8 feed-forward layers of hidden width 7168 on 8 devices, 10 steps."""

    HIDDEN_DIMS = 7168


@register(tags=TAGS)
class SmallMlp(MlpOnMesh):
    """8 feed-forward layers of hidden width 1024 on 8 devices, 10 steps."""

    HIDDEN_DIMS = 1024
