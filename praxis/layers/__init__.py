"""Layers, gathered under their public names."""

from praxis.layers.activations import (
    ELU,
    GELU,
    BaseActivation,
    CubedReLU,
    Identity,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    SquaredReLU,
    Swish,
    Tanh,
)
from praxis.layers.adapters import (
    AdaptedTransformerFeedForward,
    MultitaskResidualAdapter,
)
from praxis.layers.attentions import (
    AttentionProjection,
    CausalDepthwiseConv1D,
    DotProductAttention,
    PerDimScale,
    RelativeBias,
    causal_mask,
    causal_segment_mask,
    convert_paddings_to_mask,
    segment_mask,
)
from praxis.layers.base_ops import (
    EinsumOp,
)
from praxis.layers.bregman import (
    BregmanPCA,
)
from praxis.layers.checkpoint_policy import (
    AutodiffCheckpointType,
)
from praxis.layers.einsum import (
    Einsum,
)
from praxis.layers.embedding_softmax import (
    Embedding,
    FullSoftmax,
    GShardSharedEmbeddingSoftmax,
    PositionalEmbedding,
    PositionalEmbedding2D,
    SharedEmbeddingSoftmax,
    SigmoidCrossEntropy,
    TrainablePositionalEmbedding,
)
from praxis.layers.grouped_query_attention import (
    GroupedQueryAttention,
)
from praxis.layers.linears import (
    Bias,
    FeedForward,
    Linear,
    MLPBlock,
    StackingOverTime,
    project_last_dim,
)
from praxis.layers.losses import (
    BiTemperedLoss,
)
from praxis.layers.models import (
    BertModel,
    ClassificationMLPModel,
    ClassificationModel,
    LanguageModel,
    LanguageModelDPO,
    SequenceModel,
    SequenceModelDPO,
)
from praxis.layers.ngrammer import (
    Ngrammer,
    VectorQuantization,
    VQNgrammer,
    get_bigram_ids,
)
from praxis.layers.normalizations import (
    BaseNormalization,
    BatchNorm,
    GroupNorm,
    IdentityNorm,
    LayerNorm,
    RmsNorm,
    RmsNormNoScale,
    compute_moments,
)
from praxis.layers.pipeline import (
    LayerwiseShardablePipelined,
)
from praxis.layers.repeats import (
    Repeat,
)
from praxis.layers.sequential import (
    Sequential,
)
from praxis.layers.stochastics import (
    Dropout,
    StochasticResidual,
)
from praxis.layers.transformer_models import (
    LanguageModelType,
    TransformerEncoderDecoder,
    TransformerLm,
)
from praxis.layers.transformers import (
    PipelinedTransformer,
    StackedTransformer,
    StackedTransformerRepeated,
    Transformer,
    TransformerFeedForward,
    TransformerFeedForwardMoe,
    compute_attention_masks_for_extend_step,
    compute_attention_masks_for_fprop,
)

__all__ = [
    "ELU",
    "GELU",
    "AdaptedTransformerFeedForward",
    "AttentionProjection",
    "AutodiffCheckpointType",
    "BaseActivation",
    "BaseNormalization",
    "BatchNorm",
    "BertModel",
    "BiTemperedLoss",
    "Bias",
    "BregmanPCA",
    "CausalDepthwiseConv1D",
    "ClassificationMLPModel",
    "ClassificationModel",
    "CubedReLU",
    "DotProductAttention",
    "Dropout",
    "Einsum",
    "EinsumOp",
    "Embedding",
    "FeedForward",
    "FullSoftmax",
    "GShardSharedEmbeddingSoftmax",
    "GroupNorm",
    "GroupedQueryAttention",
    "Identity",
    "IdentityNorm",
    "LanguageModel",
    "LanguageModelDPO",
    "LanguageModelType",
    "LayerNorm",
    "LayerwiseShardablePipelined",
    "LeakyReLU",
    "Linear",
    "MLPBlock",
    "MultitaskResidualAdapter",
    "Ngrammer",
    "PerDimScale",
    "PipelinedTransformer",
    "PositionalEmbedding",
    "PositionalEmbedding2D",
    "ReLU",
    "ReLU6",
    "RelativeBias",
    "Repeat",
    "RmsNorm",
    "RmsNormNoScale",
    "SequenceModel",
    "SequenceModelDPO",
    "Sequential",
    "SharedEmbeddingSoftmax",
    "SiLU",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "SquaredReLU",
    "StackedTransformer",
    "StackedTransformerRepeated",
    "StackingOverTime",
    "StochasticResidual",
    "Swish",
    "Tanh",
    "TrainablePositionalEmbedding",
    "Transformer",
    "TransformerEncoderDecoder",
    "TransformerFeedForward",
    "TransformerFeedForwardMoe",
    "TransformerLm",
    "VQNgrammer",
    "VectorQuantization",
    "causal_mask",
    "causal_segment_mask",
    "compute_attention_masks_for_extend_step",
    "compute_attention_masks_for_fprop",
    "compute_moments",
    "convert_paddings_to_mask",
    "get_bigram_ids",
    "project_last_dim",
    "segment_mask",
]
