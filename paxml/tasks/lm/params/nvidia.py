"""Language models for GPUs on synthetic data, at sizes that were published.

GPT-like ones follow Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
Clusters Using Megatron-LM", 2021, arXiv:2104.04473: depth, width and heads for a number of
parameters. Llama, GLaM and Grok have the sizes that they were published with. Settings that no
publication gives, such as meshes and batches, are choices for nodes of 8 GPUs. A Proxy has the
width of the named model and few layers.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.experiment.registry import register
from paxml.tasks.lm.adam import TransformerLmSpmdAdam, TransformerLmSpmdPipelineAdam
from paxml.tasks.lm.experts import Glam, GlamWithExpertAxis, GrokInStages, GrokSettings
from paxml.tasks.lm.gpt3 import Gpt3
from paxml.tasks.lm.llama import Llama7B, Llama13B, Llama70B
from paxml.tasks.lm.synthetic import SyntheticDataset

TAGS = ["example", "gpu"]


class GptSettings(Gpt3, SyntheticDataset):
    """Settings of GPT-3 at another size, in bfloat16; training does not look for a target."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 4
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16
    TARGET_LOG_PPLX: ClassVar[float | None] = None


class NvidiaSpmd(GptSettings, TransformerLmSpmdAdam):
    """A model like GPT-3 split over data and model axes."""

    DIMS_PER_HEAD: ClassVar[int | None] = None


class NvidiaPipeline(GptSettings, TransformerLmSpmdPipelineAdam):
    """A model like GPT-3 in stages."""

    DIMS_PER_HEAD: ClassVar[int | None] = None
    MICROBATCH_SIZE: ClassVar[int | None] = 2


@register(tags=TAGS)
class TestSmallConfig(NvidiaSpmd):
    """2 layers on one device, to try things out."""

    __test__ = False  # not one of pytest's

    MAX_SEQ_LEN = 128
    NUM_LAYERS = 2
    NUM_HEADS = 4
    MODEL_DIMS = 64
    VOCAB_SIZE = 1024
    TRAINABLE_POSITIONS = 128
    ICI_MESH_SHAPE = (1, 1, 1)


@register(tags=TAGS)
class NVIDIA1_3B(NvidiaSpmd):
    """1.3 billion parameters on 8 devices."""

    NUM_LAYERS = 24
    NUM_HEADS = 16
    MODEL_DIMS = 2048
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class NVIDIA5B(NvidiaSpmd):
    """5 billion parameters on 8 devices."""

    NUM_LAYERS = 24
    NUM_HEADS = 32
    MODEL_DIMS = 4096
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class NVIDIA8_3B(NvidiaSpmd):
    """8.3 billion parameters on 8 devices."""

    NUM_LAYERS = 72
    NUM_HEADS = 24
    MODEL_DIMS = 3072
    ICI_MESH_SHAPE = (1, 1, 8)


@register(tags=TAGS)
class NVIDIA10B(NvidiaSpmd):
    """10 billion parameters on 16 devices."""

    NUM_LAYERS = 32
    NUM_HEADS = 40
    MODEL_DIMS = 5120
    ICI_MESH_SHAPE = (1, 2, 8)


@register(tags=TAGS)
class NVIDIA40BProxy(NvidiaSpmd):
    """4 layers of a model of 40 billion parameters, on 8 devices."""

    NUM_LAYERS = 4
    NUM_HEADS = 64
    MODEL_DIMS = 8192
    ICI_MESH_SHAPE = (1, 1, 8)


@register(tags=TAGS)
class NVIDIA70BProxy(NvidiaSpmd):
    """4 layers of a model of 70 billion parameters, on 8 devices."""

    NUM_LAYERS = 4
    NUM_HEADS = 80
    MODEL_DIMS = 10240
    ICI_MESH_SHAPE = (1, 1, 8)


