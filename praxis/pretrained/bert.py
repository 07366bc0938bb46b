"""BERT: Devlin et al., "BERT", 2018, arXiv:1810.04805, with its head for hidden tokens.

The head that predicts whether a sentence follows another, and the pooler, are left out.
"""

from collections.abc import Mapping

from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax, linears, normalizations, transformer_models
from praxis.pretrained.family import Family, activation, inner_stack, stack
from praxis.pretrained.settings import Settings
from praxis.pretrained.table import Source, Table

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def model_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of the model."""
    settings.only("position_embedding_type", "absolute")
    dims, vocab_size = settings.require("hidden_size"), settings.require("vocab_size")
    norm = pax_fiddle.Config(
        normalizations.LayerNorm, epsilon=settings.get("layer_norm_eps", 1e-12), direct_scale=True
    )
    nonlinearity = activation(settings, "hidden_act", "gelu")
    layers = stack(settings.require("num_hidden_layers"), repeated)
    inner = inner_stack(layers).set(
        num_heads=settings.require("num_attention_heads"),
        hidden_dims=settings.require("intermediate_size"),
    )
    block = inner.transformer_layer_params_tpl
    block.set(ln_tpl=norm.clone(), norm_policy="post_skip")
    block.tr_atten_tpl.internal_enable_per_dim_scale = False
    block.tr_fflayer_tpl.set(ln_tpl=norm.clone(), activation_tpl=nonlinearity.clone())
    return pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        model_dims=dims,
        vocab_size=vocab_size,
        model_type=transformer_models.LanguageModelType.BIDIRECTIONAL,
        position_emb_tpl=pax_fiddle.Config(
            embedding_softmax.TrainablePositionalEmbedding,
            max_seq_length=settings.require("max_position_embeddings"),
        ),
        token_type_emb_tpl=pax_fiddle.Config(
            embedding_softmax.Embedding, num_classes=settings.get("type_vocab_size", 2)
        ),
        embedding_ln_tpl=norm.clone(),
        stacked_transformer_tpl=layers,
        head_tpl=pax_fiddle.Config(linears.FeedForward, activation_tpl=nonlinearity.clone()),
        final_ln_tpl=norm.clone(),
    )


def table(settings: Settings) -> Table:
    """Which tensor becomes which variable."""
    embeddings, transform = "bert.embeddings", "cls.predictions.transform"
    model = {
        "position_emb/emb_var": Source(f"{embeddings}.position_embeddings.weight"),
        "token_type_emb/emb_var": Source(f"{embeddings}.token_type_embeddings.weight"),
        "embedding_ln/scale": Source(f"{embeddings}.LayerNorm.weight"),
        "embedding_ln/bias": Source(f"{embeddings}.LayerNorm.bias"),
        "head/linear/w": Source(f"{transform}.dense.weight", "d e -> e d"),
        "head/bias/b": Source(f"{transform}.dense.bias"),
        "final_ln/scale": Source(f"{transform}.LayerNorm.weight"),
        "final_ln/bias": Source(f"{transform}.LayerNorm.bias"),
        "softmax/logits_ffn/linear/w": Source(f"{embeddings}.word_embeddings.weight", "v d -> d v"),
        "softmax/logits_ffn/bias/b": Source("cls.predictions.bias"),
    }
    layer = {
        "self_attention/post/w": Source("attention.output.dense.weight", "d (n h) -> d n h"),
        "self_attention/post/b": Source("attention.output.dense.bias"),
        "layer_norm/scale": Source("attention.output.LayerNorm.weight"),
        "layer_norm/bias": Source("attention.output.LayerNorm.bias"),
        "ff_layer/ffn_layer1/linear/w": Source("intermediate.dense.weight", "f d -> d f"),
        "ff_layer/ffn_layer1/bias/b": Source("intermediate.dense.bias"),
        "ff_layer/ffn_layer2/linear/w": Source("output.dense.weight", "d f -> f d"),
        "ff_layer/ffn_layer2/bias/b": Source("output.dense.bias"),
        "ff_layer/layer_norm/scale": Source("output.LayerNorm.weight"),
        "ff_layer/layer_norm/bias": Source("output.LayerNorm.bias"),
    }
    for name in ("query", "key", "value"):
        tensor = f"attention.self.{name}"
        layer[f"self_attention/{name}/w"] = Source(f"{tensor}.weight", "(n h) d -> d n h")
        layer[f"self_attention/{name}/b"] = Source(f"{tensor}.bias", "(n h) -> n h")
    prefixed = {
        path: source._replace(name=f"bert.encoder.layer.{{layer}}.{source.name}")
        for path, source in layer.items()
    }
    ignored = (
        "bert.embeddings.position_ids",
        "bert.pooler.*",
        "cls.predictions.decoder.*",
        "cls.seq_relationship.*",
    )
    return Table(model, {"transformer": (settings.require("num_hidden_layers"), prefixed)}, ignored)


def sizes(settings: Settings) -> Mapping[str, int]:
    """Sizes of the letters in the table."""
    return {"n": settings.require("num_attention_heads")}


FAMILY = Family(model_config, table, sizes)
