"""GroupNorm for ranks 3 to 5, cumulative or not, with paddings."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers.normalizations import GroupNorm

SHAPES = {3: (2, 5, 6), 4: (2, 5, 3, 6), 5: (2, 5, 3, 2, 6)}
PADDINGS = np.asarray([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], np.float64)


def build(**fields):
    return pax_fiddle.build(pax_fiddle.Config(GroupNorm, name="norm", **fields))


def reference(x, paddings, *, num_groups, cumulative):
    """One group of one example at a time."""
    out = np.zeros_like(x)
    size = x.shape[-1] // num_groups
    for b, t0, g in np.ndindex(x.shape[0], x.shape[1] if cumulative else 1, num_groups):
        channels = slice(g * size, (g + 1) * size)
        if not cumulative:
            kept = x[b, paddings[b] == 0][..., channels]
            mean, variance = kept.mean(), kept.var()
            out[b, ..., channels] = (x[b, ..., channels] - mean) / np.sqrt(variance + 0.001)
            continue
        squares, seen = 0.0, []
        for t in range(t0 + 1):
            if paddings[b, t] == 0:
                seen.append(x[b, t, ..., channels])
                squares += ((seen[-1] - np.mean(seen)) ** 2).sum()
        scale = np.sqrt(squares / np.size(seen) + 0.001)
        out[b, t0, ..., channels] = (x[b, t0, ..., channels] - np.mean(seen)) / scale
    return out


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_matches_a_loop(rank, cumulative, padded):
    """Cumulative without paddings too."""
    rng = np.random.default_rng(rank)
    x = rng.standard_normal(SHAPES[rank])
    beta, gamma = rng.standard_normal([2, *[1] * (rank - 1), 6])
    layer = build(dim=6, num_groups=3, input_rank=rank, cumulative=cumulative)
    params = {"beta": jnp.float32(beta), "gamma": jnp.float32(gamma)}
    y = layer.apply({"params": params}, jnp.float32(x), jnp.float32(PADDINGS) if padded else None)
    paddings = PADDINGS if padded else np.zeros_like(PADDINGS)
    expected = reference(x, paddings, num_groups=3, cumulative=cumulative) * (1 + gamma) + beta
    expected[paddings > 0] = 0
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


def test_without_scale_and_bias_there_are_no_variables():
    layer = build(dim=6, num_groups=3, input_rank=3, use_scale=False, use_bias=False)
    x = np.random.default_rng(0).standard_normal(SHAPES[3])
    y = layer.apply({}, jnp.float32(x))
    expected = reference(x, np.zeros_like(PADDINGS), num_groups=3, cumulative=False)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "group_size"),
    [({"dim": 6, "num_groups": 32}, 1), ({"dim": 6, "num_groups": 6, "min_group_size": 2}, 2)],
)
def test_group_size(fields, group_size):
    assert build(input_rank=3, **fields).group_size == group_size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 6}, "input_rank is None, expected 3, 4 or 5"),
        ({"dim": 6, "input_rank": 2}, "input_rank is 2, expected 3, 4 or 5"),
        ({"dim": 0, "input_rank": 3}, "dim is 0, expected at least 1"),
        (
            {"dim": 6, "num_groups": 4, "input_rank": 3},
            "dim = 6 is not a multiple of num_groups = 4",
        ),
        (
            {"dim": 6, "min_group_size": 4, "input_rank": 3},
            "dim = 6 is not a multiple of the group",
        ),
        (
            {"dim": 6, "num_groups": 3, "input_rank": 4},
            r"\(2, 5, 6\), expected rank input_rank = 4",
        ),
        ({"dim": 7, "input_rank": 3}, r"\(2, 5, 6\), expected .* D = dim = 7"),
    ],
)
def test_errors_name_the_layer_and_the_field(fields, message):
    with pytest.raises(ValueError, match=f"GroupNorm 'norm': .*{message}"):
        build(**fields).abstract_init_with_metadata(jnp.ones(SHAPES[3]))


def test_paddings_of_another_shape_are_refused():
    layer = build(dim=6, num_groups=3, input_rank=3)
    with pytest.raises(ValueError, match=r"GroupNorm 'norm': paddings have shape \(2, 4\)"):
        layer.abstract_init_with_metadata(jnp.ones(SHAPES[3]), jnp.zeros([2, 4]))