@register(tags=TAGS)
class NVIDIA116BProxy(NvidiaSpmd):
    """4 layers of a model of 116 billion parameters, on 8 devices."""

    NUM_LAYERS = 4
    NUM_HEADS = 96
    MODEL_DIMS = 12288
    ICI_MESH_SHAPE = (1, 1, 8)


@register(tags=TAGS)
class NVIDIA175BProxy(NvidiaPipeline):
    """8 layers of GPT-3 in 8 stages, on 64 devices."""

    NUM_LAYERS = 8
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (8, 1, 1, 8)


@register(tags=TAGS)
class NVIDIA175B(NVIDIA175BProxy):
    """GPT-3 in 8 stages, on 64 devices."""

    NUM_LAYERS = 96


@register(tags=TAGS)
class NVIDIA175B_FSDP(NvidiaSpmd):
    """GPT-3 on 256 devices, which split weights and batch."""

    PERCORE_BATCH_SIZE = 1
    ICI_MESH_SHAPE = (1, 256, 1)


@register(tags=TAGS)
class NVIDIA_CIRCULAR_REPEAT(NvidiaPipeline):
    """16 layers of GPT-3 in 4 stages, around which a microbatch goes twice; on 32 devices."""

    NUM_LAYERS = 16
    CIRCULAR_REPEAT = 2
    ICI_MESH_SHAPE = (4, 1, 1, 8)


@register(tags=TAGS)
class Llama2_7B(Llama7B, SyntheticDataset):
    """7 billion parameters on 8 devices."""


@register(tags=TAGS)
class Llama2_13B(Llama13B, SyntheticDataset):
    """13 billion parameters on 8 devices."""


@register(tags=TAGS)
class Llama2_70B(Llama70B, SyntheticDataset):
    """70 billion parameters on 64 devices."""


@register(tags=TAGS)
class Llama33BProxy(Llama13B, SyntheticDataset):
    """8 layers of the first Llama of 33 billion parameters, on 8 devices."""

    NUM_LAYERS = 8
    MODEL_DIMS = 6656
    HIDDEN_DIMS = 17920
    MAX_SEQ_LEN: ClassVar[int] = 2048


@register(tags=TAGS)
class MoELarge(Glam, SyntheticDataset):
    """GLaM of 8 billion parameters a token and 64 experts, on 64 devices."""

    NUM_LAYERS = 32
    NUM_HEADS = 32
    MODEL_DIMS = 4096
    HIDDEN_DIMS = 16384
    ICI_MESH_SHAPE = (1, 64, 1)


class GLaM64B64EProxy(Glam, SyntheticDataset):
    """4 layers of GLaM of 64 billion parameters a token and 64 experts, on 64 devices."""

    NUM_LAYERS = 4
    NUM_HEADS = 128
    MODEL_DIMS = 8192
    HIDDEN_DIMS = 32768
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 64, 1)


@register(tags=TAGS)
class GLaM64B64EProxy_EP(GlamWithExpertAxis, GLaM64B64EProxy):
    """The same with an axis of experts."""

    ICI_MESH_SHAPE = (1, 1, 64, 1)


@register(tags=TAGS)
class Grok(GrokSettings, SyntheticDataset):
    """Grok-1 on 64 devices."""

    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 8, 8)


@register(tags=TAGS)
class Grok_Proxy(Grok):
    """2 layers of Grok-1 on 8 devices."""

    NUM_LAYERS = 2
    ICI_MESH_SHAPE = (1, 8, 1)


@register(tags=TAGS)
class Grok_PP(GrokInStages, Grok):
    """Grok-1 in 8 stages of 8 devices."""

    ICI_MESH_SHAPE = (8, 1, 8, 1)


@register(tags=TAGS)
class Grok_Proxy_PP(Grok_PP):
    """8 layers of Grok-1 in 8 stages of a device."""

    NUM_LAYERS = 8
    ICI_MESH_SHAPE = (8, 1, 1, 1)
