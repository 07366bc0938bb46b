"""Embedding tables, and the token counter beside them: transformers 5.1, 5.2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops
from praxis.layers.embedding.counter import TokenCounter
from praxis.layers.embedding.lookup import gather, gather_or_zero
from praxis.layers.embedding.table import Embedding

TABLE = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
VARIABLES = {"params": {"emb_var": jnp.asarray(TABLE)}}


def build(**fields):
    fields = {"name": "emb", "num_classes": 7, "input_dims": 5} | fields
    return pax_fiddle.build(pax_fiddle.Config(Embedding, **fields))


class LoudEinsum(base_ops.EinsumOp):
    """Negates the product, so that a test sees that it ran."""

    def __call__(self, equation, *args):
        return -super().__call__(equation, *args)


class LoudLookup(base_ops.ArrayLookup):
    """Negates the rows, so that a test sees that it ran."""

    def __call__(self, x, idx):
        return -super().__call__(x, idx)


@pytest.mark.parametrize("style", ["index", "matmul"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_reads_rows(style, shape):
    ids = np.random.default_rng(1).integers(0, 7, shape).astype(np.int32)
    rows = build(lookup_style=style).apply(VARIABLES, jnp.asarray(ids))
    np.testing.assert_array_equal(rows, TABLE[ids])


def test_styles_differ_for_ids_outside_the_table():
    ids = jnp.array([7, 11, -1, 6])
    by_index = build(lookup_style="index").apply(VARIABLES, ids)
    np.testing.assert_array_equal(by_index, TABLE[[6, 6, 6, 6]])
    by_matmul = build(lookup_style="matmul").apply(VARIABLES, ids)
    np.testing.assert_array_equal(by_matmul, [[0] * 5] * 3 + [TABLE[6]])


def test_injected_ops_run():
    ops = {"einsum": pax_fiddle.Config(LoudEinsum), "array_lookup": pax_fiddle.Config(LoudLookup)}
    ids = jnp.array([2, 9])
    rows = build(lookup_style="matmul", **ops).apply(VARIABLES, ids)
    np.testing.assert_allclose(rows, [-TABLE[2], np.zeros(5)], rtol=2e-5)
    rows = build(lookup_style="index", **ops).apply(VARIABLES, ids)
    np.testing.assert_array_equal(rows, [-TABLE[2], -TABLE[6]])


@pytest.mark.parametrize("style", ["index", "matmul"])
def test_scales_by_sqrt_depth(style):
    rows = build(lookup_style=style, scale_sqrt_depth=True).apply(VARIABLES, jnp.array([[3]]))
    np.testing.assert_allclose(rows, np.sqrt(5.0) * TABLE[[[3]]], rtol=2e-5)


def test_nan_marks_ids_above_the_table_only():
    rows = build(set_nan_for_oob_id=True).apply(VARIABLES, jnp.array([6, 7, -1]))
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), [False, True, False])
    np.testing.assert_array_equal(rows[0], TABLE[6])


def test_extend_step_reads_the_same_rows():
    layer, ids = build(), jnp.array([4, 1, 1])
    step = layer.apply(VARIABLES, ids, time_step=11, method=layer.extend_step)
    np.testing.assert_array_equal(step, layer.apply(VARIABLES, ids))


@pytest.mark.parametrize("read", [gather, gather_or_zero])
def test_gradient_of_a_frequent_id_adds_up_in_float32(read):
    """A bfloat16 sum of 1s stops at 256."""
    ids = jnp.zeros([1000], jnp.int32)

    def total(table):
        return jnp.sum(read(table, ids).astype(jnp.float32))

    grads = jax.jit(jax.grad(total))(jnp.ones([2, 3], jnp.bfloat16))
    assert grads.dtype == jnp.bfloat16
    np.testing.assert_array_equal(grads, [[1000] * 3, [0] * 3])


def test_gather_equals_the_one_hot_product_in_both_directions():
    ids = jnp.array([[0, 3, 9], [-2, 3, 6]])
    cotangent = np.random.default_rng(2).standard_normal((2, 3, 5))
    rows, pullback = jax.vjp(lambda table: gather_or_zero(table, ids), jnp.asarray(TABLE))
    one_hot = (np.asarray(ids)[..., None] == np.arange(7)).astype(np.float64)
    np.testing.assert_allclose(rows, one_hot @ TABLE, rtol=2e-5)
    want = np.einsum("btv,btd->vd", one_hot, cotangent)
    np.testing.assert_allclose(pullback(jnp.float32(cotangent))[0], want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("field", ["num_classes", "input_dims"])
def test_missing_size_names_the_field(field):
    with pytest.raises(ValueError, match=rf"Embedding 'emb'.*{field} is 0.*at least 1"):
        build(**{field: 0}).init(jax.random.PRNGKey(0), jnp.array([1]))


def test_unknown_style_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'emb'.*lookup_style is 'hash'.*'index', 'matmul'"):
        build(lookup_style="hash").init(jax.random.PRNGKey(0), jnp.array([1]))


def test_float_ids_are_refused():
    with pytest.raises(TypeError, match=r"'emb'.*ids have dtype float32.*expected\s+integers"):
        build().apply(VARIABLES, jnp.array([1.0]))


@pytest.mark.parametrize("do_eval", [False, True])
def test_token_counter_counts_millions_in_training_only(do_eval):
    layer = pax_fiddle.build(pax_fiddle.Config(TokenCounter, name="count"))
    ids, paddings = jnp.zeros([2, 3], jnp.int32), jnp.array([[0, 0, 1], [0, 1, 1.0]])
    variables = layer.init(jax.random.PRNGKey(0), ids, paddings)
    counts = []
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=do_eval)):
        for _ in range(2):
            output, updated = layer.apply(
                variables, ids, paddings, mutable=["non_trainable", "summaries"]
            )
            assert output is None
            variables = {"non_trainable": updated["non_trainable"]}
            counts.append(float(updated["non_trainable"]["approx_total_tokens_mm"]))
    np.testing.assert_allclose(counts, [0, 0] if do_eval else [3e-6, 6e-6], rtol=2e-5)
