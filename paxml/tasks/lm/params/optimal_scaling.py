"""Models whose depth and width grow together: D is 128 times the number of layers.

The names are those of the TPU slices that they are for, in chips along each axis.
"""

from collections.abc import Sequence
from typing import ClassVar

from paxml.experiment.registry import register
from paxml.tasks.lm.params.c4 import TAGS, C4SpmdRepeatedAdam


class OptimalScaling(C4SpmdRepeatedAdam):
    """A model of NUM_LAYERS heads of width 128; all chips split weights and batch."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 4
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = None


@register(tags=TAGS)
class OptimalScaling2x2x1(OptimalScaling):
    """28 layers on 4 chips."""

    NUM_LAYERS = 28
    MODEL_DIMS = 3584
    ICI_MESH_SHAPE = (1, 4, 1)


@register(tags=TAGS)
class OptimalScaling2x2x2(OptimalScaling):
    """32 layers on 8 chips."""

    NUM_LAYERS = 32
    MODEL_DIMS = 4096
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class OptimalScaling2x2x4(OptimalScaling):
    """36 layers on 16 chips."""

    NUM_LAYERS = 36
    MODEL_DIMS = 4608
    ICI_MESH_SHAPE = (1, 16, 1)


@register(tags=TAGS)
class OptimalScaling2x4x4(OptimalScaling):
    """40 layers on 32 chips."""

    NUM_LAYERS = 40
    MODEL_DIMS = 5120
    ICI_MESH_SHAPE = (1, 32, 1)


@register(tags=TAGS)
class OptimalScaling4x4x4(OptimalScaling):
    """45 layers on 64 chips."""

    NUM_LAYERS = 45
    MODEL_DIMS = 5760
    ICI_MESH_SHAPE = (1, 64, 1)


@register(tags=TAGS)
class OptimalScaling4x4x8(OptimalScaling):
    """50 layers on 128 chips."""

    NUM_LAYERS = 50
    MODEL_DIMS = 6400
    ICI_MESH_SHAPE = (1, 128, 1)


@register(tags=TAGS)
class OptimalScaling4x8x8(OptimalScaling):
    """56 layers on 256 chips."""

    NUM_LAYERS = 56
    MODEL_DIMS = 7168
    ICI_MESH_SHAPE = (1, 256, 1)


@register(tags=TAGS)
class OptimalScaling4x8x16(OptimalScaling):
    """64 layers on 512 chips."""

    NUM_LAYERS = 64
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (1, 512, 1)


@register(tags=TAGS)
class OptimalScaling4x16x16(OptimalScaling):
    """64 layers on 1024 chips."""

    NUM_LAYERS = 64
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (1, 1024, 1)


@register(tags=TAGS)
class OptimalScaling4x16x32(OptimalScaling):
    """64 layers on 2048 chips."""

    NUM_LAYERS = 64
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (1, 2048, 1)


@register(tags=TAGS)
class OptimalScaling4x24x32(OptimalScaling):
    """64 layers on 3072 chips."""

    NUM_LAYERS = 64
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (3, 1024, 1)
