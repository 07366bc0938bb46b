"""Configs of language models like Grok-1: grouped-query attention, gated experts in all layers."""

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.attention.multi_query import MultiQueryDotProductAttention
from praxis.layers.model.glam import GlamStackedTransformerHParams, GlamUniTransformerLmHParams
from praxis.layers.model.transformer_lm import LanguageModelType
from praxis.layers.transformer.feed_forward import TransformerFeedForward
from praxis.layers.transformer.pipelined_stack import PipelinedTransformer
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat_stack import StackedTransformerRepeated

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def GrokStackedTransformerHParams(  # a published name
    model_dim: int,
    ff_dim: int,
    attention_num_heads: int,
    attention_num_groups: int,
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
    use_fp8: bool = False,
) -> LayerTpl:
    """Config of one layer, with experts if asked for.

    RMS normalization comes before attention and experts. Projections have biases, experts have
    none. Without experts the feed-forward is `TransformerFeedForward` with its own defaults, as in
    models that were trained so: layer normalization, ReLU and no gate.

    The layer does not know positions: models that were trained so stay as they are. For new ones
    set `transformer_layer_params_tpl.tr_atten_tpl.use_rotary_position_emb` to True.

    Args:
      model_dim: Width of the model.
      ff_dim: Hidden width of the feed-forward.
      attention_num_heads: Number of query heads.
      attention_num_groups: Number of heads of keys and values, which divides the former.
      attention_key_value_dim: Width of a head.
      name: Name of the layer.
      moe: Whether there are experts.
      moe_hidden_dim: Hidden width of an expert; None or 0 takes `ff_dim`.
      moe_gating_embedding_level: "token" or "sentence", see `TransformerFeedForwardMoe`.
      ffn_activation_cls: Nonlinearity of the experts.
      use_gated_activation: Whether the experts have a gate.
      mask_self_attention: Whether queries see no later keys.
      cross_attention: Whether to attend to another sequence too.
      atten_logit_cap: Soft cap of the logits of attention; 0 for none.
      attention_extra_logit: Logit of a key of value 0 that all queries see; 0 or None for none.
      relative_attention_num_buckets: Not read: there is no bias by relative position.
      relative_attention_max_distance: Not read.
      moe_load_balance_loss_weight: Weight of the auxiliary loss.
      moe_gating_func: How tokens and experts find each other.
      moe_gating_logit_cap: Bound of the logits of experts; 0 for none.
      num_groups: Number of groups of tokens.
      c_dim: Least number of places for the tokens of a group in an expert.
      capacity_factor: The same, over the number of tokens of a group per expert; 0 takes `c_dim`.
      e_dim: Number of experts.
      combine_qkv: Has to be False: queries have more heads than keys and values.
      bidirectional: Not read.
      use_fp8: Not built yet; has to be False.

    Raises:
      ValueError: with `combine_qkv`.
      NotImplementedError: with `use_fp8`.
    """
    if combine_qkv:
        raise ValueError(
            "GrokStackedTransformerHParams: combine_qkv = True: queries have more heads than keys "
            "and values, so that one projection cannot make all three. Set it to False."
        )
    stack = GlamStackedTransformerHParams(
        model_dim,
        ff_dim,
        attention_num_heads,
        attention_key_value_dim,
        name=name,
        moe=moe,
        moe_hidden_dim=moe_hidden_dim,
        moe_gating_embedding_level=moe_gating_embedding_level,
        ffn_activation_cls=ffn_activation_cls,
        use_gated_activation=use_gated_activation,
        mask_self_attention=mask_self_attention,
        cross_attention=cross_attention,
        moe_load_balance_loss_weight=moe_load_balance_loss_weight,
        moe_gating_func=moe_gating_func,
        moe_gating_logit_cap=moe_gating_logit_cap,
        num_groups=num_groups,
        c_dim=c_dim,
        capacity_factor=capacity_factor,
        e_dim=e_dim,
    )
    stack.num_layers = 1
    layer = stack.transformer_layer_params_tpl
    layer.tr_atten_tpl = pax_fiddle.Config(
        MultiQueryDotProductAttention,
        num_kv_heads=attention_num_groups,
        atten_logit_cap=atten_logit_cap,
        # 0 is the default of an argument that used not to be read.
        attention_extra_logit=attention_extra_logit or None,
    )
    layer.tr_fflayer_tpl = pax_fiddle.Config(TransformerFeedForward)
    if moe:
        stack.moe_layer_tpl.set(
            activation_tpl=pax_fiddle.Config(ffn_activation_cls),
            use_gated_activation=use_gated_activation,
        )
    if use_fp8:
        raise NotImplementedError(
            "use_fp8 = True: products in 8-bit floating point are not built yet. Leave it False."
        )
    return stack


def GrokUniTransformerLmHParams(  # a published name
    vocab_size: int,
    model_dim: int,
    ff_dim: int,
    attention_num_heads: int,
    attention_num_groups: int,
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
    num_pipeline_stages: int = 1,
    num_pipeline_microbatches: int = 1,
    model_type: LanguageModelType = LanguageModelType.CAUSAL,
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_NOTHING,
    use_fp8: bool = False,
) -> LayerTpl:
    """Config of a language model whose layers are alike.

    Args:
      vocab_size: Number of token ids.
      model_dim: Width of the model.
      ff_dim: Hidden width of the feed-forward.
      attention_num_heads: Number of query heads.
      attention_num_groups: Number of heads of keys and values.
      attention_key_value_dim: Width of a head.
      num_transformer_layers: Number of layers.
      name: Name of the model.
      moe: As the following, see `GrokStackedTransformerHParams`.
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
      num_pipeline_stages: Number of pipeline stages; more than 1 takes the place of the loop.
      num_pipeline_microbatches: Number of microbatches of the pipeline.
      model_type: Which tokens see which.
      checkpoint_policy: What loop or pipeline keep for the backward pass.
      use_fp8: There.

    Raises:
      ValueError: if the layers do not divide into stages.
    """
    if num_transformer_layers % num_pipeline_stages:
        raise ValueError(
            f"GrokUniTransformerLmHParams: num_transformer_layers = {num_transformer_layers} is "
            f"not a multiple of num_pipeline_stages = {num_pipeline_stages}."
        )
    stack = GrokStackedTransformerHParams(
        model_dim,
        ff_dim,
        attention_num_heads,
        attention_num_groups,
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
        use_fp8=use_fp8,
    )
    # What is around the layers is that of GLaM.
    model = GlamUniTransformerLmHParams(
        vocab_size,
        model_dim,
        ff_dim,
        attention_num_heads,
        attention_key_value_dim,
        num_transformer_layers,
        name=name,
        use_tgt_labels_size_as_loss_denominator=use_tgt_labels_size_as_loss_denominator,
        z_loss_weight=z_loss_weight,
        model_type=model_type,
    )
    if num_pipeline_stages == 1:
        model.stacked_transformer_tpl = pax_fiddle.Config(
            StackedTransformerRepeated,
            name="transformer",
            block=stack,
            x_times=num_transformer_layers,
            unroll_in_decode=True,
            checkpoint_policy=checkpoint_policy,
        )
        return model
    stack.num_layers = num_transformer_layers // num_pipeline_stages
    if moe:
        stack.moe_layers = list(range(stack.num_layers))
    model.stacked_transformer_tpl = pax_fiddle.Config(
        PipelinedTransformer,
        name="transformer",
        pipeline_stage=stack,
        num_pipeline_stages=num_pipeline_stages,
        num_pipeline_microbatches=num_pipeline_microbatches,
        stream_io=True,
        checkpoint_policy=checkpoint_policy,
    )
    return model
