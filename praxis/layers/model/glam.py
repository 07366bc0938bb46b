"""Configs of GLaM language models, of Du et al., 2021, arXiv:2112.06905."""

from typing import Any

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, normalizations
from praxis.layers.attention.bias import RelativeBias
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.embedding.gshard import GShardSharedEmbeddingSoftmax
from praxis.layers.model.transformer_lm import LanguageModelType, TransformerLm
from praxis.layers.transformer.block import Transformer
from praxis.layers.transformer.feed_forward import TransformerFeedForward
from praxis.layers.transformer.moe import TransformerFeedForwardMoe
from praxis.layers.transformer.pipelined_stack import PipelinedTransformer
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat_stack import StackedTransformerRepeated
from praxis.layers.transformer.stack import StackedTransformer

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def GlamStackedTransformerHParams(
    model_dim: int,
    ff_dim: int,
    attention_num_heads: int,
    attention_key_value_dim: int,
    name: str = "transformer",
    moe: bool = False,
    moe_hidden_dim: int | None = None,
    moe_gating_embedding_level: str = "token",
    ffn_activation_cls: type[activations.BaseActivation] = activations.GELU,
    use_gated_activation: bool = True,
    mask_self_attention: bool = True,
    cross_attention: bool = False,
    atten_logit_cap: float = 0.0,
    attention_extra_logit: float | None = 0.0,
    relative_attention_num_buckets: int = 32,
    relative_attention_max_distance: int = 128,
    moe_load_balance_loss_weight: float = 0.01,
    moe_gating_func: str = "top2",
    moe_gating_logit_cap: float = 0.0,
    num_groups: int = 1,
    c_dim: int | None = None,
    capacity_factor: float = 0.0,
    e_dim: int | None = None,
    combine_qkv: bool = False,
    bidirectional: bool = False,
) -> LayerTpl:
    """Config of one layer, or with experts of two: the first has experts, the second does not.

    There are no biases, RMS normalization before each sublayer, and attention by relative position.

    Args:
      model_dim: Width of the model.
      ff_dim: Hidden width of the feed-forward.
      attention_num_heads: Number of heads.
      attention_key_value_dim: Width of a head.
      name: Name of the layer.
      moe: Whether there are experts.
      moe_hidden_dim: Hidden width of an expert; None or 0 takes `ff_dim`.
      moe_gating_embedding_level: "token" or "sentence", see `TransformerFeedForwardMoe`.
      ffn_activation_cls: Nonlinearity of the feed-forward; experts have ReLU.
      use_gated_activation: Whether the feed-forward has a gate; experts have none.
      mask_self_attention: Whether queries see no later keys.
      cross_attention: Whether to attend to another sequence too.
      atten_logit_cap: Soft cap of the logits of attention; 0 for none.
      attention_extra_logit: Logit of a key of value 0 that all queries see; None for none. 0 is a
        logit as any other.
      relative_attention_num_buckets: Number of distances that are told apart.
      relative_attention_max_distance: Distance from which on none are, tokens.
      moe_load_balance_loss_weight: Weight of the auxiliary loss.
      moe_gating_func: How tokens and experts find each other.
      moe_gating_logit_cap: Bound of the logits of experts; 0 for none.
      num_groups: Number of groups of tokens.
      c_dim: Least number of places for the tokens of a group in an expert.
      capacity_factor: The same, over the number of tokens of a group per expert; 0 takes `c_dim`.
      e_dim: Number of experts.
      combine_qkv: Project to queries, keys and values with one variable.
      bidirectional: Whether distances to later keys are told apart too.
    """
    layer = pax_fiddle.Config(
        Transformer,
        ln_tpl=_norm(),
        tr_atten_tpl=_attention(
            atten_logit_cap=atten_logit_cap,
            attention_extra_logit=attention_extra_logit,
            combine_qkv=combine_qkv,
            relative_bias_tpl=pax_fiddle.Config(
                RelativeBias,
                relative_attention_num_buckets=relative_attention_num_buckets,
                relative_attention_max_distance=relative_attention_max_distance,
                bidirectional=bidirectional,
            ),
        ),
        tr_fflayer_tpl=pax_fiddle.Config(
            TransformerFeedForward,
            has_bias=False,
            apply_padding_first=True,
            ln_tpl=_norm(),
            activation_tpl=pax_fiddle.Config(ffn_activation_cls),
            use_gated_activation=use_gated_activation,
            internal_gshard_variance_scaling_fan_in_init=True,
        ),
    )
    stack = pax_fiddle.Config(
        StackedTransformer,
        name=name,
        num_layers=2 if moe else 1,
        moe_layers=[0] if moe else [],
        packed_input=True,
        model_dims=model_dim,
        hidden_dims=ff_dim,
        num_heads=attention_num_heads,
        dim_per_head=attention_key_value_dim,
        mask_self_attention=mask_self_attention,
        use_cross_attention=cross_attention,
        transformer_layer_params_tpl=layer,
    )
    if moe:
        stack.set(
            num_experts=e_dim,
            num_groups=num_groups,
            gating_func=moe_gating_func,
            moe_layer_tpl=pax_fiddle.Config(
                TransformerFeedForwardMoe,
                hidden_dims=moe_hidden_dim or ff_dim,
                apply_padding_first=True,
                ln_tpl=_norm(),
                expert_capacity_dim=c_dim or 0,
                unadjusted_expert_capacity_factor=capacity_factor,
                moe_gating_embedding_level=moe_gating_embedding_level,
                moe_load_balance_loss_weight=moe_load_balance_loss_weight,
                gating_logit_cap=moe_gating_logit_cap,
            ),
        )
    return stack


