"""Language models for C4, of Raffel et al., 2019, arXiv:1910.10683.

The data set and its vocabulary are not shipped: see `TextDataset` for what is read instead.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.experiment.registry import register
from paxml.tasks.lm.adam import TransformerLmSpmdAdam, TransformerLmSpmdPipelineAdam
from paxml.tasks.lm.gpt3 import Gpt3
from paxml.tasks.lm.mlperf import Gpt3MLPerf
from paxml.tasks.lm.synthetic import SyntheticDataset
from paxml.tasks.lm.text import TextDataset
from praxis.layers import activations

__all__ = ["TransformerLmSpmdAdam", "TransformerLmSpmdPipelineAdam"]

TAGS = ["example"]


@register(tags=TAGS)
class LmCloudSpmdAdam(SyntheticDataset, TransformerLmSpmdAdam):
    """2 wide layers on synthetic data and 8 devices."""

    NUM_LAYERS = 2
    MODEL_DIMS = 2048
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 4, 2)


@register(tags=TAGS)
class LmCloudSpmdAdamLimitSteps(LmCloudSpmdAdam):
    """4000 steps of it."""

    MAX_STEPS = 4000


@register(tags=TAGS)
class C4SpmdAdam(TextDataset, TransformerLmSpmdAdam):
    """1.3 billion parameters on 8 devices."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 1
    NUM_LAYERS = 24
    NUM_HEADS = 32
    MODEL_DIMS = 2048
    VOCAB_SIZE = 32128
    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.GELU
    USE_REPEATED_LAYER = True
    CHECKPOINT_EVERY_N_STEPS = 1000
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 4, 2)


class C4SpmdRepeatedAdam(C4SpmdAdam):
    """bfloat16, heads of width 128."""

    NUM_HEADS = None
    DIMS_PER_HEAD = 128
    VOCAB_SIZE = 32000
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16
    SUMMARY_INTERVAL_STEPS = 10


@register(tags=TAGS)
class C4Spmd1BAdam4Replicas(C4SpmdRepeatedAdam):
    """1 billion parameters on 4 devices, 15000 steps."""

    PERCORE_BATCH_SIZE = 32
    NUM_LAYERS = 13
    MODEL_DIMS = 2560
    MAX_STEPS = 15000
    ICI_MESH_SHAPE = (1, 4, 1)


@register(tags=TAGS)
class C4Spmd1BAdam4ReplicasLimitSteps(C4Spmd1BAdam4Replicas):
    """The same; it keeps its length when the other gets another one."""

    MAX_STEPS = 15000


@register(tags=TAGS)
class C4Spmd2BAdam4Replicas(C4SpmdRepeatedAdam):
    """2 billion parameters on 4 devices."""

    PERCORE_BATCH_SIZE = 32
    NUM_LAYERS = 18
    MODEL_DIMS = 3072
    MAX_STEPS = 15000
    ICI_MESH_SHAPE = (1, 4, 1)


@register(tags=TAGS)
class C4Spmd16BAdam32Replicas(C4SpmdRepeatedAdam):
    """16 billion parameters on 32 devices."""

    PERCORE_BATCH_SIZE = 16
    NUM_LAYERS = 36
    MODEL_DIMS = 6144
    ICI_MESH_SHAPE = (1, 16, 2)


@register(tags=TAGS)
class C4Spmd32BAdam64Replicas(C4SpmdRepeatedAdam):
    """32 billion parameters on 64 devices."""

    PERCORE_BATCH_SIZE = 8
    NUM_LAYERS = 40
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (1, 16, 4)


@register(tags=TAGS)
class C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas(Gpt3, TextDataset, TransformerLmSpmdAdam):
    """GPT-3 on 1536 devices, a row on each."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 1
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 64, 24)


@register(tags=TAGS)
class C4SpmdGpt3L16AdamOrgHP(C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas):
    """16 layers of GPT-3 in bfloat16 on 64 devices."""

    PERCORE_BATCH_SIZE = 3
    NUM_LAYERS = 16
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16
    ICI_MESH_SHAPE = (1, 16, 4)


@register(tags=TAGS)
class C4SpmdPipelineAdam(TextDataset, TransformerLmSpmdPipelineAdam):
    """1.3 billion parameters in 2 stages of 4 devices."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 1
    NUM_LAYERS = 24
    NUM_HEADS = 32
    MODEL_DIMS = 2048
    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.GELU
    USE_REPEATED_LAYER = True
    MICROBATCH_SIZE = 2
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (2, 1, 2, 2)


@register(tags=TAGS)
class C4SpmdPipelineGpt3SmallAdam8Replicas(Gpt3, TextDataset, TransformerLmSpmdPipelineAdam):
    """3 billion parameters like GPT-3 in 2 stages of 4 devices."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 64
    NUM_LAYERS: ClassVar[int] = 24
    NUM_HEADS: ClassVar[int | None] = 24
    MODEL_DIMS: ClassVar[int] = 3072
    LEARNING_RATE = 2e-4
    MICROBATCH_SIZE = 8
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (2, 1, 2, 2)


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamOrgHPBS1p5k768Replicas(
    Gpt3, TextDataset, TransformerLmSpmdPipelineAdam
):
    """GPT-3 in 8 stages of 96 devices, 2 rows a device."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 2
    MICROBATCH_SIZE: ClassVar[int | None] = 8
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (8, 1, 8, 12)


class C4SpmdPipelineGpt3AdamMLPerf(Gpt3MLPerf, C4SpmdPipelineGpt3AdamOrgHPBS1p5k768Replicas):
    """GPT-3 with the settings of MLPerf Training for the size of the batch."""


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamMLPerfHPBS1p5k768Replicas(C4SpmdPipelineGpt3AdamMLPerf):
    """8 stages, a global batch of 1536 rows."""

    PERCORE_BATCH_SIZE = 2
    ICI_MESH_SHAPE = (8, 1, 8, 12)
    EVAL_INTERVAL_STEPS = 16


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamMLPerfHPBS2k512Replicas(C4SpmdPipelineGpt3AdamMLPerf):
    """8 stages, a global batch of 2048 rows."""

    PERCORE_BATCH_SIZE = 4
    ICI_MESH_SHAPE = (8, 1, 8, 8)
    EVAL_INTERVAL_STEPS = 12


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamMLPerfHPBS3k768Replicas(C4SpmdPipelineGpt3AdamMLPerf):
    """4 stages, a global batch of 3072 rows."""

    PERCORE_BATCH_SIZE = 4
    ICI_MESH_SHAPE = (4, 1, 16, 12)
    EVAL_INTERVAL_STEPS = 8


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamMLPerfHPBS4k1024Replicas(C4SpmdPipelineGpt3AdamMLPerf):
    """8 stages, a global batch of 4096 rows."""

    PERCORE_BATCH_SIZE = 4
    ICI_MESH_SHAPE = (8, 1, 8, 16)
    EVAL_INTERVAL_STEPS = 6


@register(tags=TAGS)
class C4SpmdPipelineGpt3AdamMLPerfHPBS8k1024Replicas(C4SpmdPipelineGpt3AdamMLPerf):
    """4 stages, a global batch of 8192 rows."""

    PERCORE_BATCH_SIZE = 8
    ICI_MESH_SHAPE = (4, 1, 16, 16)
    EVAL_INTERVAL_STEPS = 3
