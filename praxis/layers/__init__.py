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
    DotProductAttentionXL,
    LocalSelfAttention,
    LocalSelfAttentionAlibi,
    LocalSelfAttentionRelativeBias,
    LocalSelfAttentionXL,
    PerDimScale,
    RelativeBias,
    causal_mask,
    causal_segment_mask,
    convert_paddings_to_mask,
    segment_mask,
)
from praxis.layers.augmentations import (
    MaskedLmDataAugmenter,
    TemporalShifting,
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
from praxis.layers.convolutions import (
    Conv2D,
    ConvBNAct,
    ConvBNActWithPadding,
    DepthwiseConv1D,
    LightConv1D,
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
from praxis.layers.mobilenet import (
    MobileNet,
)
from praxis.layers.models import (
    BertModel,
    ClassificationMLPModel,
    ClassificationModel,
    LanguageModel,
    LanguageModelContinuousBatching,
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
from praxis.layers.poolings import (
    GlobalPooling,
    Pooling,
    Pooling1D,
)
from praxis.layers.repeats import (
    Repeat,
)
from praxis.layers.resnets import (
    ResNet,
    ResNetBlock,
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
from praxis.layers.vanillanets import (
    VanillaBlock,
    VanillaNet,
)
from praxis.layers.vits import (
    VisionTransformer,
    VitEntryLayers,
    VitExitLayers,
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
    "Conv2D",
    "ConvBNAct",
    "ConvBNActWithPadding",
    "CubedReLU",
    "DepthwiseConv1D",
    "DotProductAttention",
    "DotProductAttentionXL",
    "Dropout",
    "Einsum",
    "EinsumOp",
    "Embedding",
    "FeedForward",
    "FullSoftmax",
    "GShardSharedEmbeddingSoftmax",
    "GlobalPooling",
    "GroupNorm",
    "GroupedQueryAttention",
    "Identity",
    "IdentityNorm",
    "LanguageModel",
    "LanguageModelContinuousBatching",
    "LanguageModelDPO",
    "LanguageModelType",
    "LayerNorm",
    "LayerwiseShardablePipelined",
    "LeakyReLU",
    "LightConv1D",
    "Linear",
    "LocalSelfAttention",
    "LocalSelfAttentionAlibi",
    "LocalSelfAttentionRelativeBias",
    "LocalSelfAttentionXL",
    "MLPBlock",
    "MaskedLmDataAugmenter",
    "MobileNet",
    "MultitaskResidualAdapter",
    "Ngrammer",
    "PerDimScale",
    "PipelinedTransformer",
    "Pooling",
    "Pooling1D",
    "PositionalEmbedding",
    "PositionalEmbedding2D",
    "ReLU",
    "ReLU6",
    "RelativeBias",
    "Repeat",
    "ResNet",
    "ResNetBlock",
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
    "TemporalShifting",
    "TrainablePositionalEmbedding",
    "Transformer",
    "TransformerEncoderDecoder",
    "TransformerFeedForward",
    "TransformerFeedForwardMoe",
    "TransformerLm",
    "VQNgrammer",
    "VanillaBlock",
    "VanillaNet",
    "VectorQuantization",
    "VisionTransformer",
    "VitEntryLayers",
    "VitExitLayers",
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