def _norm() -> LayerTpl:
    return pax_fiddle.Config(normalizations.RmsNorm, direct_scale=True)


def _attention(*, combine_qkv: bool, **fields: Any) -> LayerTpl:
    """Attention without biases, whose queries are scaled by how their weights start."""
    attention = pax_fiddle.Config(
        DotProductAttention,
        use_bias=False,
        internal_gshard_gaussian_init=True,
        internal_enable_query_scale=False,
        internal_enable_per_dim_scale=False,
        output_proj_use_nhd_shape=True,
        combine_qkv=combine_qkv,
        **fields,
    )
    attention.proj_tpl.attention_combine_dims = True
    if combine_qkv:
        attention.combined_qkv_proj_tpl.set(use_bias=False, attention_combine_dims=True)
    return attention


def GlamUniTransformerLmHParams(
    vocab_size: int,
    model_dim: int,
    ff_dim: int,
    attention_num_heads: int,
    attention_key_value_dim: int,
    num_transformer_layers: int,
    name: str = "transformer",
    moe: bool = False,
    moe_hidden_dim: int | None = None,
    moe_gating_embedding_level: str = "token",
    ffn_activation_cls: type[activations.BaseActivation] = activations.GELU,
    use_gated_activation: bool = True,
    atten_logit_cap: float = 0.0,
    attention_extra_logit: float | None = 0.0,
    relative_attention_num_buckets: int = 32,
    relative_attention_max_distance: int = 128,
    moe_gating_func: str = "top2",
    moe_gating_logit_cap: float = 0.0,
    num_groups: int = 1,
    c_dim: int | None = None,
    capacity_factor: float = 0.0,
    e_dim: int | None = None,
    use_tgt_labels_size_as_loss_denominator: bool = True,
    moe_load_balance_loss_weight: float = 0.01,
    z_loss_weight: float = 1e-4,
    combine_qkv: bool = False,
    bidirectional: bool = False,
    repeat: bool = True,
    num_pipeline_stages: int = 1,
    num_pipeline_microbatches: int = 1,
    model_type: LanguageModelType = LanguageModelType.CAUSAL,
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_NOTHING,
) -> LayerTpl:
    """Config of a language model; every other layer, from the first on, has experts.

    Args:
      vocab_size: Number of token ids.
      model_dim: Width of the model.
      ff_dim: Hidden width of the feed-forward.
      attention_num_heads: Number of heads.
      attention_key_value_dim: Width of a head.
      num_transformer_layers: Number of layers, even with experts.
      name: Name of the model.
      moe: As the following, see `GlamStackedTransformerHParams`.
      moe_hidden_dim: There.
      moe_gating_embedding_level: There.
      ffn_activation_cls: There.
      use_gated_activation: There.
      atten_logit_cap: There.
      attention_extra_logit: There.
      relative_attention_num_buckets: There.
      relative_attention_max_distance: There.
      moe_gating_func: There.
      moe_gating_logit_cap: There.
      num_groups: There.
      c_dim: There.
      capacity_factor: There.
      e_dim: There.
      use_tgt_labels_size_as_loss_denominator: Average the loss over all positions, padding
        included.
      moe_load_balance_loss_weight: There.
      z_loss_weight: Weight of the auxiliary loss that keeps the softmax normalised.
      combine_qkv: There.
      bidirectional: There.
      repeat: Loop over the layers, with stacked variables.
      num_pipeline_stages: Number of pipeline stages; more than 1 takes the place of the loop.
      num_pipeline_microbatches: Number of microbatches of the pipeline.
      model_type: Which tokens see which.
      checkpoint_policy: What the loop keeps for the backward pass.

    Raises:
      ValueError: if the layers do not divide into pairs or stages.
    """
    stack = GlamStackedTransformerHParams(
        model_dim,
        ff_dim,
        attention_num_heads,
        attention_key_value_dim,
        name="transformer",
        moe=moe,
        moe_hidden_dim=moe_hidden_dim,
        moe_gating_embedding_level=moe_gating_embedding_level,
        ffn_activation_cls=ffn_activation_cls,
        use_gated_activation=use_gated_activation,
        mask_self_attention=model_type == LanguageModelType.CAUSAL,
        atten_logit_cap=atten_logit_cap,
        attention_extra_logit=attention_extra_logit,
        relative_attention_num_buckets=relative_attention_num_buckets,
        relative_attention_max_distance=relative_attention_max_distance,
        moe_load_balance_loss_weight=moe_load_balance_loss_weight,
        moe_gating_func=moe_gating_func,
        moe_gating_logit_cap=moe_gating_logit_cap,
        num_groups=num_groups,
        c_dim=c_dim,
        capacity_factor=capacity_factor,
        e_dim=e_dim,
        combine_qkv=combine_qkv,
        bidirectional=bidirectional,
    )
    return pax_fiddle.Config(
        TransformerLm,
        name=name,
        packed_input=True,
        model_dims=model_dim,
        vocab_size=vocab_size,
        model_type=model_type,
        position_emb_tpl=None,
        final_ln_tpl=_norm(),
        softmax_tpl=pax_fiddle.Config(
            GShardSharedEmbeddingSoftmax,
            z_loss_weight=z_loss_weight,
            use_tgt_labels_size_as_loss_denominator=use_tgt_labels_size_as_loss_denominator,
        ),
        stacked_transformer_tpl=_in_all_layers(
            stack,
            num_layers=num_transformer_layers,
            repeat=repeat,
            num_stages=num_pipeline_stages,
            num_microbatches=num_pipeline_microbatches,
            checkpoint_policy=checkpoint_policy,
        ),
    )


