"""Adapters against NumPy, by example and by position; adapted feed-forwards."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import activations, adapters, normalizations
from praxis.layers.transformers import TransformerFeedForward

KEY = jax.random.PRNGKey(0)
B, T, D, F, K = 2, 3, 5, 7, 4
X = np.random.default_rng(0).standard_normal((B, T, D))
PADDINGS = jnp.float32([[0, 0, 0], [0, 0, 1]])


def build(cls=adapters.MultitaskResidualAdapter, **fields):
    fields = {"input_dims": D, "bottleneck_dims": F, "num_tasks": K, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="adapter", **fields))


def weights(seed=1):
    rng = np.random.default_rng(seed)
    shapes = {"down_w": (K, D, F), "down_b": (K, F), "up_w": (K, F, D), "up_b": (K, D)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def reference(x, theta, tasks):
    """The formula of the docstring, position by position; tasks [B, T]."""
    y = np.zeros_like(x)
    for index in np.ndindex(*x.shape[:-1]):
        t = tasks[index]
        hidden = np.maximum(x[index] @ theta["down_w"][t] + theta["down_b"][t], 0.0)
        y[index] = hidden @ theta["up_w"][t] + theta["up_b"][t]
    return y


@pytest.mark.parametrize("add_residual", [True, False])
@pytest.mark.parametrize(
    "tasks", [np.array([3, 1]), np.array([[0, 1, 2], [3, 3, 0]])], ids=["example", "position"]
)
def test_matches_numpy(tasks, add_residual):
    """28, adapters: reference values with task ids per frame or per example."""
    layer, theta = build(norm_tpl=None), weights()
    y = layer.apply(
        {"params": theta}, jnp.float32(X), tasks=jnp.asarray(tasks), add_residual=add_residual
    )
    by_position = np.broadcast_to(tasks.reshape(B, -1), (B, T))
    expected = reference(X, theta, by_position) + (X if add_residual else 0.0)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_one_task_needs_no_ids():
    layer = build(norm_tpl=None, num_tasks=1)
    theta = {name: w[:1] for name, w in weights().items()}
    y = layer.apply({"params": theta}, jnp.float32(X))
    expected = X + reference(X, theta, np.zeros([B, T], int))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_batch_norm_leaves_padding_out():
    """28, adapters: BatchNorm with paddings."""
    layer = build(norm_tpl=pax_fiddle.Config(normalizations.BatchNorm))
    tasks = jnp.int32([3, 1])
    variables = layer.init(KEY, jnp.float32(X), PADDINGS, tasks)
    theta = weights()
    filled = {**variables, "params": {**variables["params"], **theta}}
    y, _ = layer.apply(filled, jnp.float32(X), PADDINGS, tasks, mutable=["non_trainable"])
    valid = X[np.asarray(PADDINGS) == 0]
    normed = (X - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-3)
    normed[np.asarray(PADDINGS) > 0] = 0.0
    expected = X + reference(normed, theta, np.broadcast_to(tasks[:, np.newaxis], (B, T)))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_up_projection_starts_at_zero_and_its_bias_does_not():
    """23: the initial adapter is not the identity (rely)."""
    params = build().init(KEY, jnp.float32(X), tasks=jnp.int32([0, 1]))["params"]
    assert not np.any(params["up_w"])
    assert np.all(params["up_b"] != 0)


def build_adapted(mode, **fields):
    adapter = pax_fiddle.Config(
        adapters.MultitaskResidualAdapter, bottleneck_dims=F, num_tasks=K, norm_tpl=None
    )
    fields = {"adapter_tpl": adapter, "mode": mode, "residual_weight": 0.5, **fields}
    return pax_fiddle.build(
        pax_fiddle.Config(
            adapters.AdaptedTransformerFeedForward,
            name="ffn",
            input_dims=D,
            hidden_dims=11,
            activation_tpl=pax_fiddle.Config(activations.SiLU),
            **fields,
        )
    )


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("norm_policy", ["pre", "post", "primer_hybrid", "post_skip"])
def test_adapted_feed_forward(mode, norm_policy):
    """28, adapters: an all-zero adapter leaves the feed-forward; 23: h + A(h), or h + A(x)."""
    layer = build_adapted(mode, norm_policy=norm_policy)
    x, tasks = jnp.float32(X), jnp.int32([3, 1])
    params = layer.init(KEY, x, PADDINGS, tasks=tasks)["params"]
    plain = pax_fiddle.build(
        pax_fiddle.Config(
            TransformerFeedForward,
            name="ffn",
            input_dims=D,
            hidden_dims=11,
            activation_tpl=pax_fiddle.Config(activations.SiLU),
            residual_weight=0.5,
            norm_policy=norm_policy,
        )
    )
    own = {name: tree for name, tree in params.items() if name != "adapters"}
    ffn = np.asarray(plain.apply({"params": own}, x, PADDINGS), np.float64)
    zeros = jax.tree.map(jnp.zeros_like, params["adapters"])
    y = layer.apply({"params": {**own, "adapters": zeros}}, x, PADDINGS, tasks=tasks)
    np.testing.assert_allclose(y, ffn, rtol=2e-5, atol=2e-5)
    theta = weights()
    y = layer.apply({"params": {**own, "adapters": theta}}, x, PADDINGS, tasks=tasks)
    h = (ffn - X) / 0.5
    by_position = np.broadcast_to(tasks[:, np.newaxis], (B, T))
    h = h + reference(h if mode == "sequential" else X, theta, by_position)
    np.testing.assert_allclose(y, X + 0.5 * h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "tasks", "error", "message"),
    [
        ({"bottleneck_dims": 0}, [0, 1], ValueError, "bottleneck_dims is 0, expected at least 1"),
        (
            {"norm_tpl": pax_fiddle.Config(normalizations.RmsNorm)},
            [0, 1],
            NotImplementedError,
            "norm_tpl is a config of RmsNorm, expected one of LayerNorm, BatchNorm, GroupNorm",
        ),
        ({}, None, ValueError, "tasks is None, but num_tasks = 4"),
        ({}, [0, 1, 2], ValueError, "tasks has shape (3,), expected that of the inputs, (2, 3, 5)"),
        ({"input_dims": 6}, [0, 1], ValueError, "D = input_dims = 6"),
    ],
    ids=["size", "norm", "no_tasks", "tasks", "width"],
)
def test_errors_of_adapters(fields, tasks, error, message):
    tasks = None if tasks is None else jnp.int32(tasks)
    with pytest.raises(error, match=f"MultitaskResidualAdapter 'adapter'.*{re.escape(message)}"):
        build(**fields).init(KEY, jnp.float32(X), tasks=tasks)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"mode": "both"},
            ValueError,
            "mode is 'both', expected one of ('sequential', 'parallel')",
        ),
        ({"adapter_tpl": None}, ValueError, "adapter_tpl is None, set it to a config"),
        ({"residual_droppath_prob": 0.1}, NotImplementedError, "cannot drop paths. Set it to 0"),
        ({"add_skip_connection": False}, ValueError, "add_skip_connection = False"),
    ],
    ids=["mode", "adapter", "droppath", "skip"],
)
def test_errors_of_adapted_feed_forwards(fields, error, message):
    layer = build_adapted(**{"mode": "parallel", **fields})
    with pytest.raises(error, match=f"AdaptedTransformerFeedForward 'ffn'.*{re.escape(message)}"):
        layer.init(KEY, jnp.float32(X), tasks=jnp.int32([0, 1]))
