"""Every public layer, with a small config and example inputs, for the sweeps of test_registry.py.

A new layer gets an entry here, and with it all the sweeps: shapes, jit, gradients, dtypes, copies
of the config, errors and the golden tree. Sizes are distinct, and prime where the layer allows it,
so that a swapped axis fails.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import (
    activations,
    adapters,
    attentions,
    base_ops,
    bregman,
    chain,
    einsum,
    embedding_softmax,
    flax_adapter,
    gpu_fast_attention,
    grouped_query_attention,
    linears,
    losses,
    models,
    multi_query_attention,
    ngrammer,
    normalizations,
    pipeline,
    repeats,
    sequential,
    stochastics,
    transformer_models,
    transformers,
)

Config = pax_fiddle.Config

# Batch, target and source length, model and hidden width, heads and their width, vocabulary.
B, T, S, D, F, N, H, V = 2, 5, 7, 11, 13, 2, 3, 17
# A model width that is even, for sines and cosines, and a multiple of N.
EVEN = 6
NAME = "top"


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A layer to sweep over.

    Attributes:
      name: Name of the test cases and of the golden file.
      template: Config of the layer; `config` returns a copy.
      inputs: Arguments of the call by name; NumPy arrays are traced, the rest is static.
      positional: Arguments that are passed by position, before the others.
      wrong: Arguments in place of those of `inputs` that have to be refused with an error of the
        layer; or a text that says why there are none.
      streams: Random streams the call needs beside `params`.
      has_idle_params: Whether the outputs do not depend on the parameters.
      float32_outputs: Names of the outputs that are float32 whatever `fprop_dtype` is; or "all".
    """

    name: str
    template: Config
    inputs: Mapping[str, Any]
    wrong: Mapping[str, Any] | str
    positional: Sequence[Any] = ()
    streams: Sequence[str] = ()
    has_idle_params: bool = False
    float32_outputs: Sequence[str] | str = ()

    @property
    def layer_class(self) -> type[base_layer.BaseLayer]:
        """The class of the layer."""
        cls = fdl.get_callable(self.template)
        assert isinstance(cls, type) and issubclass(cls, base_layer.BaseLayer)
        return cls

    def config(self, **fields: Any) -> Config:
        """Returns a config of the layer, under `NAME`, with further fields set."""
        return self.template.clone().set(name=NAME, **fields)

    def arguments(self, wrong: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns positional and named arguments of the call, arrays as JAX arrays."""
        inputs = dict(self.inputs)
        if wrong:
            assert not isinstance(self.wrong, str)
            inputs |= self.wrong
        # One array that is passed twice stays one.
        made: dict[int, jax.Array] = {}

        def as_jax(leaf: Any) -> Any:
            if not isinstance(leaf, np.ndarray):
                return leaf
            return made.setdefault(id(leaf), jnp.asarray(leaf))

        return jax.tree.map(as_jax, (tuple(self.positional), inputs))


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ids(*shape: int, below: int = V) -> np.ndarray:
    """Token ids, or other integers."""
    return np.random.default_rng(1).integers(0, below, shape).astype(np.int32)


def paddings(batch: int = B, length: int = T) -> np.ndarray:
    """[B, T], 1 on the last position of the last row."""
    marks = np.zeros([batch, length], np.float32)
    marks[-1, -1] = 1.0
    return marks


def causal(length: int = T) -> np.ndarray:
    """[1, 1, T, T], hides later positions."""
    return np.triu(np.full([length, length], -1e9, np.float32), 1)[np.newaxis, np.newaxis]


def open_mask(target: int = T, source: int = S) -> np.ndarray:
    """[1, 1, T, S], hides nothing."""
    return np.zeros([1, 1, target, source], np.float32)


ENTRIES: list[Entry] = []


def add(template: Config, inputs: Mapping[str, Any], variant: str = "", **options: Any) -> None:
    """Appends an entry, named after its class and the variant."""
    name = fdl.get_callable(template).__name__ + (f"-{variant}" if variant else "")
    ENTRIES.append(Entry(name=name, template=template, inputs=inputs, **options))


# ---- activations, operations, linear layers -----------------------------------------------------

for activation in (
    activations.CubedReLU,
    activations.ELU,
    activations.Exp,
    activations.GELU,
    activations.Identity,
    activations.LeakyReLU,
    activations.ReLU,
    activations.ReLU6,
    activations.SiLU,
    activations.Sigmoid,
    activations.SineReLU,
    activations.Softplus,
    activations.SquaredReLU,
    activations.Swish,
    activations.Tanh,
):
    add(Config(activation), {"inputs": floats(B, T, D)}, wrong="elementwise: any shape")
add(
    Config(activations.GELU, approximate=False),
    {"inputs": floats(B, T, D)},
    "exact",
    wrong="elementwise: any shape",
)

OPERANDS = floats(B, T, D), floats(D, F, seed=1)
add(
    Config(base_ops.EinsumOp),
    {},
    positional=("btd,df->btf", *OPERANDS),
    wrong="the equation and the operands are those of jnp.einsum, and so are the errors",
)
add(
    Config(base_ops.EinsumGatedOp),
    {},
    positional=("btd,df->btf", *OPERANDS, floats(D, F, seed=2)),
    wrong="the equation and the operands are those of jnp.einsum, and so are the errors",
)
add(
    Config(base_ops.ArrayLookup),
    {"x": floats(V, D), "idx": ids(B, T)},
    wrong="any array and any index",
)

WIDE = {"inputs": floats(B, T, D)}
WRONG_WIDTH = {"inputs": floats(B, T, D + 1)}
MESH = {"ici_mesh_shape": [2, 4], "mesh_axis_names": ["data", "mdl"]}


def sharded(config: Config, **mappings: Any) -> Config:
    """Sets a mesh and the sharding of variables; only metadata, no devices are needed."""
    config.set(**MESH)
    config.weight_split_dims_mapping.set(**mappings)
    return config


add(
    Config(einsum.Einsum, eqn="btd,dnh->btnh", w_shape=[D, N, H]),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(einsum.Einsum, eqn="...d,df->...f", w_shape=[D, F], use_bias=True),
    WIDE,
    "bias",
    wrong=WRONG_WIDTH,
)
add(Config(linears.Linear, input_dims=D, output_dims=F), WIDE, wrong=WRONG_WIDTH)
add(
    sharded(Config(linears.Linear, input_dims=D, output_dims=F), wt=["data", "mdl"]),
    WIDE,
    "sharded",
    wrong=WRONG_WIDTH,
)
add(Config(linears.Bias, dims=D), WIDE, wrong=WRONG_WIDTH)
add(Config(linears.FeedForward, input_dims=D, output_dims=F), WIDE, wrong=WRONG_WIDTH)
add(
    Config(
        linears.FeedForward,
        input_dims=D,
        output_dims=F,
        has_bias=False,
        activation_tpl=Config(activations.SiLU),
    ),
    WIDE,
    "no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        linears.MLPBlock,
        hidden_dims=F,
        ff_tpl=Config(linears.FeedForward, input_dims=D, output_dims=V),
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(linears.StackingOverTime, left_context=1, right_context=1, stride=2),
    {"inputs": floats(B, T, D), "paddings": paddings()[..., np.newaxis]},
    wrong={"paddings": paddings(length=T + 1)[..., np.newaxis]},
)

# ---- normalization, dropout ---------------------------------------------------------------------

NORM_INPUTS = {"inputs": floats(B, T, D), "paddings": paddings()}
for norm in (
    normalizations.BatchNorm,
    normalizations.LayerNorm,
    normalizations.RmsNorm,
):
    add(Config(norm, dim=D), NORM_INPUTS, wrong=WRONG_WIDTH)
for norm in (normalizations.IdentityNorm, normalizations.RmsNormNoScale):
    add(Config(norm), NORM_INPUTS, wrong="takes inputs of any width")
for norm in (normalizations.SpectralNorm, normalizations.WeightNormL2):
    add(Config(norm, dim=D), {"inputs": floats(F, D)}, wrong={"inputs": floats(F, D + 1)})
add(
    Config(normalizations.LayerNorm, dim=D, use_bias=False, reductions_in_fp32=True),
    NORM_INPUTS,
    "no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(normalizations.BatchNorm, dim=D, use_moving_avg_in_training=True),
    NORM_INPUTS,
    "moving_average",
    wrong=WRONG_WIDTH,
    # In training beta is 0 and gamma 1, whatever the variables are.
    has_idle_params=True,
)
GROUP_INPUTS = {"inputs": floats(B, T, S, EVEN), "paddings": paddings()}
WRONG_GROUP = {"inputs": floats(B, T, S, EVEN + 1)}
GROUPS = {"dim": EVEN, "num_groups": 3, "input_rank": 4}
add(Config(normalizations.GroupNorm, **GROUPS), GROUP_INPUTS, wrong=WRONG_GROUP)
add(
    Config(normalizations.GroupNorm, cumulative=True, **GROUPS),
    GROUP_INPUTS,
    "cumulative",
    wrong=WRONG_GROUP,
)

add(
    Config(stochastics.Dropout, keep_prob=0.7),
    WIDE,
    streams=["random"],
    wrong="elementwise: any shape",
)
add(
    Config(stochastics.Dropout, keep_prob=0.7, noise_shape=[B, 1, D]),
    WIDE,
    "noise_shape",
    streams=["random"],
    wrong=WRONG_WIDTH,
)
RESIDUAL = {"inputs": floats(B, T, D), "residual": floats(B, T, D, seed=1)}
add(Config(stochastics.StochasticResidual), RESIDUAL, wrong=WRONG_WIDTH)
add(
    Config(stochastics.StochasticResidual, survival_prob=0.7, residual_weight=0.5),
    RESIDUAL,
    "droppath",
    streams=["random"],
    wrong=WRONG_WIDTH,
)

# ---- embeddings and softmax ---------------------------------------------------------------------

add(
    Config(embedding_softmax.TokenCounter),
    {"inputs": ids(B, T), "paddings": paddings()},
    wrong="counts the zeros of `paddings`, of any shape",
)
TOKENS = {"ids": ids(B, T)}
for style in ("index", "matmul"):
    add(
        Config(embedding_softmax.Embedding, num_classes=V, input_dims=D, lookup_style=style),
        TOKENS,
        style,
        wrong="ids of any shape",
    )
LABELS = {
    "inputs": floats(B, T, D),
    "class_weights": 1 - paddings()[..., np.newaxis],
    "class_ids": ids(B, T, 1),
}
XENT_FLOAT32 = [
    *("per_example_xent", "total_xent", "total_weight"),
    *("avg_xent", "avg_xent_weight", "accuracy", "z_loss"),
]
CLASSES = {"input_dims": D, "num_classes": V}
for softmax in (
    embedding_softmax.FullSoftmax,
    embedding_softmax.SharedEmbeddingSoftmax,
    embedding_softmax.NClassMajorSharedEmbeddingSoftmax,
    embedding_softmax.GShardSharedEmbeddingSoftmax,
):
    add(Config(softmax, **CLASSES), LABELS, wrong=WRONG_WIDTH, float32_outputs=XENT_FLOAT32)
add(
    Config(
        embedding_softmax.FullSoftmax,
        soft_cap_logits=3.0,
        label_smoothing_prob=0.1,
        z_loss_weight=0.1,
        chunk_size=5,
        **CLASSES,
    ),
    LABELS,
    "chunked",
    wrong=WRONG_WIDTH,
    float32_outputs=XENT_FLOAT32,
)
add(Config(embedding_softmax.SigmoidCrossEntropy, **CLASSES), LABELS, wrong=WRONG_WIDTH)

add(
    Config(losses.BiTemperedLoss, t1=0.8, t2=1.2, label_smoothing=0.1),
    {"logits": floats(B, T, V), "labels": np.eye(V, dtype=np.float32)[ids(B, T)]},
    wrong={"labels": np.eye(V + 1, dtype=np.float32)[ids(B, T)]},
    float32_outputs="all",
)

SINES = {"embedding_dims": EVEN}
add(
    Config(embedding_softmax.PositionalEmbedding, **SINES),
    {"seq_length": T},
    wrong={"seq_length": None},
)
add(
    Config(embedding_softmax.PositionalEmbedding, **SINES),
    {"position": ids(B, T)},
    "position",
    wrong={"position": None},
)
add(
    Config(embedding_softmax.PositionalEmbedding2D, h=3, w=5, embedding_dims=8),
    {"seq_length": 15},
    wrong={"seq_length": 14},
)
add(
    Config(embedding_softmax.TrainablePositionalEmbedding, max_seq_length=S, **SINES),
    {"position": ids(B, T, below=S)},
    wrong={"position": None},
)
add(
    Config(embedding_softmax.RotaryPositionalEmbedding, **SINES),
    {"inputs": floats(B, T, N, EVEN), "position": ids(B, T)},
    wrong={"inputs": floats(B, T, N, EVEN + 2)},
)

# ---- Sequential, Flax modules -------------------------------------------------------------------

add(
    Config(
        sequential.Sequential,
        layers=[
            Config(linears.Linear, input_dims=D, output_dims=F),
            Config(activations.ReLU),
            Config(linears.Bias, dims=F),
        ],
    ),
    {},
    positional=(floats(B, T, D),),
    wrong="the errors are those of its layers, whose arguments are its own",
)


def make_dense() -> nn.Module:
    """A Flax module for the adapters."""
    return nn.Dense(F)


class Autoencoder(nn.Module):
    """A Flax module with the methods that EncoderDecoderFlaxModuleAdaptor forwards to."""

    def setup(self) -> None:
        self.hidden = nn.Dense(F)
        self.logits = nn.Dense(V)

    def encode(self, inputs: Any) -> Any:
        return self.hidden(inputs)

    def __call__(self, inputs: Any) -> Any:
        return self.logits(self.encode(inputs))


FOREIGN = "the wrapped Flax module checks its own inputs"
FOREIGN_FLOAT32 = "all"
for template in (
    Config(flax_adapter.FlaxModuleAdapter, module_factory_method=make_dense),
    Config(flax_adapter.DirectFlaxModuleAdapter, cld=Config(nn.Dense, features=F)),
    Config(flax_adapter.EncoderDecoderFlaxModuleAdaptor, module_factory_method=Autoencoder),
):
    add(template, WIDE, wrong=FOREIGN, float32_outputs=FOREIGN_FLOAT32)

# ---- attention ----------------------------------------------------------------------------------

HEADS = {"input_dim": D, "num_heads": N, "dim_per_head": H}
WRONG_HEADS = {"inputs": floats(B, T, N, H + 1)}
add(Config(attentions.AttentionProjection, **HEADS), WIDE, wrong=WRONG_WIDTH)
add(
    Config(attentions.AttentionProjection, use_bias=False, attention_combine_dims=True, **HEADS),
    WIDE,
    "combined_no_bias",
    wrong=WRONG_WIDTH,
)
for nhd in (False, True):
    add(
        sharded(
            Config(
                attentions.AttentionProjection,
                is_output_projection=True,
                use_nhd_shape=nhd,
                **HEADS,
            ),
            wt=["mdl", None, "data"] if nhd else ["data", "mdl", None],
        ),
        {"inputs": floats(B, T, N, H)},
        "output_nhd" if nhd else "output",
        wrong=WRONG_HEADS,
    )
add(Config(attentions.CombinedQKVProjectionLayer, **HEADS), WIDE, wrong=WRONG_WIDTH)
add(
    Config(
        attentions.CombinedQKVProjectionLayer,
        use_bias=False,
        attention_combine_dims=True,
        **HEADS,
    ),
    WIDE,
    "combined_no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(attentions.PerDimScale, dim=H),
    {"inputs": floats(B, T, N, H)},
    wrong=WRONG_HEADS,
)

ATTENTION = {"input_dim": D, "hidden_dim": N * H, "num_heads": N}
ROW = floats(B, T, D)
SELF = {"query_vec": ROW, "key_vec": ROW, "value_vec": ROW, "atten_mask": causal()}
WRONG_MASK = {"atten_mask": causal(T + 1)}
add(
    sharded(Config(attentions.DotProductAttention, **ATTENTION), proj=["data", "mdl", None]),
    SELF,
    wrong={"query_vec": floats(B, T, D + 1)},
)
add(
    Config(
        attentions.DotProductAttention,
        use_bias=False,
        use_rotary_position_emb=True,
        dim_per_head=4,
        atten_logit_cap=3.0,
        internal_enable_per_dim_scale=False,
        output_proj_use_nhd_shape=True,
        ln_tpl=Config(normalizations.RmsNorm),
        **ATTENTION,
    ),
    SELF,
    "rotary_no_bias",
    wrong=WRONG_MASK,
)
add(
    Config(attentions.DotProductAttention, combine_qkv=True, atten_dropout_prob=0.3, **ATTENTION),
    SELF,
    "combined_dropout",
    streams=["random"],
    wrong=WRONG_MASK,
)
CROSS = {
    "query_vec": floats(B, T, D),
    "key_vec": floats(B, S, F),
    "value_vec": floats(B, S, V),
    "atten_mask": open_mask(),
}
add(
    Config(
        attentions.DotProductAttention,
        **{**ATTENTION, "input_dim": {"query": D, "key": F, "value": V}},
    ),
    CROSS,
    "cross",
    wrong={"value_vec": floats(B, S, D)},
)

add(
    Config(
        attentions.RelativeBias,
        num_heads=N,
        relative_attention_num_buckets=H + 1,
        relative_attention_max_distance=T,
    ),
    {"query_segment_pos": ids(B, T), "key_segment_pos": ids(B, S)},
    wrong={"query_segment_pos": None},
)
add(
    sharded(
        Config(attentions.CausalDepthwiseConv1D, kernel_size=2, hidden_dims=[N, H]),
        wt=["mdl", None],
    ),
    {"inputs": floats(B, T, N, H), "axis": 1, "segment_pos": ids(B, T)},
    wrong=WRONG_HEADS,
)
add(
    sharded(
        Config(
            attentions.DotProductAttention,
            dconv_qkv=True,
            dconv_kernel_size=2,
            relative_bias_tpl=Config(attentions.RelativeBias, relative_attention_num_buckets=H + 1),
            attention_extra_logit=0.5,
            implementation="blockwise",
            **ATTENTION,
        ),
        proj=["data", "mdl", None],
        dconv=["mdl", None],
    ),
    SELF,
    "dconv_bias_blockwise",
    wrong=WRONG_MASK,
)
add(Config(attentions.DotProductAttentionWithLPB, **ATTENTION), SELF, wrong=WRONG_MASK)
add(
    sharded(
        Config(attentions.DotProductAttentionXL, rel_pos_emb_dim=EVEN, **ATTENTION),
        proj=["data", "mdl", None],
    ),
    SELF,
    wrong=WRONG_MASK,
)
LOCAL = {"left_context": 3, "right_context": 1, **ATTENTION}
for local, fields in (
    (attentions.LocalSelfAttention, {"block_size": 3}),
    (attentions.LocalSelfAttentionXL, {"rel_pos_emb_dim": EVEN}),
    (attentions.LocalSelfAttentionRelativeBias, {}),
    (attentions.LocalSelfAttentionAlibi, {}),
):
    add(
        sharded(Config(local, **LOCAL, **fields), proj=["data", "mdl", None]),
        SELF,
        wrong=WRONG_MASK,
    )
add(
    Config(
        attentions.LocalSelfAttention,
        simulated=True,
        relative_bias_tpl=Config(attentions.RelativeBias),
        **LOCAL,
    ),
    SELF,
    "simulated_bias",
    wrong=WRONG_MASK,
)
add(
    Config(gpu_fast_attention.GpuCudnnFusedDotProductAttention, is_causal=True, **ATTENTION),
    SELF,
    wrong=WRONG_MASK,
)

add(
    sharded(
        Config(multi_query_attention.OneHeadedAttentionProjection, input_dim=D, output_dim=H),
        wt=["data", "mdl"],
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    sharded(
        Config(multi_query_attention.MultiQueryDotProductAttention, **ATTENTION),
        proj=["data", "mdl", None],
        proj_headless=["data", None],
    ),
    SELF,
    wrong={"query_vec": floats(B, T, D + 1)},
)
add(
    Config(
        multi_query_attention.MultiQueryDotProductAttention,
        num_kv_heads=2,
        use_bias=False,
        use_rotary_position_emb=True,
        dim_per_head=4,
        atten_logit_cap=3.0,
        local_window_size=(2, 0),
        output_proj_use_nhd_shape=True,
        relative_bias_tpl=Config(attentions.RelativeBias),
        ln_tpl=Config(normalizations.RmsNorm),
        **{**ATTENTION, "hidden_dim": 16, "num_heads": 4},
    ),
    SELF,
    "grouped_rotary_window_no_bias",
    wrong=WRONG_MASK,
)
add(
    Config(
        multi_query_attention.MultiQueryDotProductAttentionLPB,
        atten_dropout_prob=0.3,
        **ATTENTION,
    ),
    SELF,
    "dropout",
    streams=["random"],
    wrong=WRONG_MASK,
)
GROUPED = {"input_dim": D, "num_heads": 4, "dim_per_head": 4}
HIDDEN = {**SELF, "atten_mask": np.triu(np.ones([T, T], bool), 1)[np.newaxis, np.newaxis]}
WRONG_HIDDEN = {"atten_mask": np.zeros([1, 1, T, T + 1], bool)}
add(
    sharded(
        Config(grouped_query_attention.GroupedQueryAttention, num_kv_heads=2, **GROUPED),
        dnh=["data", "mdl", None],
    ),
    HIDDEN,
    wrong=WRONG_HIDDEN,
)
add(
    sharded(
        Config(
            grouped_query_attention.GroupedQueryAttention,
            rope_min_max_timescales=(1, 100),
            use_bias=False,
            atten_dropout_prob=0.3,
            **GROUPED,
        ),
        dnh=["data", "mdl", None],
        dkh=[None, None, "mdl"],
    ),
    HIDDEN,
    "one_head_rope_dropout_no_bias",
    streams=["random"],
    wrong=WRONG_HIDDEN,
)
add(
    Config(
        gpu_fast_attention.GpuCudnnFusedGroupedQueryAttention,
        is_causal=True,
        num_kv_heads=2,
        **GROUPED,
    ),
    HIDDEN,
    wrong=WRONG_HIDDEN,
)

# ---- transformer layers and stacks --------------------------------------------------------------

FFN = {"input_dims": D, "hidden_dims": F}
ROWS = {"inputs": floats(B, T, D), "paddings": paddings()}
add(Config(transformers.TransformerFeedForward, **FFN), ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        transformers.TransformerFeedForward,
        use_gated_activation=True,
        has_bias=False,
        activation_tpl=Config(activations.SiLU),
        ln_tpl=Config(normalizations.RmsNorm),
        **FFN,
    ),
    ROWS,
    "gated_no_bias",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        transformers.TransformerFeedForward,
        residual_dropout_prob=0.3,
        relu_dropout_prob=0.3,
        residual_droppath_prob=0.3,
        norm_policy="primer_hybrid",
        **FFN,
    ),
    ROWS,
    "dropout_hybrid",
    streams=["random"],
    wrong=WRONG_WIDTH,
)

EXPERTS = {"num_experts": 3, "num_groups": 2, **FFN}
add(Config(transformers.TransformerFeedForwardMoe, **EXPERTS), ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        transformers.TransformerFeedForwardMoe,
        gating_func="top_k",
        unadjusted_expert_capacity_factor=0.0,
        dispatch="sort",
        use_gated_activation=True,
        activation_tpl=Config(activations.SiLU),
        norm_policy="primer_hybrid",
        **EXPERTS,
    ),
    ROWS,
    "no_drops_gated_hybrid",
    wrong=WRONG_WIDTH,
)
add(
    Config(
        transformers.TransformerFeedForwardMoe,
        gating_func="expert_choice",
        padding_takes_places=False,
        dispatch="sort",
        moe_gating_embedding_level="sentence",
        **EXPERTS,
    ),
    ROWS,
    "expert_choice_sentence",
    wrong=WRONG_WIDTH,
)

# In blocks the width is a multiple of the number of heads.
BLOCK = {"input_dims": EVEN, "hidden_dims": F, "num_heads": N}
BLOCK_ROWS = {"inputs": floats(B, T, EVEN), "paddings": paddings()}
WRONG_BLOCK = {"inputs": floats(B, T, EVEN + 1)}
CROSS_ROWS = {"cross_inputs": floats(B, S, EVEN, seed=1)}
add(
    Config(transformers.Transformer, **BLOCK),
    {**BLOCK_ROWS, "attention_mask": causal()},
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.Transformer,
        use_cross_attention=True,
        norm_policy="primer_hybrid",
        residual_dropout_prob=0.3,
        **BLOCK,
    ),
    {
        **BLOCK_ROWS,
        **CROSS_ROWS,
        "attention_mask": causal(),
        "cross_attention_mask": open_mask(),
    },
    "cross_hybrid_dropout",
    streams=["random"],
    wrong=WRONG_BLOCK,
)


def stack(**fields: Any) -> Config:
    """A stack of one layer, or of `num_layers`."""
    sizes = {"num_layers": 1, "model_dims": EVEN, "hidden_dims": F, "num_heads": N}
    return Config(transformers.StackedTransformer, **{**sizes, **fields})


def rotary_gated(config: Config) -> Config:
    """Rotated attention, gated feed-forward without biases, RMS norm in all layers of a stack."""
    config.dim_per_head = 4
    block = config.transformer_layer_params_tpl
    block.tr_atten_tpl.set(use_rotary_position_emb=True, use_bias=False)
    block.tr_fflayer_tpl.set(use_gated_activation=True, has_bias=False)
    block.ln_tpl = Config(normalizations.RmsNorm)
    block.tr_fflayer_tpl.ln_tpl = Config(normalizations.RmsNorm)
    return config


add(stack(num_layers=2, mask_self_attention=True), BLOCK_ROWS, wrong=WRONG_BLOCK)
SEGMENTS = np.array([[1, 1, 2, 2, 2], [1, 1, 1, 1, 0]], np.int32)
POSITIONS = np.array([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]], np.int32)
SEGMENT_MASK = np.where(
    SEGMENTS[:, np.newaxis, :, np.newaxis] == SEGMENTS[:, np.newaxis, np.newaxis, :], 0.0, -1e9
).astype(np.float32)
add(
    rotary_gated(stack(packed_input=True, mask_self_attention=True, remat=True)),
    {**BLOCK_ROWS, "segment_mask": SEGMENT_MASK, "segment_pos": POSITIONS},
    "packed_rotary_gated_remat",
    wrong=WRONG_BLOCK,
)
add(
    stack(use_cross_attention=True, dropout_prob=0.3, input_dropout_prob=0.3),
    {**BLOCK_ROWS, **CROSS_ROWS, "cross_paddings": paddings(length=S)},
    "cross_dropout",
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.StackedTransformerRepeated,
        block=stack(mask_self_attention=True, residual_dropout_prob=0.3),
        x_times=3,
    ),
    BLOCK_ROWS,
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        repeats.Repeat,
        sub_tpl=Config(linears.FeedForward, input_dims=D, output_dims=D),
        x_times=3,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(
        repeats.Repeat,
        sub_tpl=Config(
            repeats.Repeat,
            sub_tpl=sharded(
                Config(linears.Linear, input_dims=D, output_dims=D), wt=["data", "mdl"]
            ),
            x_times=3,
        ),
        x_times=2,
        optimizer_dims_mapping=["data"],
        **MESH,
    ),
    WIDE,
    "nested_sharded",
    wrong=WRONG_WIDTH,
)

# ---- language models ----------------------------------------------------------------------------

LM = {"model_dims": EVEN, "vocab_size": V}
LM_LABELS = py_utils.NestedMap(class_ids=ids(B, T), class_weights=1 - paddings())
LM_ROWS = {"inputs": ids(B, T), "paddings": paddings(), "labels": LM_LABELS}
LM_FLOAT32 = [
    *XENT_FLOAT32,
    *("per_token_xent", "per_sequence_xent", "total_loss", "aux_loss", "aux_loss_weight"),
]
WRONG_SEGMENTS = {"segment_ids": None, "segment_pos": POSITIONS}
add(
    Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM),
    LM_ROWS,
    float32_outputs=LM_FLOAT32,
    wrong=WRONG_SEGMENTS,
)
add(
    Config(
        transformer_models.TransformerLm,
        stacked_transformer_tpl=Config(
            transformers.StackedTransformerRepeated,
            block=rotary_gated(stack()),
            x_times=3,
        ),
        position_emb_tpl=None,
        separate_embedding_tpl=Config(embedding_softmax.Embedding),
        softmax_tpl=Config(embedding_softmax.FullSoftmax),
        final_ln_tpl=Config(normalizations.RmsNorm),
        packed_input=True,
        **LM,
    ),
    {**LM_ROWS, "segment_ids": SEGMENTS, "segment_pos": POSITIONS},
    "packed_rotary_repeated",
    float32_outputs=LM_FLOAT32,
    wrong=WRONG_SEGMENTS,
)
BATCH = py_utils.NestedMap(
    ids=ids(B, T), labels=ids(B, T), paddings=paddings(), weights=1 - paddings()
)
add(
    Config(
        models.LanguageModel,
        lm_tpl=Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM),
        count_tokens=True,
    ),
    {"input_batch": BATCH},
    float32_outputs="all",
    wrong={"input_batch": py_utils.NestedMap(ids=BATCH.ids, paddings=BATCH.paddings)},
)

# ---- encoder and decoder ------------------------------------------------------------------------

ENCODER_DECODER = Config(
    transformer_models.TransformerEncoderDecoder,
    encoder_stacked_transformer_tpl=stack(),
    decoder_stacked_transformer_tpl=stack(mask_self_attention=True, use_cross_attention=True),
    softmax_tpl=Config(embedding_softmax.SharedEmbeddingSoftmax, num_classes=V),
    model_dims=EVEN,
)
ENCODER_DECODER_ROWS = {
    "inputs": ids(B, S),
    "input_paddings": paddings(length=S),
    "targets": ids(B, T),
    "target_paddings": paddings(),
    "labels": LM_LABELS,
}
add(
    ENCODER_DECODER,
    ENCODER_DECODER_ROWS,
    float32_outputs=LM_FLOAT32,
    wrong={"target_segment_pos": POSITIONS},
)
add(
    Config(models.SequenceModel, model_tpl=ENCODER_DECODER),
    {
        "input_batch": py_utils.NestedMap(
            src=py_utils.NestedMap(ids=ids(B, S), paddings=paddings(length=S)), tgt=BATCH
        )
    },
    float32_outputs="all",
    wrong={"input_batch": py_utils.NestedMap(tgt=BATCH)},
)
ANSWER = {
    "/inputs": BATCH.ids,
    "/paddings": BATCH.paddings,
    "/labels/ids": BATCH.labels,
    "/labels/weights": BATCH.weights,
}
PAIR = {
    **{f"y_w{name}": array for name, array in ANSWER.items()},
    **{f"y_l{name}": array[::-1].copy() for name, array in ANSWER.items()},
    **{f"{half}/segment_ids": SEGMENTS for half in ("y_w", "y_l")},
    **{f"{half}/segment_pos": POSITIONS for half in ("y_w", "y_l")},
}
SMALL_LM = Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM)
add(
    Config(models.LanguageModelDPO, mdl=SMALL_LM, ref_mdl=SMALL_LM),
    {"input_batch": PAIR},
    float32_outputs="all",
    wrong={"input_batch": ANSWER},
)
TARGETS = {name.removesuffix("/inputs"): array for name, array in ANSWER.items()}
add(
    Config(models.SequenceModelDPO, model_tpl=ENCODER_DECODER),
    {
        "input_batch": {
            "inputs": ids(B, S),
            "input_paddings": paddings(length=S),
            **{f"targets_w{name}": array for name, array in TARGETS.items()},
            **{f"targets_l{name}": array[::-1].copy() for name, array in TARGETS.items()},
        }
    },
    float32_outputs="all",
    wrong={"input_batch": TARGETS},
)
HIDDEN = py_utils.NestedMap(
    **BATCH,
    segment_ids=SEGMENTS,
    segment_pos=POSITIONS,
    masked_ids=BATCH.ids[::-1].copy(),
    masked_pos=BATCH.weights,
)
add(
    Config(
        models.BertModel,
        lm_tpl=SMALL_LM.clone().set(
            packed_input=True, model_type=transformer_models.LanguageModelType.BIDIRECTIONAL
        ),
    ),
    {"input_batch": HIDDEN},
    float32_outputs="all",
    wrong={"input_batch": BATCH},
)
IMAGES = py_utils.NestedMap(image=floats(B, D), label_probs=np.eye(V, dtype=np.float32)[:B])
add(
    Config(
        models.ClassificationModel,
        network_tpl=Config(linears.Linear, input_dims=D, output_dims=F),
        softmax_tpl=Config(embedding_softmax.FullSoftmax, input_dims=F, num_classes=V),
    ),
    {"input_batch": IMAGES},
    float32_outputs=[
        f"0/{metric}/{part}"
        for metric in ("accuracy", "acc5", "avg_xent", "error", "error5", "num_predictions")
        for part in (0, 1)
    ],
    wrong={"input_batch": py_utils.NestedMap(image=IMAGES.image)},
)
add(
    Config(
        models.ClassificationMLPModel,
        mlp_tpl=Config(
            linears.MLPBlock,
            ff_tpl=Config(linears.FeedForward, input_dims=EVEN, output_dims=EVEN),
        ),
        softmax_tpl=Config(
            embedding_softmax.SharedEmbeddingSoftmax, input_dims=EVEN, num_classes=V
        ),
    ),
    {"input_batch": BATCH},
    float32_outputs="all",
    has_idle_params=True,
    wrong={"input_batch": py_utils.NestedMap(ids=BATCH.ids)},
)

# ---- n-grammers ---------------------------------------------------------------------------------

NGRAM_HEADS = {"num_heads": N, "dim_per_head": H}
NGRAMS = {"ngram_vocab_size": 23, "ngram_emb_dim": 2, **NGRAM_HEADS}
NGRAM_ROWS = {
    "input_ids": ids(B, T),
    "input_embs": floats(B, T, N * H),
    "paddings": paddings(),
}
WRONG_NGRAMS = {"input_embs": floats(B, T, N * H + 1)}
add(
    sharded(Config(ngrammer.Ngrammer, unigram_vocab_size=V, **NGRAMS), wt=["mdl", "data"]),
    {**NGRAM_ROWS, "segment_pos": POSITIONS},
    wrong=WRONG_NGRAMS,
)
add(
    Config(ngrammer.VQNgrammer, num_clusters=5, unigram_vocab_size=V, concat_ngrams=True, **NGRAMS),
    NGRAM_ROWS,
    wrong=WRONG_NGRAMS,
)
add(Config(ngrammer.NgrammerStub, **NGRAM_HEADS), NGRAM_ROWS, wrong=WRONG_NGRAMS)
PCA = {"num_components": 2, "end_step": 7}
add(Config(ngrammer.BregmanNgrammer, **NGRAMS, **PCA), NGRAM_ROWS, wrong=WRONG_NGRAMS)
HEADS_OF_ROWS = {"inputs": floats(B, T, N, H), "paddings": paddings()}
WRONG_HEADS_OF_ROWS = {"inputs": floats(B, T, N, H + 1)}
add(
    Config(ngrammer.BregmanCompression, **NGRAM_HEADS, **PCA),
    HEADS_OF_ROWS,
    float32_outputs="all",
    wrong=WRONG_HEADS_OF_ROWS,
)
add(
    Config(ngrammer.VectorQuantization, num_clusters=5, **NGRAM_HEADS),
    HEADS_OF_ROWS,
    float32_outputs=["0"],
    wrong=WRONG_HEADS_OF_ROWS,
)
add(
    Config(bregman.BregmanPCA, input_dims=D, **PCA),
    {"inputs": floats(B, D)},
    float32_outputs=["1"],
    wrong={"inputs": floats(B, D + 1)},
)

# ---- pipelines, adapters, chains ----------------------------------------------------------------

FEED_FORWARD = Config(linears.FeedForward, input_dims=D, output_dims=D)
add(
    Config(
        pipeline.LayerwiseShardablePipelined,
        single_stage_body=FEED_FORWARD,
        num_stages=3,
        num_microbatches=2,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(
        pipeline.CircularLayerwiseShardablePipelined,
        single_stage_body=FEED_FORWARD,
        num_stages=2,
        microbatch_size=1,
        circular_repeat=3,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
PIPELINE = {"num_pipeline_stages": 2, "num_pipeline_microbatches": 2}
add(
    Config(
        transformers.PipelinedTransformer,
        pipeline_stage=stack(mask_self_attention=True, residual_dropout_prob=0.3),
        circular_repeat=2,
        **PIPELINE,
    ),
    BLOCK_ROWS,
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.PipelineCompatibleStackedTransformerRepeated,
        block=stack(mask_self_attention=True),
        x_times=4,
        nd_prefix_shape=(2, 2),
    ),
    BLOCK_ROWS,
    wrong=WRONG_BLOCK,
)
ADAPTER = Config(adapters.MultitaskResidualAdapter, bottleneck_dims=F, num_tasks=3)
TASK_ROWS = {**WIDE, "paddings": paddings(), "tasks": np.array([2, 0], np.int32)}
add(ADAPTER.clone().set(input_dims=D), TASK_ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        adapters.AdaptedTransformerFeedForward,
        input_dims=D,
        hidden_dims=F,
        adapter_tpl=ADAPTER,
    ),
    TASK_ROWS,
    wrong=WRONG_WIDTH,
)
ITS_LAYERS = "the errors are those of its layers, whose arguments are its own"
POSITIONAL = {"positional": (floats(B, T, D),), "wrong": ITS_LAYERS}
add(chain.chain(FEED_FORWARD, Config(activations.Tanh), FEED_FORWARD), {}, **POSITIONAL)
add(chain.add_residual(FEED_FORWARD), {}, **POSITIONAL)
add(
    chain.apply_padding(),
    {**WIDE, "paddings": paddings()},
    wrong="the error is that of py_utils.apply_padding",
)
add(
    chain.dict_to_args("x", "paddings"),
    {"input_batch": {"x": floats(B, T, D), "paddings": paddings()}},
    wrong={"input_batch": {"x": floats(B, T, D)}},
)
add(chain.full_like(7.0), WIDE, wrong="takes any array")
add(chain.log_args("arguments"), {}, positional=(floats(B, T, D),), wrong="takes anything")
