import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.test_layers import (
    AddOneLayer,
    ProjectionLayer,
    TestBatchNormalizationModel,
    TestLayer,
    TestLinearRegressionModel,
    TestModel01,
    TestSpmdModel,
    VarUnusedLayer,
)
from praxis.layers.transformers import TransformerFeedForward
from praxis.py_utils import NestedMap

Config = pax_fiddle.Config
B, D, F = 2, 3, 5
KEY = jax.random.PRNGKey(0)
X = jax.random.normal(KEY, [B, D])
Y = jax.random.normal(jax.random.PRNGKey(1), [B, F])
BATCH = NestedMap(inputs=X, targets=Y)


def build(cls, **fields):
    return pax_fiddle.build(Config(cls, name="small", **fields))


def test_layers():
    sizes = {"input_dims": D, "output_dims": F}
    np.testing.assert_array_equal(build(AddOneLayer).apply({}, jnp.arange(3)), [1, 2, 3])
    weights = {"linear": {"w": jnp.full([D, F], 2.0)}, "bias": {"b": jnp.ones([F])}}
    got = build(ProjectionLayer, **sizes).apply({"params": weights}, jnp.ones([B, D]))
    np.testing.assert_allclose(got, np.full([B, F], 7.0))

    tree = build(TestLayer)
    variables = tree.init(KEY, jnp.ones([B, 2]))
    first, second = (variables["params"][f"projections_{i}"]["linear"]["w"] for i in (0, 1))
    want = (np.ones([B, 2]) @ first + 1) @ second
    np.testing.assert_allclose(tree.apply(variables, jnp.ones([B, 2])), want, rtol=2e-5, atol=2e-5)

    unused = build(VarUnusedLayer, **sizes)
    variables = unused.init(KEY, X)
    grads = jax.grad(lambda v: unused.apply(v, X).sum())(variables)["params"]
    assert grads["var01"].any()
    assert not grads["var02"].any()


def test_regression_models():
    """The loss is the mean squared error; one model counts the batches of training."""
    counting = build(TestModel01, input_dims=D, output_dims=F)
    variables = counting.init(KEY, BATCH)
    (metrics, per_example), changed = counting.apply(
        variables, BATCH, mutable=["non_trainable", "summaries"]
    )
    w = np.float64(variables["params"]["projection"]["linear"]["w"])
    errors = np.square(X @ w - Y)
    np.testing.assert_allclose(metrics.loss, (errors.mean(), B), rtol=2e-5)
    np.testing.assert_allclose(per_example.error, errors.mean(1), rtol=2e-5)
    assert changed["non_trainable"]["batches"] == 1
    np.testing.assert_array_equal(changed["summaries"]["loss_scalar"], metrics.loss[0])
    evaluation = base_layer.JaxContext.HParams(do_eval=True)
    with base_layer.JaxContext.new_context(hparams=evaluation):
        _, changed = counting.apply(variables, BATCH, mutable=["non_trainable"])
    assert changed["non_trainable"]["batches"] == 0

    layer = Config(ProjectionLayer)
    plain = build(TestLinearRegressionModel, linear_p=layer, input_dims=D, output_dims=F)
    same = {"params": {"linear": variables["params"]["projection"]}}
    np.testing.assert_array_equal(plain.apply(same, BATCH)[0].loss, metrics.loss)
    assert layer.input_dims == 0


def test_models_of_layers():
    batch = NestedMap(inputs=X, targets=X)
    norm = build(TestBatchNormalizationModel, input_dims=D)
    variables = norm.init(KEY, batch)
    _, changed = norm.apply(variables, batch, mutable=["non_trainable"])
    before, after = (v["non_trainable"]["bn"]["moving_mean"] for v in (variables, changed))
    assert (before != after).all()

    feed_forward = Config(TransformerFeedForward, input_dims=D, hidden_dims=F)
    model = build(TestSpmdModel, xformer_ffw=feed_forward)
    variables = model.init(KEY, batch)
    outputs = model.apply(variables, batch, method="compute_predictions")
    want = pax_fiddle.build(feed_forward.clone().set(name="ffw")).apply(
        {"params": variables["params"]["ffw"]}, X
    )
    np.testing.assert_array_equal(outputs, want)


def test_errors_name_the_model():
    model = build(TestLinearRegressionModel, input_dims=D, output_dims=F)
    with pytest.raises(ValueError, match=r"Model 'small': the batch has no field 'inputs', only"):
        model.init(KEY, NestedMap(x=X))
    with pytest.raises(ValueError, match=r"targets of the batch have shape None, .* \(2, 5\)"):
        model.init(KEY, NestedMap(inputs=X))
    with pytest.raises(ValueError, match=r"targets of the batch have shape \(2, 3\), .* \(2, 5\)"):
        model.init(KEY, NestedMap(inputs=X, targets=X))
    with pytest.raises(ValueError, match="ProjectionLayer 'small': output_dims is 0"):
        build(ProjectionLayer, input_dims=D).init(KEY, X)
