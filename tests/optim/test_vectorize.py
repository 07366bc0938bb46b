from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from praxis import base_layer, optimizers, pax_fiddle, schedules
from praxis import optimizer_prefix_vectorization as vectorization
from praxis.optim.prefix import prefix_key
from praxis.py_utils import BpropMaskedNode, NestedMap

# Transformations are Any here: the trees of optax have no types that tell their fields.
vectorized: Any = vectorization.get_transformations_with_vectorized_repeat_prefix
transformation: Any = optax.GradientTransformationExtraArgs
SKIPPED = [base_layer.WeightHParamsCollection.SKIP_LP_REGULARIZATION]


def variable(shape, prefix=None, **fields) -> Any:
    return base_layer.WeightHParams(shape, dtype=jnp.float32, repeat_prefix=prefix, **fields)


VARIABLES: Any = NestedMap(
    plain=variable([5], tensor_split_dims_mapping=["data"]),
    one=variable([5, 7], [2], repeat_prefix_split_dims_mapping=("mdl",)),
    two=variable([3], [2, 3]),
    frozen=BpropMaskedNode(),
)


def arrays(hparams=VARIABLES) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda v: jnp.float32(rng.standard_normal(v.full_shape)), hparams)


def build(cls, **fields) -> Any:
    schedule = pax_fiddle.Config(schedules.Constant)
    return pax_fiddle.build(
        pax_fiddle.Config(cls, learning_rate=0.1, lr_schedule=schedule, **fields)
    )


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({}, "no_prefix"),
        ({"prefix": [2, 3]}, "p#2.3#i-1.i-1"),
        ({"prefix": [2, 3], "split": ["data", "mdl"]}, "p#2.3#sdata.smdl"),
        ({"prefix": [2, 3], "split": [("data", "mdl"), None]}, "p#2.3#tsdata,smdl."),
        ({"prefix": [2], "optimizer": [-1]}, "p#2#i-1"),
        ({"prefix": [2], "optimizer": ["data"]}, "p#2#i-1#sdata"),
    ],
)
def test_keys_of_groups(fields, key):
    """They are part of checkpoint paths."""
    var = variable(
        [5],
        fields.get("prefix"),
        repeat_prefix_split_dims_mapping=fields.get("split"),
        repeat_optimizer_dims_mapping=fields.get("optimizer"),
    )
    assert prefix_key(var, "#") == key
    assert prefix_key(var, "_") == key.replace("#", "_")


def test_axis_names_that_break_keys_are_refused():
    var = variable([5], [2], repeat_prefix_split_dims_mapping=["a.b"])
    with pytest.raises(ValueError, match=r"Mesh axis 'a\.b' holds .* repeat_prefix_sep"):
        prefix_key(var, "#")


def test_each_layer_of_a_stack_is_seen_on_its_own():
    """A transformation that sums every variable sees the layers apart."""
    sums = transformation(
        init=lambda params: jax.tree.map(jnp.sum, params),
        update=lambda updates, state, params=None: (state, state),
    )
    hparams: Any = NestedMap(a=variable([], [2]), b=variable([], [2, 2]), c=variable([3]))
    tx = vectorized(sums, hparams)
    values = arrays(hparams)
    state = tx.init(values)
    out, _ = tx.update(values, state, values)
    np.testing.assert_allclose(out.a, values.a)
    np.testing.assert_allclose(out.b, values.b)
    np.testing.assert_allclose(out.c, values.c.sum(), rtol=1e-6)
    assert list(state) == ["no_prefix", "p#2#i-1", "p#2.2#i-1.i-1"]
    spec = vectorization.partition_params(tx, hparams, state)
    assert jax.tree.structure(spec) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (optimizers.Adam, {"clip_threshold": 0.1, "decoupled_weight_decay": 0.1}),
        (optimizers.Lamb, {"weight_decay": 0.1, "ema_decay": 0.9}),
    ],
)
def test_equals_a_loop_over_layers(cls, fields):
    """Reductions over a tensor are those of one layer; counts and averages are stacked."""
    optimizer = build(cls, **fields)
    raw = optimizer.get_grad_transformation(VARIABLES)
    tx = vectorized(raw, VARIABLES)
    params, grads = arrays(), arrays()
    update = jax.jit(tx.update)
    _, state = update(grads, tx.init(params), params)
    updates, state = update(grads, state, params)

    for index in np.ndindex(2):
        single = optimizer.get_grad_transformation()
        own, grad = {"w": params.one[index]}, {"w": grads.one[index]}
        _, own_state = single.update(grad, single.init(own), own)
        own_updates, _ = single.update(grad, own_state, own)
        np.testing.assert_allclose(updates.one[index], own_updates["w"], rtol=2e-5, atol=1e-7)
    assert isinstance(updates.frozen, BpropMaskedNode)
    assert state["p#2#smdl"][2 if cls is optimizers.Adam else 0].count.shape == (2,)


