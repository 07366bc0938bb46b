"""Layers, gathered under their public names."""

from . import activations as activations
from . import adapters as adapters
from . import attention as attention
from . import attentions as attentions
from . import augmentation as augmentation
from . import augmentations as augmentations
from . import base_ops as base_ops
from . import bregman as bregman
from . import chain as chain
from . import checkpoint_policy as checkpoint_policy
from . import checks as checks
from . import chunk as chunk
from . import conformer as conformer
from . import conformers as conformers
from . import convolution as convolution
from . import convolutions as convolutions
from . import ctc_objectives as ctc_objectives
from . import einsum as einsum
from . import embedding as embedding
from . import embedding_softmax as embedding_softmax
from . import flax_adapter as flax_adapter
from . import frnn as frnn
from . import glam as glam
from . import gpu_fast_attention as gpu_fast_attention
from . import grok as grok
from . import grouped_query_attention as grouped_query_attention
from . import linears as linears
from . import losses as losses
from . import mobilenet as mobilenet
from . import model as model
from . import models as models
from . import multi_query_attention as multi_query_attention
from . import ngrammer as ngrammer
from . import normalization as normalization
from . import normalizations as normalizations
from . import pipeline as pipeline
from . import poolings as poolings
from . import quantizer as quantizer
from . import quantizer_objectives as quantizer_objectives
from . import recurrent as recurrent
from . import repeats as repeats
from . import resnets as resnets
from . import rnn_cell as rnn_cell
from . import searchable as searchable
from . import sequential as sequential
from . import sharding as sharding
from . import spectrum_augmenter as spectrum_augmenter
from . import ssm as ssm
from . import ssm_transformers as ssm_transformers
from . import state_space as state_space
from . import stats as stats
from . import stochastics as stochastics
from . import test_layers as test_layers
from . import transformer as transformer
from . import transformer_models as transformer_models
from . import transformers as transformers
from . import vanillanets as vanillanets
from . import vector_quantizer as vector_quantizer
from . import video as video
from . import vits as vits
from .activations import (
    ELU as ELU,
)
from .activations import (
    GELU as GELU,
)
from .activations import (
    BaseActivation as BaseActivation,
)
from .activations import (
    CubedReLU as CubedReLU,
)
from .activations import (
    Identity as Identity,
)
from .activations import (
    LeakyReLU as LeakyReLU,
)
from .activations import (
    ReLU as ReLU,
)
from .activations import (
    ReLU6 as ReLU6,
)
from .activations import (
    Sigmoid as Sigmoid,
)
from .activations import (
    SiLU as SiLU,
)
from .activations import (
    SquaredReLU as SquaredReLU,
)
from .activations import (
    Swish as Swish,
)
from .activations import (
    Tanh as Tanh,
)
from .adapters import (
    AdaptedTransformerFeedForward as AdaptedTransformerFeedForward,
)
from .adapters import (
    MultitaskResidualAdapter as MultitaskResidualAdapter,
)
from .attentions import (
    AttentionProjection as AttentionProjection,
)
from .attentions import (
    CausalDepthwiseConv1D as CausalDepthwiseConv1D,
)
from .attentions import (
    DotProductAttention as DotProductAttention,
)
from .attentions import (
    DotProductAttentionXL as DotProductAttentionXL,
)
from .attentions import (
    LocalSelfAttention as LocalSelfAttention,
)
from .attentions import (
    LocalSelfAttentionAlibi as LocalSelfAttentionAlibi,
)
from .attentions import (
    LocalSelfAttentionRelativeBias as LocalSelfAttentionRelativeBias,
)
from .attentions import (
    LocalSelfAttentionXL as LocalSelfAttentionXL,
)
from .attentions import (
    PerDimScale as PerDimScale,
)
from .attentions import (
    RelativeBias as RelativeBias,
)
from .attentions import (
    causal_mask as causal_mask,
)
from .attentions import (
    causal_segment_mask as causal_segment_mask,
)
from .attentions import (
    convert_paddings_to_mask as convert_paddings_to_mask,
)
from .attentions import (
    segment_mask as segment_mask,
)
from .augmentations import (
    MaskedLmDataAugmenter as MaskedLmDataAugmenter,
)
from .augmentations import (
    TemporalShifting as TemporalShifting,
)
from .base_ops import (
    EinsumOp as EinsumOp,
)
from .bregman import (
    BregmanPCA as BregmanPCA,
)
from .checkpoint_policy import (
    AutodiffCheckpointType as AutodiffCheckpointType,
)
from .conformers import (
    Conformer as Conformer,
)
from .conformers import (
    DotProductAttentionWithContext as DotProductAttentionWithContext,
)
from .conformers import (
    DotProductAttentionWithContextXL as DotProductAttentionWithContextXL,
)
from .conformers import (
    SelfAttentionWithNormAndResidual as SelfAttentionWithNormAndResidual,
)
from .convolutions import (
    Conv2D as Conv2D,
)
from .convolutions import (
    ConvBNAct as ConvBNAct,
)
from .convolutions import (
    ConvBNActWithPadding as ConvBNActWithPadding,
)
from .convolutions import (
    DepthwiseConv1D as DepthwiseConv1D,
)
from .convolutions import (
    LightConv1D as LightConv1D,
)
from .einsum import (
    Einsum as Einsum,
)
from .embedding_softmax import (
    Embedding as Embedding,
)
from .embedding_softmax import (
    FullSoftmax as FullSoftmax,
)
from .embedding_softmax import (
    GShardSharedEmbeddingSoftmax as GShardSharedEmbeddingSoftmax,
)
from .embedding_softmax import (
    PositionalEmbedding as PositionalEmbedding,
)
from .embedding_softmax import (
    PositionalEmbedding2D as PositionalEmbedding2D,
)
from .embedding_softmax import (
    SharedEmbeddingSoftmax as SharedEmbeddingSoftmax,
)
from .embedding_softmax import (
    SigmoidCrossEntropy as SigmoidCrossEntropy,
)
from .embedding_softmax import (
    TrainablePositionalEmbedding as TrainablePositionalEmbedding,
)
from .frnn import (
    FRnn as FRnn,
)
from .frnn import (
    LstmFrnn as LstmFrnn,
)
from .frnn import (
    StackFrnn as StackFrnn,
)
from .grouped_query_attention import (
    GroupedQueryAttention as GroupedQueryAttention,
)
from .linears import (
    Bias as Bias,
)
from .linears import (
    FeedForward as FeedForward,
)
from .linears import (
    Linear as Linear,
)
from .linears import (
    MLPBlock as MLPBlock,
)
from .linears import (
    StackingOverTime as StackingOverTime,
)
from .linears import (
    project_last_dim as project_last_dim,
)
from .losses import (
    BiTemperedLoss as BiTemperedLoss,
)
from .mobilenet import (
    MobileNet as MobileNet,
)
from .models import (
    BertModel as BertModel,
)
from .models import (
    ClassificationMLPModel as ClassificationMLPModel,
)
from .models import (
    ClassificationModel as ClassificationModel,
)
from .models import (
    LanguageModel as LanguageModel,
)
from .models import (
    LanguageModelContinuousBatching as LanguageModelContinuousBatching,
)
from .models import (
    LanguageModelDPO as LanguageModelDPO,
)
from .models import (
    SequenceModel as SequenceModel,
)
from .models import (
    SequenceModelDPO as SequenceModelDPO,
)
from .ngrammer import (
    Ngrammer as Ngrammer,
)
from .ngrammer import (
    VectorQuantization as VectorQuantization,
)
from .ngrammer import (
    VQNgrammer as VQNgrammer,
)
from .ngrammer import (
    get_bigram_ids as get_bigram_ids,
)
from .normalizations import (
    BaseNormalization as BaseNormalization,
)
from .normalizations import (
    BatchNorm as BatchNorm,
)
from .normalizations import (
    GroupNorm as GroupNorm,
)
from .normalizations import (
    IdentityNorm as IdentityNorm,
)
from .normalizations import (
    LayerNorm as LayerNorm,
)
from .normalizations import (
    RmsNorm as RmsNorm,
)
from .normalizations import (
    RmsNormNoScale as RmsNormNoScale,
)
from .normalizations import (
    compute_moments as compute_moments,
)
from .pipeline import (
    LayerwiseShardablePipelined as LayerwiseShardablePipelined,
)
from .poolings import (
    GlobalPooling as GlobalPooling,
)
from .poolings import (
    Pooling as Pooling,
)
from .poolings import (
    Pooling1D as Pooling1D,
)
from .quantizer import (
    RandomVectorQuantizer as RandomVectorQuantizer,
)
from .quantizer import (
    VectorQuantizer as VectorQuantizer,
)
from .quantizer import (
    quantize_vector as quantize_vector,
)
from .repeats import (
    Repeat as Repeat,
)
from .resnets import (
    ResNet as ResNet,
)
from .resnets import (
    ResNetBlock as ResNetBlock,
)
from .rnn_cell import (
    CifgLstmCellSimple as CifgLstmCellSimple,
)
from .rnn_cell import (
    LayerNormalizedLstmCellSimple as LayerNormalizedLstmCellSimple,
)
from .rnn_cell import (
    LstmCellSimple as LstmCellSimple,
)
from .sequential import (
    Sequential as Sequential,
)
from .spectrum_augmenter import (
    SpectrumAugmenter as SpectrumAugmenter,
)
from .ssm import (
    SSM as SSM,
)
from .ssm_transformers import (
    SSMGated as SSMGated,
)
from .ssm_transformers import (
    SSMTransformer as SSMTransformer,
)
from .stochastics import (
    Dropout as Dropout,
)
from .stochastics import (
    StochasticResidual as StochasticResidual,
)
from .transformer_models import (
    LanguageModelType as LanguageModelType,
)
from .transformer_models import (
    TransformerEncoderDecoder as TransformerEncoderDecoder,
)
from .transformer_models import (
    TransformerLm as TransformerLm,
)
from .transformers import (
    PipelinedTransformer as PipelinedTransformer,
)
from .transformers import (
    StackedTransformer as StackedTransformer,
)
from .transformers import (
    StackedTransformerRepeated as StackedTransformerRepeated,
)
from .transformers import (
    Transformer as Transformer,
)
from .transformers import (
    TransformerFeedForward as TransformerFeedForward,
)
from .transformers import (
    TransformerFeedForwardMoe as TransformerFeedForwardMoe,
)
from .transformers import (
    compute_attention_masks_for_extend_step as compute_attention_masks_for_extend_step,
)
from .transformers import (
    compute_attention_masks_for_fprop as compute_attention_masks_for_fprop,
)
from .vanillanets import (
    VanillaBlock as VanillaBlock,
)
from .vanillanets import (
    VanillaNet as VanillaNet,
)
from .vits import (
    VisionTransformer as VisionTransformer,
)
from .vits import (
    VitEntryLayers as VitEntryLayers,
)
from .vits import (
    VitExitLayers as VitExitLayers,
)
