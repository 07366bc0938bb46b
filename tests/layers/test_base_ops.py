"""Operations that layers hold as children."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import base_ops


def run(cls, *args):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="op")).apply({}, *args)


def test_einsum():
    x, w = jnp.arange(6.0).reshape(2, 3), jnp.arange(15.0).reshape(3, 5)
    np.testing.assert_allclose(run(base_ops.EinsumOp, "ab,bc->ac", x, w), np.dot(x, w))


def test_gated_einsum_multiplies_with_both_weights():
    x, w = jnp.arange(6.0).reshape(2, 3), jnp.arange(15.0).reshape(3, 5)
    plain, gate = run(base_ops.EinsumGatedOp, "ab,bc->ac", x, w, -w)
    np.testing.assert_allclose(plain, np.dot(x, w))
    np.testing.assert_allclose(gate, -np.dot(x, w))


def test_gated_einsum_counts_its_operands():
    with pytest.raises(ValueError, match="EinsumGatedOp 'op': got 2 operands, expected 3"):
        run(base_ops.EinsumGatedOp, "ab,bc->ac", jnp.ones([2, 3]), jnp.ones([3, 5]))


def test_lookup_picks_rows():
    table = jnp.arange(15.0).reshape(5, 3)
    rows = run(base_ops.ArrayLookup, table, jnp.array([[4, 0]]))
    np.testing.assert_array_equal(rows, np.asarray(table)[[[4, 0]]])
