"""GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019."""

from collections.abc import Mapping

from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax, normalizations, transformer_models
from praxis.pretrained.family import Family, activation, inner_stack, stack
from praxis.pretrained.settings import Settings
from praxis.pretrained.table import Source, Table

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def model_config(settings: Settings, repeated: bool) -> LayerTpl:
    """The config of the model."""
    settings.only("scale_attn_weights", True)
    settings.only("scale_attn_by_inverse_layer_idx", False)
    dims = settings.require("n_embd")
    norm = pax_fiddle.Config(
        normalizations.LayerNorm,
        epsilon=settings.get("layer_norm_epsilon", 1e-5),
        direct_scale=True,
    )
    layers = stack(settings.require("n_layer"), repeated)
    inner = inner_stack(layers).set(
        num_heads=settings.require("n_head"), hidden_dims=settings.get("n_inner", 4 * dims)
    )
    block = inner.transformer_layer_params_tpl
    block.ln_tpl = norm.clone()
    block.tr_atten_tpl.set(combine_qkv=True, internal_enable_per_dim_scale=False)
    block.tr_fflayer_tpl.set(
        ln_tpl=norm.clone(), activation_tpl=activation(settings, "activation_function", "gelu_new")
    )
    config = pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        model_dims=dims,
        vocab_size=settings.require("vocab_size"),
        position_emb_tpl=pax_fiddle.Config(
            embedding_softmax.TrainablePositionalEmbedding,
            max_seq_length=settings.require("n_positions"),
        ),
        stacked_transformer_tpl=layers,
        final_ln_tpl=norm.clone(),
    )
    config.softmax_tpl.feed_forward_tpl.has_bias = False
    return config


def table(settings: Settings) -> Table:
    """Which tensor becomes which variable."""
    layer = {
        "layer_norm/scale": Source("ln_1.weight"),
        "layer_norm/bias": Source("ln_1.bias"),
        "self_attention/combined_qkv/w": Source("attn.c_attn.weight", "d (c n h) -> c d n h"),
        "self_attention/combined_qkv/b": Source("attn.c_attn.bias", "(c n h) -> c n h"),
        "self_attention/post/w": Source("attn.c_proj.weight", "(n h) d -> d n h"),
        "self_attention/post/b": Source("attn.c_proj.bias"),
        "ff_layer/layer_norm/scale": Source("ln_2.weight"),
        "ff_layer/layer_norm/bias": Source("ln_2.bias"),
        "ff_layer/ffn_layer1/linear/w": Source("mlp.c_fc.weight"),
        "ff_layer/ffn_layer1/bias/b": Source("mlp.c_fc.bias"),
        "ff_layer/ffn_layer2/linear/w": Source("mlp.c_proj.weight"),
        "ff_layer/ffn_layer2/bias/b": Source("mlp.c_proj.bias"),
    }
    model = {
        "position_emb/emb_var": Source("transformer.wpe.weight"),
        "final_ln/scale": Source("transformer.ln_f.weight"),
        "final_ln/bias": Source("transformer.ln_f.bias"),
        "softmax/logits_ffn/linear/w": Source("transformer.wte.weight", "v d -> d v"),
    }
    prefixed = {k: s._replace(name=f"transformer.h.{{layer}}.{s.name}") for k, s in layer.items()}
    stacks = {"transformer": (settings.require("n_layer"), prefixed)}
    return Table(model, stacks, ignored=("lm_head.weight", "*.attn.bias", "*.attn.masked_bias"))


def sizes(settings: Settings) -> Mapping[str, int]:
    """Sizes of the letters in the table."""
    return {"c": 3, "n": settings.require("n_head")}


FAMILY = Family(model_config, table, sizes)