def _in_all_layers(
    stack: LayerTpl,
    *,
    num_layers: int,
    repeat: bool,
    num_stages: int,
    num_microbatches: int,
    checkpoint_policy: AutodiffCheckpointType,
) -> LayerTpl:
    """The stack of one or two layers, as the block of a loop, or with more layers."""
    if num_layers % (stack.num_layers * num_stages):
        raise ValueError(
            f"GlamUniTransformerLmHParams: num_transformer_layers = {num_layers} is not a multiple "
            f"of {stack.num_layers * num_stages}: blocks have {stack.num_layers} layers, and "
            f"num_pipeline_stages is {num_stages}."
        )
    if num_stages == 1 and repeat:
        return pax_fiddle.Config(
            StackedTransformerRepeated,
            name="transformer",
            block=stack,
            x_times=num_layers // stack.num_layers,
            unroll_in_decode=True,
            checkpoint_policy=checkpoint_policy,
        )
    if stack.moe_layers:
        stack.moe_layers = list(range(0, num_layers // num_stages, 2))
    stack.num_layers = num_layers // num_stages
    if num_stages == 1:
        return stack
    return pax_fiddle.Config(
        PipelinedTransformer,
        name="transformer",
        pipeline_stage=stack,
        num_pipeline_stages=num_stages,
        num_pipeline_microbatches=num_microbatches,
        stream_io=True,
    )
