"""Decoding loops in which the parameters are sharded over other mesh axes than in the prefix."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.decoding import mesh
from praxis.layers import models, transformer_models, transformers

VOCAB, WIDTH, STEPS = 16, 3, 4
AXES = ("replica", "data", "mdl")
FIELDS: dict[str, Any] = {
    "seqlen": WIDTH + STEPS,
    "max_decode_steps": STEPS,
    "fprop_for_prefix": True,
    "eos_id": 0,
}
SWAPPED = {"data": "mdl", "mdl": "data"}


def model_with(decoder):
    lm = pax_fiddle.Config(transformer_models.TransformerLm, model_dims=8, vocab_size=VOCAB)
    lm.stacked_transformer_tpl = pax_fiddle.Config(
        transformers.StackedTransformer, num_layers=1, hidden_dims=16, num_heads=4
    )
    cls = transformer_models.TransformerLm
    lm = cls.set_sharding_params_v1(
        lm,
        replica_axis="replica",
        data_axis="data",
        mdl_axis="mdl",
        ici_mesh_shape=[1, 2, 2],
        mesh_axis_names=AXES,
        training_optimized=True,
    )
    config = pax_fiddle.Config(models.LanguageModel, name="m", lm_tpl=lm, decoder_tpl=decoder)
    config.ici_mesh_shape, config.mesh_axis_names = [1, 2, 2], AXES
    return pax_fiddle.build(config)


def batch():
    ids = jnp.asarray(np.random.default_rng(0).integers(1, VOCAB, (4, WIDTH)), jnp.int32)
    paddings = jnp.zeros((4, WIDTH))
    return py_utils.NestedMap(ids=ids, paddings=paddings, labels=ids, weights=1 - paddings)


def decode(decoder, programs):
    model = model_with(decoder)
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(1), batch())
    rng = np.random.default_rng(5)
    variables = jax.tree.map(lambda x: jnp.float32(0.7 * rng.standard_normal(x.shape)), shapes)

    def run(variables, inputs):
        (_, out, _), _ = model.apply(
            variables,
            inputs,
            method=model.decode,
            mutable=[base_layer.DECODE_CACHE, base_layer.PREFIX_DECODE_CACHE],
            rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
        )
        return out

    auto = (jax.sharding.AxisType.Auto,) * 3
    with jax.set_mesh(jax.make_mesh((1, 2, 2), AXES, axis_types=auto, devices=jax.devices()[:4])):
        lowered = jax.jit(run).lower(variables, batch())
        programs.append(lowered.as_text())
        return lowered.compile()(variables, batch())


def test_a_loop_with_renamed_axes_gives_the_same_texts():
    """Two axes change places for the loop: other annotations, the same ids."""
    plain = decoder_hparams.GreedyDecoderHParams(**FIELDS)
    programs: list[str] = []
    want = decode(plain, programs)
    renamed = plain.clone()
    renamed.decode_loop_mesh_axes_transpose = SWAPPED
    got = decode(renamed, programs)
    np.testing.assert_array_equal(got.output_ids, want.output_ids)
    np.testing.assert_array_equal(got.decode_lengths, want.decode_lengths)
    # Weights [D, F] are annotated over both orders of the axes.
    orders = [set(re.findall(r'\[\{"(\w+)"\}, \{"(\w+)"\}\]', program)) for program in programs]
    both = {("data", "mdl"), ("mdl", "data")}
    assert both <= orders[1]
    assert not both <= orders[0]


def test_without_renaming_the_model_itself_decodes():
    model = object()
    assert mesh.maybe_reshard_mdl_for_decode(model, None, None, lambda *_: None) is model


def test_resharding_needs_the_specs():
    model = model_with(decoder_hparams.GreedyDecoderHParams(**FIELDS))
    with pytest.raises(ValueError, match=r"'m'.*decode_loop_mesh_axes_transpose = .*which is None"):
        mesh.maybe_reshard_mdl_for_decode(model, SWAPPED, None, lambda *_: None)
