from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizer_cases import OPTIMIZERS, build

from praxis import base_layer, optimizers
from praxis.py_utils import BpropMaskedNode, NestedMap

# Transformations are Any here: the trees of optax have no types that tell their fields.
transformation: Any = optax.GradientTransformationExtraArgs
masked: Any = optimizers.sharded_masked
VARIABLES: Any = NestedMap(
    layer=NestedMap(
        w=base_layer.WeightHParams(
            [3, 5], dtype=jnp.float32, mesh_shape=[2, 2], tensor_split_dims_mapping=["data", None]
        ),
        b=base_layer.WeightHParams([7], dtype=jnp.bfloat16, tensor_split_dims_mapping=[-1]),
        frozen=BpropMaskedNode(),
    )
)


def zeros(hparams) -> Any:
    return jax.tree.map(lambda v: jnp.zeros(v.full_shape, v.dtype), hparams)


@pytest.mark.parametrize(("cls", "fields"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_description_of_a_state_fits_the_state(cls, fields):
    """Structure, shapes and types, before and after updates, with a bfloat16 variable."""
    transform = build(cls, **fields).get_grad_transformation(VARIABLES)
    spec = transform.init_partition_spec(VARIABLES)
    params = jax.eval_shape(lambda: zeros(VARIABLES))
    state = jax.eval_shape(transform.init, params)
    for _ in range(3):
        assert jax.tree.structure(spec) == jax.tree.structure(state)
        for described, leaf in zip(jax.tree.leaves(spec), jax.tree.leaves(state), strict=True):
            assert tuple(described.full_shape) == leaf.shape
            assert len(described.full_split_dims_mapping) == leaf.ndim
            assert described.dtype == leaf.dtype
        updates, state = jax.eval_shape(transform.update, params, state, params)
        assert isinstance(updates.layer.frozen, BpropMaskedNode)


def test_moments_are_laid_out_like_their_variable():
    spec = build(optimizers.Adam).get_grad_transformation().init_partition_spec(VARIABLES)
    assert spec[2].m.layer.w.tensor_split_dims_mapping == ["data", None]
    assert spec[2].v.layer.w.mesh_shape == [2, 2]
    assert spec[2].m.layer.w.init is None
    assert spec[2].count.shape == []


def test_factored_moments_are_replicated():
    transform = build(optimizers.Adafactor, min_dim_size_to_factor=2).get_grad_transformation()
    leaves = jax.tree.leaves(transform.init_partition_spec(VARIABLES))
    assert any(v.shape == [5] and v.tensor_split_dims_mapping == [-1] for v in leaves)


def test_chain_applies_members_in_order_and_masks_none():
    add = transformation(lambda _: None, lambda u, s, p=None: (u + 1.0, None))
    double = transformation(lambda _: 0, lambda u, s, p=None: (u * 2.0, s + 1))
    chain = optimizers.sharded_chain(add, double)
    updates, state = chain.update(jnp.float32(3), chain.init(None))
    assert updates == 8.0
    assert state == (optax.MaskedNode(), 1)


def test_chain_passes_extra_arguments_to_members_that_take_them():
    scale = transformation(lambda _: (), lambda u, s, p=None, *, factor, **_: (u * factor, s))
    chain = optimizers.sharded_chain(optax.identity(), scale)
    assert chain.update(jnp.float32(3), chain.init(None), None, factor=5.0)[0] == 15.0


def test_chain_refuses_a_state_of_another_length():
    chain = optimizers.sharded_chain(optax.identity(), optax.identity())
    with pytest.raises(ValueError, match="the state has 1 entries for 2 transformations"):
        chain.update(1.0, (optax.EmptyState(),))


@pytest.mark.parametrize("as_function", [False, True])
def test_masked_transforms_only_some_variables(as_function):
    inner = optimizers.sharded_sgd(lambda _: 0.5, momentum=0.9)
    mask = {"a": (True, False), "b": True}
    tx = masked(inner, (lambda _: mask) if as_function else mask)
    hparams: Any = {"a": tuple(base_layer.WeightHParams([n], dtype=jnp.float32) for n in (2, 3))}
    hparams["b"] = base_layer.WeightHParams([5], dtype=jnp.float32)
    params = zeros(hparams)
    state = tx.init(params)
    assert jax.tree.structure(tx.init_partition_spec(hparams)) == jax.tree.structure(state)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_array_equal(updates["a"][0], -0.5)
    np.testing.assert_array_equal(updates["a"][1], 1.0)


def test_masked_optax_member_can_be_described():
    tx = masked(optax.sgd(0.1, 0.9), {"a": True, "b": False})
    assert not isinstance(tx, optimizers.ShardedGradientTransformation)
    hparams: Any = {
        k: base_layer.WeightHParams([n], dtype=jnp.float32) for k, n in (("a", 2), ("b", 3))
    }
    state = tx.init(zeros(hparams))
    spec = optimizers.partition_params(tx, hparams, state)
    assert jax.tree.structure(spec) == jax.tree.structure(state)
    assert [v.shape for v in jax.tree.leaves(spec)] == [[2]]


def test_masked_state_can_be_made_of_descriptions():
    """Nested dicts and tuples; where `init` only copies, leaves need not be arrays."""
    tx = masked(
        transformation(lambda params: params, lambda u, s, p=None: (u, s)), {"a": (True, False)}
    )
    kept, dropped = (base_layer.WeightHParams([n], dtype=jnp.float32) for n in (2, 3))
    hparams: Any = {"a": (kept, dropped)}
    state = tx.init(hparams)
    assert state.inner_state == {"a": (kept, optax.MaskedNode())}
    spec = optimizers.partition_params(tx, hparams, state)
    assert jax.tree.structure(spec) == jax.tree.structure(state)


def test_partition_params_keeps_the_type_of_what_is_no_variable():
    tx = optax.chain(optax.scale_by_adam(), optax.inject_hyperparams(optax.scale)(step_size=0.1))
    hparams: Any = NestedMap(w=base_layer.WeightHParams([3], dtype=jnp.float32))
    spec = optimizers.partition_params(tx, hparams, tx.init(zeros(hparams)))
    assert spec[1].hyperparams["step_size"].dtype == jnp.float32
    assert spec[0].count.dtype == jnp.int32
