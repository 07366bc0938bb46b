"""Overrides deep inside the config of a model, as experiments write them."""

import jax.numpy as jnp
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, transformer_models, transformers


def base_config():
    model_p = pax_fiddle.Config(
        transformer_models.TransformerLm, name="lm", vocab_size=11, model_dims=8
    )
    stacked_p = model_p.stacked_transformer_tpl
    stacked_p.num_layers = 2
    stacked_p.num_heads = 2
    stacked_p.model_dims = 8
    stacked_p.hidden_dims = 16
    return model_p


def test_overrides_reach_the_layers():
    model_p = base_config()
    model_p.set(fprop_dtype=jnp.bfloat16)
    block_p = model_p.stacked_transformer_tpl.transformer_layer_params_tpl
    block_p.tr_fflayer_tpl.activation_tpl = pax_fiddle.Config(activations.SiLU)
    block_p.tr_fflayer_tpl.use_gated_activation = True
    block_p.tr_atten_tpl.set(use_bias=False, atten_logit_cap=20.0)
    model = base_layer.instantiate(model_p)
    ids, paddings = jnp.zeros([1, 3], jnp.int32), jnp.zeros([1, 3])
    tree = model.abstract_init_with_mdl_config(ids, paddings)
    layer = tree["transformer"]["x_layers_1"]
    assert layer["self_attention"]["_hparams"].atten_logit_cap == 20.0
    assert layer["ff_layer"]["_hparams"].use_gated_activation
    assert layer["ff_layer"]["_hparams"].fprop_dtype == jnp.bfloat16
    variables = model.abstract_init_with_metadata(ids, paddings)
    assert "b" not in variables["params"]["transformer"]["x_layers_0"]["self_attention"]["query"]


def test_one_config_makes_two_experiments():
    first = base_config()
    second = first.clone().set(name="other")
    second.stacked_transformer_tpl.num_layers = 3
    assert first.stacked_transformer_tpl.num_layers == 2
    third = base_config()
    third.copy_fields_from(second)
    assert third == second and third != first


def test_class_of_a_layer_is_replaced():
    class CappedStack(transformers.StackedTransformer):
        cap: float = 1.0

        def __call__(self, inputs, *args, **kwargs):
            return jnp.clip(super().__call__(inputs, *args, **kwargs), -self.cap, self.cap)

    model_p = base_config()
    model_p.stacked_transformer_tpl.cls = CappedStack
    model_p.stacked_transformer_tpl.cap = 0.5
    assert model_p.stacked_transformer_tpl.num_layers == 2
    assert model_p.Instantiate().stacked_transformer_tpl.cap == 0.5


def test_misspelt_overrides_are_refused_at_once():
    model_p = base_config()
    with pytest.raises(AttributeError, match=r"no field 'num_layer'; did you mean 'num_layers'"):
        model_p.stacked_transformer_tpl.num_layer = 3
    with pytest.raises(AttributeError, match="'vocab'"):
        model_p.set(vocab=3)
