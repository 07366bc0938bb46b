"""Repeat: stacked variables and metadata, losses, summaries, keyword arguments, intermediates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import linears, repeats

X_TIMES, D = 5, 2
KEY = jax.random.PRNGKey(0)


class Counter(base_layer.BaseLayer):
    """Adds `w . x` to x, counts its calls, reports a loss of 1 and the mean."""

    def setup(self) -> None:
        self.create_variable("w", base_layer.WeightHParams([D, D]))
        zero = base_layer.WeightInit.Constant(0)
        step = base_layer.WeightHParams([], init=zero, dtype=jnp.int32)
        self.create_variable("step", step, trainable=False)

    def __call__(self, x: Any, scale: Any = 1.0, own: Any = 0.0) -> Any:
        self.update_var("step", self.get_var("step") + 1)
        self.add_aux_loss("loss", jnp.float32(1.0), jnp.float32(0.5))
        self.add_summary("mean", jnp.mean(x))
        return x + scale * (x @ self.theta.w) + own

    def other(self, x: Any) -> Any:
        return x + 1.0

    def pair(self, x: Any, y: Any) -> Any:
        return y, x + y

    def broken(self, x: Any) -> Any:
        return (x, x)


def build(**fields):
    fields = {"sub_tpl": pax_fiddle.Config(Counter), "x_times": X_TIMES, **fields}
    return pax_fiddle.build(pax_fiddle.Config(repeats.Repeat, name="loop", **fields))


def loop_over(weights, x, scale=1.0, own=None):
    x = np.asarray(x, np.float64)
    for i, w in enumerate(np.asarray(weights, np.float64)):
        x = x + scale * x @ w + (0.0 if own is None else own[i])
    return x


X = jnp.float32(np.random.default_rng(0).standard_normal((3, D)))


def test_layers_are_applied_in_order_with_their_own_variables():
    """28, repeats: variable shapes (5, 2, 2), per-layer counters, loss 5.0 of weight 2.5."""
    layer = build()
    variables = layer.init(KEY, X)
    weights = variables["params"]["sub"]["w"]
    assert weights.shape == (X_TIMES, D, D)
    assert len(np.unique(np.asarray(weights)[:, 0, 0])) == X_TIMES
    mutable = ["non_trainable", "aux_loss", "summaries"]
    y, updated = layer.apply(variables, X, scale=0.5, mutable=mutable)
    np.testing.assert_allclose(y, loop_over(weights, X, 0.5), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(updated["non_trainable"]["sub"]["step"], np.ones(X_TIMES))
    loss = updated["aux_loss"]["sub"]["loss"]
    assert (float(loss.value), float(loss.weight)) == (5.0, 2.5)
    assert updated["summaries"]["sub"]["mean_scalar"].shape == (X_TIMES,)


def test_metadata_says_how_often_and_how_sharded():
    """28, repeats: metadata repeat_prefix [5] and split (-1,)."""
    meta = build().abstract_init_with_metadata(X)["params"]["sub"]["w"]
    assert list(meta.repeat_prefix) == [X_TIMES]
    assert tuple(meta.repeat_prefix_split_dims_mapping) == (-1,)
    assert list(meta.shape) == [D, D]
    sharded = build(optimizer_dims_mapping=["opt"])
    nested = build(sub_tpl=pax_fiddle.Config(repeats.Repeat, x_times=3, sub_tpl=linear()))
    assert list(
        nested.abstract_init_with_metadata(X)["params"]["sub"]["sub"]["w"].repeat_prefix
    ) == [
        X_TIMES,
        3,
    ]
    meta = sharded.abstract_init_with_metadata(X)["params"]["sub"]["w"]
    assert tuple(meta.repeat_optimizer_dims_mapping) == ("opt",)


def linear():
    return pax_fiddle.Config(linears.Linear, input_dims=D, output_dims=D)


def test_prefix_of_several_axes_stores_the_same_layers():
    """28, repeats: nd prefix."""
    flat, layer = build(x_times=6), build(x_times=6, nd_prefix_shape=(2, 3))
    variables, nd_variables = flat.init(KEY, X), layer.init(KEY, X)
    weights = nd_variables["params"]["sub"]["w"]
    assert weights.shape == (2, 3, D, D)
    np.testing.assert_array_equal(weights.reshape(6, D, D), variables["params"]["sub"]["w"])
    y, updated = layer.apply(nd_variables, X, mutable=["non_trainable"])
    np.testing.assert_allclose(y, flat.apply(variables, X), rtol=1e-6)
    assert updated["non_trainable"]["sub"]["step"].shape == (2, 3)
    meta = layer.abstract_init_with_metadata(X)["params"]["sub"]["w"]
    assert list(meta.repeat_prefix) == [2, 3]
    assert tuple(meta.repeat_prefix_split_dims_mapping) == (-1, -1)


def test_unpacked_summaries_are_lists():
    """28, repeats: summaries list or stacked."""
    layer = build(unpack_summaries=True)
    variables = layer.init(KEY, X)
    _, updated = layer.apply(variables, X, mutable=["summaries"])
    means = updated["summaries"]["sub"]["mean_scalar"]
    assert [mean.shape for mean in means] == [(1,)] * X_TIMES
    assert float(means[0][0]) == pytest.approx(float(X.mean()), rel=1e-5)


@pytest.mark.parametrize("unpack", [False, True])
def test_called_twice_losses_add_up(unpack):
    """28, repeats: a Repeat called twice."""
    layer = build(unpack_summaries=unpack)
    variables = layer.init(KEY, X)

    def twice(layer, x):
        return layer(layer(x))

    mutable = ["non_trainable", "aux_loss", "summaries"]
    y, updated = layer.apply(variables, X, method=twice, mutable=mutable)
    weights = variables["params"]["sub"]["w"]
    np.testing.assert_allclose(y, loop_over(weights, loop_over(weights, X)), rtol=1e-4, atol=1e-4)
    loss = updated["aux_loss"]["sub"]["loss"]
    assert (float(loss.value), float(loss.weight)) == (10.0, 5.0)
    np.testing.assert_array_equal(updated["non_trainable"]["sub"]["step"], 2 * np.ones(X_TIMES))


@pytest.mark.parametrize("reverse", [False, True])
def test_per_layer_arguments(reverse):
    layer = build()
    variables = layer.init(KEY, X)
    own = np.arange(float(X_TIMES))
    name = "reversed_per_layer_kwargs" if reverse else "per_layer_kwargs"
    y = layer.apply(variables, X, **{name: {"own": jnp.float32(own)}})
    expected = loop_over(variables["params"]["sub"]["w"], X, own=own[::-1] if reverse else own)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_other_methods_and_carried_arguments():
    layer = build()
    variables = layer.init(KEY, X)
    y = layer.apply(variables, X, method_name="other")
    np.testing.assert_allclose(y, X + X_TIMES, rtol=1e-6)
    pair = build(positional_args_as_scan_carry=True, x_times=4)
    variables = pair.init(KEY, X, X, method_name="pair")
    first, second = pair.apply(variables, X, X, method_name="pair")
    # Fibonacci numbers times X.
    np.testing.assert_allclose(first, 5 * X, rtol=1e-6)
    np.testing.assert_allclose(second, 8 * X, rtol=1e-6)


def test_outputs_of_all_layers():
    variables = build().init(KEY, X)
    last = build().apply(variables, X)
    stacked = build(return_intermediate_outputs=True).apply(variables, X)
    assert stacked.shape == (X_TIMES, *X.shape)
    np.testing.assert_array_equal(stacked[-1], last)
    layer = build(collect_intermediate_outputs=True)
    y, updated = layer.apply(variables, X, mutable=["intermediates"])
    np.testing.assert_array_equal(updated["intermediates"]["repeat_intermediates"][0], stacked)
    np.testing.assert_array_equal(y, last)


@pytest.mark.parametrize(("prefix", "leading"), [(None, [None]), ((1, 5), [None, None])])
def test_quantization_sees_leading_axes(prefix, leading):
    """28, repeats: quantization through Repeat."""
    sub = linear()
    sub.weight_split_dims_mapping.wt = ("data", None)
    layer = build(sub_tpl=sub, mesh_axis_names=["data"], ici_mesh_shape=[1], nd_prefix_shape=prefix)
    variables = layer.init(KEY, X)
    specs, _ = layer.apply(variables, method="quantized_partition_specs", mutable=[])
    spec = jax.sharding.PartitionSpec(*leading, "data", None)
    assert specs["params"]["sub"]["w"].meta == spec
    weights, _ = layer.apply(variables, method="quantize_weight", mutable=[])
    weight = weights["params"]["sub"]["w"]
    np.testing.assert_array_equal(weight, variables["params"]["sub"]["w"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x_times": 0}, "Repeat 'loop': x_times is 0"),
        ({"sub_tpl": None}, "sub_tpl is None, set it to the config of a layer"),
        ({"nd_prefix_shape": (2, 2)}, r"nd_prefix_shape = \(2, 2\) has 4 layers, but x_times = 5"),
        (
            {"nd_prefix_shape": (5, 1), "optimizer_dims_mapping": ["opt"]},
            r"nd_prefix_shape = \(5, 1\) and optimizer_dims_mapping = .*contradict",
        ),
    ],
)
def test_fields_that_cannot_work_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(KEY, X)


def test_a_layer_that_changes_the_structure_is_refused():
    with pytest.raises(ValueError, match=r"the layer 'sub' returns the structure .*expected that"):
        build().init(KEY, X, method_name="broken")
