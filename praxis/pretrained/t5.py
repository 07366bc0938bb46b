"""T5: Raffel et al., "Exploring the Limits of Transfer Learning", 2020, arXiv:1910.10683.

The file keeps the table of relative positions in the first layer of each stack only, and all layers
read it; here each layer has its own, which starts as a copy.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, embedding_softmax, normalizations, transformer_models
from praxis.pretrained.family import Family, activation, inner_stack, stack
from praxis.pretrained.settings import Settings
from praxis.pretrained.table import Source, Table

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def model_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of the model."""
    dims = settings.require("d_model")
    norm = _norm_config(settings)
    encoder = _stack_config(settings, settings.require("num_layers"), repeated, decoder=False)
    decoder = _stack_config(settings, _decoder_layers(settings), repeated, decoder=True)
    config = pax_fiddle.Config(
        transformer_models.TransformerEncoderDecoder,
        name="lm",
        model_dims=dims,
        position_emb_tpl=None,
        encoder_stacked_transformer_tpl=encoder,
        decoder_stacked_transformer_tpl=decoder,
        encoder_ln_tpl=norm.clone(),
        decoder_ln_tpl=norm.clone(),
    )
    vocab_size = settings.require("vocab_size")
    if _is_tied(settings):
        scale = settings.get("scale_decoder_outputs", True)
        config.softmax_tpl.scale_before_logits = scale
    else:
        config.encoder_embedding_tpl = pax_fiddle.Config(
            embedding_softmax.Embedding, num_classes=vocab_size, input_dims=dims
        )
        config.softmax_tpl = pax_fiddle.Config(embedding_softmax.FullSoftmax)
    config.softmax_tpl.num_classes = vocab_size
    config.softmax_tpl.feed_forward_tpl.has_bias = False
    return config


def _is_tied(settings: Settings) -> bool:
    return settings.get("tie_word_embeddings", True)


def _decoder_layers(settings: Settings) -> int:
    return settings.get("num_decoder_layers", settings.require("num_layers"))


def _norm_config(settings: Settings) -> LayerTpl:
    return pax_fiddle.Config(
        normalizations.RmsNorm, epsilon=settings.get("layer_norm_epsilon", 1e-6), direct_scale=True
    )


def _attention_config() -> LayerTpl:
    return pax_fiddle.Config(
        attentions.DotProductAttention, use_bias=False, internal_enable_query_scale=False
    )


def _stack_config(
    settings: Settings, num_layers: int, repeated: bool, *, decoder: bool
) -> LayerTpl:
    layers = stack(num_layers, repeated)
    inner = inner_stack(layers).set(
        model_dims=settings.require("d_model"),
        hidden_dims=settings.require("d_ff"),
        num_heads=settings.require("num_heads"),
        dim_per_head=settings.require("d_kv"),
        mask_self_attention=decoder,
        use_cross_attention=decoder,
    )
    block = inner.transformer_layer_params_tpl
    block.ln_tpl = _norm_config(settings)
    block.tr_atten_tpl = _attention_config().set(
        relative_bias_tpl=pax_fiddle.Config(
            attentions.RelativeBias,
            relative_attention_num_buckets=settings.get("relative_attention_num_buckets", 32),
            relative_attention_max_distance=settings.get("relative_attention_max_distance", 128),
            bidirectional=not decoder,
        )
    )
    block.cross_atten_tpl = _attention_config()
    gated, name = _feed_forward(settings)
    block.tr_fflayer_tpl.set(
        ln_tpl=_norm_config(settings),
        has_bias=False,
        use_gated_activation=gated,
        activation_tpl=activation(Settings({**settings.values, "act": name}), "act", "relu"),
    )
    return layers


def _feed_forward(settings: Settings) -> tuple[bool, str]:
    """Whether the feed-forward layer is gated, and the name of its activation."""
    *gated, name = settings.get("feed_forward_proj", "relu").split("-")
    # The name of old files for what all of them meant.
    return bool(gated), "gelu_new" if gated and name == "gelu" else name


def table(settings: Settings) -> Table:
    """Which tensor becomes which variable."""
    gated, _ = _feed_forward(settings)
    model = {
        "encoder_ln/scale": Source("encoder.final_layer_norm.weight"),
        "decoder_ln/scale": Source("decoder.final_layer_norm.weight"),
    }
    if _is_tied(settings):
        model["softmax/logits_ffn/linear/w"] = Source("shared.weight", "v d -> d v")
    else:
        model["encoder_embedding_lookup/emb_var"] = Source("shared.weight")
        model["softmax/logits_ffn/linear/w"] = Source("lm_head.weight", "v d -> d v")
    stacks = {
        "encoder": (
            settings.require("num_layers"),
            {
                **_attention("encoder", "self_attention", "layer_norm", 0, "SelfAttention"),
                **_ffn("encoder", 1, gated),
            },
        ),
        "decoder": (
            _decoder_layers(settings),
            {
                **_attention("decoder", "self_attention", "layer_norm", 0, "SelfAttention"),
                **_attention(
                    "decoder", "cross_attention", "cross_layer_norm", 1, "EncDecAttention"
                ),
                **_ffn("decoder", 2, gated),
            },
        ),
    }
    ignored = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return Table(model, stacks, ignored)


def _attention(
    stack_name: str, variable: str, norm: str, index: int, tensor: str
) -> dict[str, Source]:
    prefix = f"{stack_name}.block.{{layer}}.layer.{index}"
    sources = {
        f"{variable}/query/w": Source(f"{prefix}.{tensor}.q.weight", "(n h) d -> d n h"),
        f"{variable}/key/w": Source(f"{prefix}.{tensor}.k.weight", "(n h) d -> d n h"),
        f"{variable}/value/w": Source(f"{prefix}.{tensor}.v.weight", "(n h) d -> d n h"),
        f"{variable}/post/w": Source(f"{prefix}.{tensor}.o.weight", "d (n h) -> d n h"),
        f"{norm}/scale": Source(f"{prefix}.layer_norm.weight"),
    }
    if index == 0:
        first = f"{stack_name}.block.0.layer.0.{tensor}.relative_attention_bias.weight"
        sources[f"{variable}/relative_bias/wrb"] = Source(first, "buckets n -> n buckets")
    return sources


def _ffn(stack_name: str, index: int, gated: bool) -> dict[str, Source]:
    prefix = f"{stack_name}.block.{{layer}}.layer.{index}"
    inputs = {"ffn_layer1_gate": "wi_0", "ffn_layer1": "wi_1"} if gated else {"ffn_layer1": "wi"}
    return {
        "ff_layer/layer_norm/scale": Source(f"{prefix}.layer_norm.weight"),
        "ff_layer/ffn_layer2/linear/w": Source(f"{prefix}.DenseReluDense.wo.weight", "d f -> f d"),
        **{
            f"ff_layer/{variable}/linear/w": Source(
                f"{prefix}.DenseReluDense.{tensor}.weight", "f d -> d f"
            )
            for variable, tensor in inputs.items()
        },
    }


def sizes(settings: Settings) -> Mapping[str, int]:
    """Sizes of the letters in the table."""
    return {"n": settings.require("num_heads")}


def example_inputs(ids: Int[Array, "B T"]) -> dict[str, Any]:
    """The inputs of a `TransformerEncoderDecoder`."""
    paddings = jnp.zeros(ids.shape, jnp.float32)
    return {"inputs": ids, "input_paddings": paddings, "targets": ids, "target_paddings": paddings}


FAMILY = Family(model_config, table, sizes, example_inputs)
