"""Training on any mesh computes what one device does, up to the order of sums."""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
import scale_experiment as scale

from paxml.task.ema import extract_ema

STEPS = 3


class Trained(NamedTuple):
    """What some steps left, on the host."""

    losses: list[float]
    metrics: list[dict]
    norms: list[float]
    mdl_vars: dict
    averages: dict


@functools.cache
def train(name: str) -> Trained:
    step = scale.compiled_step(name)
    partitioner = step.partitioner
    state = step.place(scale.first_state(name))
    key = partitioner.preprocess_prng_key(jax.random.PRNGKey(1))
    losses, metrics, norms = [], [], []
    for number in range(STEPS):
        batch = partitioner.preprocess_inputs(None, scale.batch_of(number), None)
        state, out = step.program(state, key, batch, None)
        losses.append(float(out.loss))
        metrics.append(jax.device_get(out.weighted_scalars))
        norms.append(float(out.summary_tensors["learning/raw_grad_norm_scalar"]))
    averages = extract_ema(state).mdl_vars
    return Trained(losses, metrics, norms, *jax.device_get((state.mdl_vars, averages)))


def assert_equal(got, want, **tolerances):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerances), got, want)


@pytest.mark.parametrize("name", [n for n in scale.MESHES if not n.startswith("one")])
def test_a_mesh_trains_as_one_device(name):
    """Losses, metrics, weights and their averages, and the statistics of the batch."""
    got, want = train(name), train(scale.reference_of(name))
    np.testing.assert_allclose(got.losses, want.losses, rtol=1e-5)
    np.testing.assert_allclose(got.norms, want.norms, rtol=1e-4)
    assert_equal(got.metrics, want.metrics, rtol=1e-4, atol=1e-5)
    # Adam divides by the root of tiny sums, which raises rounding errors of the gradient.
    assert_equal(got.mdl_vars, want.mdl_vars, rtol=1e-3, atol=2e-4)
    assert_equal(got.averages, want.averages, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["one", "one, pipeline", "one, experts"])
def test_the_sweep_compares_what_it_says(name):
    """Gradients are clipped, statistics and averages move, and losses differ between batches."""
    found, first = train(name), jax.device_get(scale.first_state(name).mdl_vars)
    assert min(found.norms) > scale.Tiny.CLIP_GRADIENT_NORM
    assert len(set(found.losses)) == STEPS
    statistics = found.mdl_vars["non_trainable"]["lm"]["final_ln"]
    assert np.abs(statistics["moving_mean"]).max() > 1e-3
    moved = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), found.mdl_vars["params"], first["params"]
    )
    assert max(jax.tree.leaves(moved)) > 1e-3
    lag = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), found.mdl_vars["params"], found.averages["params"]
    )
    assert max(jax.tree.leaves(lag)) > 1e-3
