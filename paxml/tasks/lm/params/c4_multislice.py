"""Language models for C4 on several TPU slices, each of which holds all weights.

The number before x in a name is that of the slices, and what follows is their kind; v4 counts two
cores a chip, v5 one. All chips of a slice split weights and batch.
"""

from collections.abc import Sequence
from typing import ClassVar

from paxml.experiment.registry import register
from paxml.tasks.lm.params.c4 import (
    TAGS,
    C4Spmd32BAdam64Replicas,
    C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas,
    C4SpmdRepeatedAdam,
)


class C4Spmd22BAdam(C4SpmdRepeatedAdam):
    """22 billion parameters."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 8
    NUM_LAYERS: ClassVar[int] = 48
    NUM_HEADS: ClassVar[int | None] = 24
    DIMS_PER_HEAD: ClassVar[int | None] = 256
    MODEL_DIMS: ClassVar[int] = 6144
    VOCAB_SIZE: ClassVar[int] = 32768
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 64, 1)


@register(tags=TAGS)
class C4Spmd22BAdamMaxText(C4Spmd22BAdam):
    """22 billion parameters on one slice of 64 chips."""


@register(tags=TAGS)
class C4Spmd22BAdam1xv4_128(C4Spmd22BAdam):
    """1 slice of 64 chips."""

    DCN_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam1xv4_128LimitSteps(C4Spmd22BAdam1xv4_128):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4Spmd22BAdam2xv4_128(C4Spmd22BAdam):
    """2 slices of 64 chips."""

    DCN_MESH_SHAPE = (2, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam2xv4_128LimitSteps(C4Spmd22BAdam2xv4_128):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4Spmd22BAdam4xv4_128(C4Spmd22BAdam):
    """4 slices of 64 chips."""

    DCN_MESH_SHAPE = (4, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam4xv4_128LimitSteps(C4Spmd22BAdam4xv4_128):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4Spmd22BAdam1xv4_384(C4Spmd22BAdam):
    """1 slice of 192 chips."""

    ICI_MESH_SHAPE = (1, 192, 1)
    DCN_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam2xv4_384(C4Spmd22BAdam):
    """2 slices of 192 chips."""

    ICI_MESH_SHAPE = (1, 192, 1)
    DCN_MESH_SHAPE = (2, 1, 1)


class C4Spmd22BAdamSmall(C4Spmd22BAdam):
    """16 layers of width 2048 on slices of 4 chips."""

    NUM_LAYERS: ClassVar[int] = 16
    MODEL_DIMS: ClassVar[int] = 2048
    NUM_HEADS: ClassVar[int | None] = None
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 4, 1)


@register(tags=TAGS)
class C4Spmd22BAdam1xv4_8(C4Spmd22BAdamSmall):
    """A small model on 1 slice of 4 chips."""

    DCN_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam1xv4_8LimitSteps(C4Spmd22BAdam1xv4_8):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4Spmd22BAdam2xv4_8(C4Spmd22BAdamSmall):
    """A small model on 2 slices of 4 chips."""

    DCN_MESH_SHAPE = (2, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam2xv4_8LimitSteps(C4Spmd22BAdam2xv4_8):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4Spmd22BAdam4xv4_8(C4Spmd22BAdamSmall):
    """A small model on 4 slices of 4 chips."""

    DCN_MESH_SHAPE = (4, 1, 1)


@register(tags=TAGS)
class C4Spmd22BAdam4xv4_8LimitSteps(C4Spmd22BAdam4xv4_8):
    """300 steps of it."""

    MAX_STEPS = 300


@register(tags=TAGS)
class C4SpmdGpt3AdamDataParallel2x16x16(C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas):
    """GPT-3 on 2 slices of 16 by 16 chips."""

    PERCORE_BATCH_SIZE = 3
    ICI_MESH_SHAPE = (1, 16, 16)
    DCN_MESH_SHAPE = (2, 1, 1)


@register(tags=TAGS)
class C4Spmd32BAdam1xv5_256(C4Spmd32BAdam64Replicas):
    """32 billion parameters on 1 slice of 256 chips."""

    PERCORE_BATCH_SIZE = 4
    ICI_MESH_SHAPE = (1, 256, 1)
    DCN_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class C4Spmd32BAdam2xv5_256(C4Spmd32BAdam64Replicas):
    """32 billion parameters on 2 slices of 256 chips."""

    PERCORE_BATCH_SIZE = 4
    ICI_MESH_SHAPE = (1, 256, 1)
    DCN_MESH_SHAPE = (2, 1, 1)
