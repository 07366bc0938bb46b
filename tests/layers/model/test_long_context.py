"""Language models over long rows: no array of T by T, and no logits of all positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import largest_array

from praxis import pax_fiddle, py_utils
from praxis.layers import embedding_softmax, models, transformer_models, transformers

Config = pax_fiddle.Config
KEY = jax.random.PRNGKey(0)
V, D = 13, 8


def lm(*, implementation, model_type="causal", repeated=True, chunk_size=None, **fields):
    layer = Config(transformers.Transformer)
    layer.tr_atten_tpl.implementation = implementation
    stack = Config(
        transformers.StackedTransformer,
        num_layers=1,
        model_dims=D,
        hidden_dims=D,
        num_heads=2,
        transformer_layer_params_tpl=layer,
    )
    if repeated:
        stack = Config(transformers.StackedTransformerRepeated, block=stack, x_times=2)
    return Config(
        transformer_models.TransformerLm,
        name="lm",
        model_dims=D,
        vocab_size=V,
        model_type=transformer_models.LanguageModelType(model_type),
        stacked_transformer_tpl=stack,
        softmax_tpl=Config(embedding_softmax.SharedEmbeddingSoftmax, chunk_size=chunk_size),
        **fields,
    )


def batch(length, rows=2):
    rng = np.random.default_rng(0)
    paddings = np.zeros([rows, length], np.float32)
    paddings[-1, length - length // 4 :] = 1
    ids = rng.integers(0, V, [rows, length]).astype(np.int32)
    return py_utils.NestedMap(
        ids=jnp.asarray(ids),
        labels=jnp.asarray(np.roll(ids, -1, axis=1)),
        paddings=jnp.asarray(paddings),
        weights=jnp.asarray(1 - paddings),
        inputs_indicator=jnp.asarray(np.arange(length) < length // 3, jnp.float32)[jnp.newaxis]
        * jnp.ones([rows, 1]),
    )


def loss_of(layer, data, prefix):
    labels = py_utils.NestedMap(class_ids=data.labels, class_weights=data.weights)
    mask = 1 - data.inputs_indicator if prefix else None

    def loss(variables):
        outputs = layer.apply(
            variables, data.ids, data.paddings, labels=labels, causal_attention_mask=mask
        )
        return outputs.total_loss

    return loss


@pytest.mark.parametrize(("model_type", "repeated"), [("causal", True), ("prefix", False)])
def test_blocks_and_chunks_change_no_number(model_type, repeated):
    data, results, params = batch(300), [], None
    for fields in (
        {"implementation": "reference"},
        {"implementation": "blockwise", "chunk_size": 64},
    ):
        layer = pax_fiddle.build(lm(model_type=model_type, repeated=repeated, **fields))
        loss = loss_of(layer, data, model_type == "prefix")
        params = params or jax.jit(layer.init)(KEY, data.ids, data.paddings)
        results.append(jax.jit(jax.value_and_grad(loss))(params))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)  # noqa: E731
    jax.tree.map(close, *results)


@pytest.mark.optimized
def test_a_row_of_8192_tokens_has_no_array_of_its_square():
    """Forward and backward, with the defaults of the attention, from tokens to loss."""
    length = 8192
    layer = pax_fiddle.build(lm(implementation="auto", chunk_size=512))
    data = batch(length, rows=1)
    variables = jax.eval_shape(layer.init, KEY, data.ids, data.paddings)
    params = {"params": variables["params"]}
    gradient = jax.jit(jax.grad(loss_of(layer, data, prefix=False)))
    assert largest_array(gradient.lower(params).compile()) < length**2 / 16


def test_a_language_model_reports_the_same_metrics_without_logits():
    """16.1: metrics read the loss and the most likely class, which chunks give too."""
    data, metrics = batch(20), []
    variables = None
    for chunk_size in (None, 8):
        config = Config(
            models.LanguageModel,
            name="model",
            lm_tpl=lm(implementation="auto", chunk_size=chunk_size),
            return_predictions=True,
        )
        model = pax_fiddle.build(config)
        variables = variables or jax.jit(model.init)(KEY, data)
        weighted, per_example = jax.jit(model.apply)(variables, data)
        assert (per_example.logits is None) == (chunk_size is not None)
        metrics.append(weighted)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)  # noqa: E731
    jax.tree.map(close, *metrics)


def test_logits_can_be_recorded_in_chunks_too():
    data = batch(20)
    labels = py_utils.NestedMap(class_ids=data.labels, class_weights=data.weights)
    config = lm(implementation="auto", chunk_size=8, record_logits_in_xent_output=True)
    layer = pax_fiddle.build(config)

    def outputs_of(key):
        variables = layer.init(key, data.ids, data.paddings)
        return layer.apply(variables, data.ids, data.paddings, labels=labels)

    outputs = jax.eval_shape(outputs_of, KEY)
    assert outputs.logits.shape == (2, 20, V) and outputs.log_probs is None
