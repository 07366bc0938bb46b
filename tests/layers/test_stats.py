"""compute_stats against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers.stats import compute_stats

X = np.random.default_rng(0).standard_normal((2, 3, 5)) - 3.0


def test_all_values():
    stats = compute_stats(jnp.float32(X))
    np.testing.assert_allclose(
        [stats.mean_v, stats.std_v, stats.max_v], [X.mean(), X.std(), X.max()], rtol=2e-5
    )


def test_padded_values_do_not_count():
    """All values are below 0, so that a 0 in a padded place would be the maximum."""
    padding = np.array([[[0.0], [0.0], [0.0]], [[0.0], [1.0], [1.0]]])
    x = np.where(padding > 0, 1e3, X)
    valid = X[padding[..., 0] == 0]
    stats = compute_stats(jnp.float32(x), jnp.float32(padding))
    np.testing.assert_allclose(
        [stats.mean_v, stats.std_v, stats.max_v],
        [valid.mean(), valid.std(), valid.max()],
        rtol=2e-5,
    )


def test_padding_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"padding has shape \(2, 3\).*\(2, 3, 5\)"):
        compute_stats(jnp.float32(X), jnp.zeros([2, 3]))
