"""How evenly codes are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers import quantizer_objectives

E4 = np.log(4.0)


@pytest.mark.parametrize(
    ("codes", "paddings", "entropies", "covered"),
    [
        ([[0], [1], [2], [3]], None, [E4], 4 / 5),
        ([[0], [1], [2], [3]], [0, 0, 0, 1], [np.log(3.0)], 3 / 5),
        ([[2], [2], [2], [2]], None, [0.0], 1 / 5),
        ([[0], [0], [0], [1]], None, [E4 - 0.75 * np.log(3.0)], 2 / 5),
        ([[0, 4], [1, 4], [2, 4], [3, 4]], None, [E4, 0.0], 1 / 2),
        ([[0], [1], [2], [3]], [1, 1, 1, 1], [0.0], 0.0),
    ],
    ids=["uniform", "padded", "one code", "skewed", "two groups", "nothing counts"],
)
def test_table_of_perplexities(codes, paddings, entropies, covered):
    """26, Quantizers: perplexity/entropy table. The mean of groups is of their perplexities."""
    codes = jnp.asarray([codes])
    given = None if paddings is None else jnp.asarray([paddings], jnp.float32)

    @jax.jit
    def run():
        return (
            *quantizer_objectives.batch_pplx_entropy_from_codes(codes, 5, paddings=given),
            quantizer_objectives.batch_codebook_coverage(codes, 5, paddings=given),
        )

    pplx, entropy, histogram, coverage = run()
    np.testing.assert_allclose(pplx, np.mean(np.exp(entropies)), rtol=2e-5)
    np.testing.assert_allclose(entropy, np.log(pplx), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(coverage, covered, rtol=2e-5)
    frames = np.asarray(codes)[0]
    keep = np.ones(4) if paddings is None else 1 - np.asarray(paddings)
    want = [np.bincount(group, keep, 5) for group in frames.T]
    np.testing.assert_array_equal(histogram, want)


def test_batches_of_a_mapped_axis_are_counted_together():
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 7, [3, 2, 5, 2]))
    paddings = np.zeros([3, 2, 5], np.float32)
    paddings[1, :, 3:] = 1.0
    paddings = jnp.asarray(paddings)

    def both(codes, paddings, axis):
        options = {"paddings": paddings, "data_parallel_axis": axis}
        return (
            *quantizer_objectives.batch_pplx_entropy_from_codes(codes, 7, **options),
            quantizer_objectives.batch_codebook_coverage(codes, 7, **options),
        )

    @jax.jit
    def run(codes, paddings):
        mapped = jax.vmap(lambda c, p: both(c, p, "data"), axis_name="data")(codes, paddings)
        return mapped, both(codes.reshape(6, 5, 2), paddings.reshape(6, 5), None)

    mapped, whole = run(codes, paddings)
    for got, want in zip(mapped, whole, strict=True):
        np.testing.assert_allclose(got, np.stack([want] * 3), rtol=2e-5)


def test_scatter_adds_up_and_drops_what_is_outside():
    indices = jnp.asarray([[0, 1], [2, 0], [0, 1], [3, 0]])
    updates = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    got = quantizer_objectives.scatter_nd(indices, updates, (3, 2))
    np.testing.assert_array_equal(got, [[0, 4], [0, 0], [2, 0]])
    rows = quantizer_objectives.scatter_nd(jnp.asarray([[1], [1]]), jnp.ones([2, 3]), (2, 3))
    np.testing.assert_array_equal(rows, [[0, 0, 0], [2, 2, 2]])