def test_description_of_a_grouped_state():
    tx = vectorized(
        build(optimizers.Adam, ema_decay=0.9).get_grad_transformation(VARIABLES), VARIABLES
    )
    spec, state = tx.init_partition_spec(VARIABLES), tx.init(arrays())
    assert jax.tree.structure(spec) == jax.tree.structure(state)
    for described, leaf in zip(jax.tree.leaves(spec), jax.tree.leaves(state), strict=True):
        assert tuple(described.full_shape) == leaf.shape
    moment = spec["p#2#smdl"][2].m.one
    assert (moment.repeat_prefix, moment.full_split_dims_mapping) == ([2], ["mdl", -1, -1])
    assert spec["no_prefix"][2].m.plain.full_split_dims_mapping == ["data"]
    assert VARIABLES.one.repeat_prefix == [2]


def test_no_stack_no_groups():
    hparams: Any = NestedMap(w=variable([5]))
    raw = build(optimizers.Sgd).get_grad_transformation(hparams)
    assert vectorized(raw, hparams) is raw
    forced = vectorized(raw, hparams, force_prefix_structure=True).init(arrays(hparams))
    assert vectorization.has_no_prefix(forced)
    assert not vectorization.has_no_prefix({"no_prefix": 0, "p#2#i-1": 0})


def test_only_stacks_have_an_empty_group():
    hparams: Any = NestedMap(w=variable([5], [2]))
    raw = build(optimizers.Sgd, momentum=0.9).get_grad_transformation(hparams)
    tx = vectorized(raw, hparams)
    state = tx.init(arrays(hparams))
    assert list(state) == ["no_prefix", "p#2#i-1"]
    assert isinstance(state["no_prefix"][2][0].trace.w, optax.MaskedNode)


def test_weight_decay_masks_hold_inside_groups():
    hparams: Any = NestedMap(
        w=variable([5], [2]), scale=variable([5], [2], collections=SKIPPED), b=variable([5])
    )
    raw = build(optimizers.Sgd, decoupled_weight_decay=0.1).get_grad_transformation(hparams)
    tx = vectorized(raw, hparams)
    params = jax.tree.map(lambda v: jnp.ones(v.full_shape), hparams)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates.w, -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates.b, -0.01, rtol=1e-6)
    np.testing.assert_array_equal(updates.scale, 0.0)


def test_summaries_of_a_stack_are_stacked():
    def update(updates, state, params=None):
        for leaf in jax.tree.leaves(updates):
            base_layer.add_global_summary("total", jnp.sum(leaf))
        return updates, state

    hparams: Any = NestedMap(w=variable([5], [2, 3]), b=variable([5]))
    summing = transformation(lambda _: (), update)
    tx = vectorized(summing, hparams)
    values = arrays(hparams)
    with base_layer.JaxContext.new_context():
        tx.update(values, tx.init(values), values)
        summaries = base_layer.all_global_summaries()
    assert sorted(summaries) == ["total.[2, 3]_scalar", "total_scalar"]
    np.testing.assert_allclose(summaries["total.[2, 3]_scalar"], values.w.sum(-1), rtol=1e-5)


def test_lengths_of_optimizer_mapping_are_checked():
    hparams: Any = NestedMap(w=variable([5], [2], repeat_optimizer_dims_mapping=[-1, "data"]))
    tx = vectorized(optax.sgd(0.1), hparams)
    with pytest.raises(ValueError, match=r"\[-1, 'data'\] has 2 entries for repeat_prefix \[2\]"):
        tx.init(arrays(hparams))


def test_extra_arguments_reach_the_transformation():
    scale = transformation(
        lambda _: (),
        lambda u, s, p=None, *, factor, **_: (jax.tree.map(lambda x: x * factor, u), s),
    )
    hparams: Any = NestedMap(w=variable([5], [2]))
    tx = vectorized(scale, hparams)
    values = arrays(hparams)
    out, _ = tx.update(values, tx.init(values), values, factor=3.0)
    np.testing.assert_allclose(out.w, 3 * values.w)
