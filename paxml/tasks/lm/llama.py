"""Settings of Llama 2: Touvron et al., 2023, arXiv:2307.09288."""

from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.tasks.lm.adam import TransformerLmSpmdAdam
from praxis.layers import activations, normalizations


class Llama(TransformerLmSpmdAdam):
    """Rotary positions, RMS normalization, gated SiLU, no biases, input and output tables apart."""

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 2
    MAX_SEQ_LEN: ClassVar[int] = 4096
    NUM_HEADS: ClassVar[int | None] = None
    DIMS_PER_HEAD: ClassVar[int | None] = 128
    VOCAB_SIZE: ClassVar[int] = 32000
    USE_PER_DIM_SCALE: ClassVar[bool] = False
    ATTEN_LOGIT_CAP: ClassVar[float] = 0.0
    SOFTMAX_CAP_LOGITS: ClassVar[float] = 0.0
    COMBINE_QKV: ClassVar[bool] = False
    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.SiLU
    USE_GATED_ACTIVATION: ClassVar[bool] = True
    NORM_CLS: ClassVar[type[normalizations.BaseNormalization]] = normalizations.RmsNorm
    USE_ROTARY_POSITION_EMB: ClassVar[bool] = True
    SEPARATE_EMBEDDING: ClassVar[bool] = True
    USE_REPEATED_LAYER: ClassVar[bool] = True
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16

    LEARNING_RATE: ClassVar[float] = 3e-4
    WEIGHT_DECAY: ClassVar[float] = 0.1
    ADAM_BETA2: ClassVar[float] = 0.95
    ADAM_EPSILON: ClassVar[float] = 1e-5
    CLIP_GRADIENT_NORM: ClassVar[float] = 1.0
    COSINE: ClassVar[bool] = True
    WARMUP_STEPS: ClassVar[int] = 2000
    DECAY_END: ClassVar[int] = 500_000


class Llama7B(Llama):
    """7 billion parameters on 8 devices."""

    NUM_LAYERS: ClassVar[int] = 32
    MODEL_DIMS: ClassVar[int] = 4096
    HIDDEN_DIMS: ClassVar[int | None] = 11008
    ICI_MESH_SHAPE = (1, 8, 1)


class Llama13B(Llama):
    """13 billion parameters on 8 devices."""

    NUM_LAYERS: ClassVar[int] = 40
    MODEL_DIMS: ClassVar[int] = 5120
    HIDDEN_DIMS: ClassVar[int | None] = 13824
    ICI_MESH_SHAPE = (1, 8, 1)


class Llama70B(Llama):
    """70 billion parameters on 64 devices; 8 query heads share keys and values."""

    NUM_LAYERS: ClassVar[int] = 80
    MODEL_DIMS: ClassVar[int] = 8192
    HIDDEN_DIMS: ClassVar[int | None] = 28672
    NUM_KV_HEADS: ClassVar[int | None] = 8
    ICI_MESH_SHAPE = (1, 16, 4)
