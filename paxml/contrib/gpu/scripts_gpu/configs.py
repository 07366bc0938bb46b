"""GPT-like and Llama models for GPUs, on synthetic tokens or on text.

The Pile and LAMBADA are not shipped: see `TextDataset` for what is read instead.
"""

from typing import ClassVar

from paxml.experiment.registry import register
from paxml.tasks.lm import llama
from paxml.tasks.lm.params.nvidia import TAGS, NvidiaPipeline, NvidiaSpmd
from paxml.tasks.lm.synthetic import SyntheticDataset
from paxml.tasks.lm.text import TextDataset


class PileDataset(TextDataset):
    """Text like that of the Pile: Gao et al., 2020, arXiv:2101.00027."""

    TRAIN_NAME: ClassVar[str] = "PileTrain"
    EVAL_NAME: ClassVar[str] = "PileValidation"


class LambadaDataset(TextDataset):
    """Text like that of LAMBADA: Paperno et al., 2016, arXiv:1606.06031."""

    TRAIN_NAME: ClassVar[str] = "PileTrain"
    EVAL_NAME: ClassVar[str] = "Lambada"


@register(tags=TAGS)
class Synthetic126M(NvidiaSpmd):
    """126 million parameters on 8 devices."""

    NUM_LAYERS: ClassVar[int] = 12
    NUM_HEADS: ClassVar[int | None] = 12
    MODEL_DIMS: ClassVar[int] = 768
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class Synthetic5B(NvidiaSpmd):
    """5 billion parameters on 8 devices."""

    NUM_LAYERS: ClassVar[int] = 24
    NUM_HEADS: ClassVar[int | None] = 32
    MODEL_DIMS: ClassVar[int] = 4096
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class Synthetic175B(NvidiaPipeline):
    """175 billion parameters in 8 stages of 16 devices."""

    ICI_MESH_SHAPE = (8, 1, 2, 8)


@register(tags=TAGS)
class Pile126M(PileDataset, Synthetic126M):
    """126 million parameters on text."""


@register(tags=TAGS)
class Pile5B(PileDataset, Synthetic5B):
    """5 billion parameters on text."""


@register(tags=TAGS)
class Pile175B(PileDataset, Synthetic175B):
    """175 billion parameters on text."""


@register(tags=TAGS)
class Lambada126M(LambadaDataset, Synthetic126M):
    """126 million parameters, evaluated on another text."""


@register(tags=TAGS)
class LLaMA7B(llama.Llama7B, SyntheticDataset):
    """7 billion parameters on 8 devices."""


@register(tags=TAGS)
class LLaMA13B(llama.Llama13B, SyntheticDataset):
    """13 billion parameters on 8 devices."""


@register(tags=TAGS)
class LLaMA70B(llama.Llama70B, SyntheticDataset):
    """70 billion parameters on 64 devices."""
