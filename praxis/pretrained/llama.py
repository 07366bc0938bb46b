"""Llama, Mistral, Gemma and Mixtral: prenorm, rotary positions, gated feed-forward layers.

Touvron et al., "LLaMA", 2023, arXiv:2302.13971; Jiang et al., "Mistral 7B", 2023, arXiv:2310.06825;
Gemma Team, "Gemma", 2024, arXiv:2403.08295; Jiang et al., "Mixtral of Experts", 2024,
arXiv:2401.04088.
"""

from collections.abc import Mapping
from typing import Any

from praxis import base_layer, pax_fiddle
from praxis.layers import (
    embedding_softmax,
    multi_query_attention,
    normalizations,
    transformer_models,
    transformers,
)
from praxis.pretrained.family import Family, activation, inner_stack, stack
from praxis.pretrained.settings import Settings
from praxis.pretrained.table import Source, Table

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def llama_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of a Llama."""
    settings.only("attention_bias", False)
    settings.only("mlp_bias", False)
    dims = settings.require("hidden_size")
    norm = pax_fiddle.Config(
        normalizations.RmsNorm, epsilon=settings.get("rms_norm_eps", 1e-6), direct_scale=True
    )
    layers = stack(settings.require("num_hidden_layers"), repeated)
    inner = inner_stack(layers).set(
        num_heads=settings.require("num_attention_heads"),
        dim_per_head=head_dims(settings),
        hidden_dims=settings.require("intermediate_size"),
    )
    block = inner.transformer_layer_params_tpl
    block.ln_tpl = norm.clone()
    block.tr_atten_tpl = _attention_config(settings)
    block.tr_fflayer_tpl.set(
        ln_tpl=norm.clone(),
        has_bias=False,
        use_gated_activation=True,
        activation_tpl=activation(settings, "hidden_act", "silu"),
    )
    config = pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        model_dims=dims,
        vocab_size=settings.require("vocab_size"),
        position_emb_tpl=None,
        stacked_transformer_tpl=layers,
        final_ln_tpl=norm.clone(),
    )
    if is_tied(settings):
        config.softmax_tpl.feed_forward_tpl.has_bias = False
    else:
        config.separate_embedding_tpl = pax_fiddle.Config(embedding_softmax.Embedding)
        config.softmax_tpl = pax_fiddle.Config(embedding_softmax.FullSoftmax)
        config.softmax_tpl.feed_forward_tpl.has_bias = False
    return config


def mistral_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of a Mistral: a Llama whose tokens see a window."""
    config = llama_config(settings, repeated)
    window = settings.get("sliding_window")
    if window is not None:
        # The window counts the token itself.
        inner_stack(config.stacked_transformer_tpl).local_window_size = (window - 1, 0)
    return config


def gemma_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of a Gemma: a Llama with tied, scaled embeddings and scales around 1."""
    config = llama_config(settings, repeated)
    inner = inner_stack(config.stacked_transformer_tpl)
    block = inner.transformer_layer_params_tpl
    for norm in (config.final_ln_tpl, block.ln_tpl, block.tr_fflayer_tpl.ln_tpl):
        norm.direct_scale = False
    block.tr_fflayer_tpl.activation_tpl = activation(settings, "hidden_act", "gelu_pytorch_tanh")
    config.softmax_tpl.scale_sqrt_depth = True
    return config


def mixtral_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of a Mixtral: a Mistral with a mixture of experts in each layer."""
    config = mistral_config(settings, repeated)
    inner = inner_stack(config.stacked_transformer_tpl)
    dense = inner.transformer_layer_params_tpl.tr_fflayer_tpl
    inner.moe_layers = list(range(inner.num_layers))
    inner.num_experts = settings.require("num_local_experts")
    inner.gating_func = "top_k"
    inner.moe_layer_tpl = pax_fiddle.Config(
        transformers.TransformerFeedForwardMoe,
        experts_per_token=settings.get("num_experts_per_tok", 2),
        expert_capacity_dim=0,
        unadjusted_expert_capacity_factor=0.0,
        num_groups=1,
        use_gated_activation=True,
        activation_tpl=dense.activation_tpl.clone(),
        ln_tpl=dense.ln_tpl.clone(),
    )
    return config


def is_tied(settings: Settings) -> bool:
    """Whether the softmax shares the table of embeddings."""
    default = settings.get("model_type") == "gemma"
    return settings.get("tie_word_embeddings", default)


def head_dims(settings: Settings) -> int:
    """H, width of a head."""
    default = settings.require("hidden_size") // settings.require("num_attention_heads")
    return settings.get("head_dim", default)


def _attention_config(settings: Settings) -> LayerTpl:
    heads = settings.require("num_attention_heads")
    rotary = pax_fiddle.Config(
        embedding_softmax.RotaryPositionalEmbedding, max_timescale=_rotary_timescale(settings)
    )
    return pax_fiddle.Config(
        multi_query_attention.MultiQueryDotProductAttention,
        num_kv_heads=settings.get("num_key_value_heads", heads),
        use_bias=False,
        use_rotary_position_emb=True,
        rotary_position_emb_tpl=rotary,
        scale_query_by_dim_per_head=True,
        consolidate_rope_key_state=True,
    )


def _rotary_timescale(settings: Settings) -> Any:
    """The longest wavelength of the rotation over 2 pi, in tokens."""
    # Since version 5 of the format the settings are together in one entry.
    rope = settings.get("rope_parameters", settings.get("rope_scaling", {}))
    Settings({"model_type": settings.get("model_type"), **rope}).only("rope_type", "default")
    timescale = rope.get("rope_theta", settings.get("rope_theta", 10_000.0))
    return int(timescale)


_ATTENTION = {
    "layer_norm/scale": Source("input_layernorm.weight"),
    "self_attention/query/w": Source("self_attn.q_proj.weight", "(n h) d -> d n h"),
    "self_attention/post/w": Source("self_attn.o_proj.weight", "d (n h) -> d n h"),
}
_DENSE = {
    "ff_layer/layer_norm/scale": Source("post_attention_layernorm.weight"),
    "ff_layer/ffn_layer1_gate/linear/w": Source("mlp.gate_proj.weight", "f d -> d f"),
    "ff_layer/ffn_layer1/linear/w": Source("mlp.up_proj.weight", "f d -> d f"),
    "ff_layer/ffn_layer2/linear/w": Source("mlp.down_proj.weight", "d f -> f d"),
}
_EXPERTS = {
    "ff_layer/layer_norm/scale": Source("post_attention_layernorm.weight"),
    "ff_layer/gate": Source("block_sparse_moe.gate.weight", "e d -> d e"),
    "ff_layer/wi_gate_0": Source("block_sparse_moe.experts.{expert}.w1.weight", "e f d -> e d f"),
    "ff_layer/wi_0": Source("block_sparse_moe.experts.{expert}.w3.weight", "e f d -> e d f"),
    "ff_layer/wo_0": Source("block_sparse_moe.experts.{expert}.w2.weight", "e d f -> e f d"),
}


def _table(settings: Settings, feed_forward: Mapping[str, Source]) -> Table:
    one_kv_head = settings.get("num_key_value_heads") == 1
    # A single key-value head is stored without an axis of heads.
    kv_pattern = "h d -> d h" if one_kv_head else "(k h) d -> d k h"
    layer = {
        **_ATTENTION,
        "self_attention/key/w": Source("self_attn.k_proj.weight", kv_pattern),
        "self_attention/value/w": Source("self_attn.v_proj.weight", kv_pattern),
        **feed_forward,
    }
    model = {"final_ln/scale": Source("model.norm.weight")}
    if is_tied(settings):
        model["softmax/logits_ffn/linear/w"] = Source("model.embed_tokens.weight", "v d -> d v")
        ignored = ("lm_head.weight",)
    else:
        model["embedding_lookup/emb_var"] = Source("model.embed_tokens.weight")
        model["softmax/logits_ffn/linear/w"] = Source("lm_head.weight", "v d -> d v")
        ignored = ()
    prefixed = {k: s._replace(name=f"model.layers.{{layer}}.{s.name}") for k, s in layer.items()}
    stacks = {"transformer": (settings.require("num_hidden_layers"), prefixed)}
    return Table(model, stacks, (*ignored, "*.rotary_emb.inv_freq"))


def dense_table(settings: Settings) -> Table:
    """Which tensor becomes which variable of a Llama, Mistral or Gemma."""
    return _table(settings, _DENSE)


def mixtral_table(settings: Settings) -> Table:
    """Which tensor becomes which variable of a Mixtral."""
    return _table(settings, _EXPERTS)


def sizes(settings: Settings) -> Mapping[str, int]:
    """Sizes of the letters in the tables."""
    return {"h": head_dims(settings), "e": settings.get("num_local_experts", 1)}


LLAMA = Family(llama_config, dense_table, sizes)
MISTRAL = Family(mistral_config, dense_table, sizes)
GEMMA = Family(gemma_config, dense_table, sizes)
MIXTRAL = Family(mixtral_config, mixtral_table, sizes)
