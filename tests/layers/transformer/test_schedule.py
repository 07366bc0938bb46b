"""The order of work in a pipeline, the buffers, and how a batch is split."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis.layers.transformer.microbatch import merge_batch, split_batch
from praxis.layers.transformer.pipeline_buffer import StreamBuffer, WholeBuffer, last, shift_in
from praxis.layers.transformer.schedule import Schedule

SCHEDULES = [(1, 1, 1), (3, 1, 1), (2, 5, 1), (3, 6, 1), (2, 2, 3), (3, 3, 2), (3, 6, 2), (2, 5, 3)]
schedules = pytest.mark.parametrize("schedule", [Schedule(*sizes) for sizes in SCHEDULES], ids=str)


@schedules
def test_each_layer_sees_each_microbatch_once_and_in_order(schedule):
    """Counts the work: R M iterations a stage, S - 1 bubbles, and no layer before the one below."""
    when = {}
    for iteration in range(schedule.num_total_iterations):
        valid = np.asarray(schedule.is_valid(iteration))
        microbatches = np.asarray(schedule.microbatch_ids(iteration))
        repeats = np.asarray(schedule.repeat_ids(iteration))
        for stage in np.flatnonzero(valid):
            key = (int(microbatches[stage]), int(repeats[stage]), int(stage))
            assert key not in when
            when[key] = iteration
    counts = (schedule.num_microbatches, schedule.circular_repeat, schedule.num_stages)
    assert len(when) == np.prod(counts)
    assert schedule.num_total_iterations == counts[0] * counts[1] + counts[2] - 1
    assert schedule.num_valid_iterations == counts[0] * counts[1]
    table = schedule.iterations()
    for (m, i, j), iteration in when.items():
        assert table[i, j, m] == iteration
        before = (m, i, j - 1) if j else (m, i - 1, counts[2] - 1)
        assert when.get(before, -1) < iteration


def run(schedule, buffer):
    """A loop in which layer (i, j) appends the digit i S + j + 1 to the number of a microbatch."""
    inputs = 1.0 + jnp.arange(schedule.num_microbatches)
    state, entries = buffer.start(inputs), jnp.full([schedule.num_stages], jnp.nan)
    for iteration in range(schedule.num_total_iterations):
        entries = shift_in(buffer.read(state, iteration), entries)
        layers = schedule.repeat_ids(iteration) * schedule.num_stages
        valid = schedule.is_valid(iteration)
        entries = 10 * entries + layers + jnp.arange(schedule.num_stages) + 1
        entries = jnp.where(valid, entries, jnp.nan)
        state = buffer.write(state, iteration, last(entries))
    digits = "".join(str(k + 1) for k in range(schedule.circular_repeat * schedule.num_stages))
    expected = [float(f"{m + 1}{digits}") for m in range(schedule.num_microbatches)]
    np.testing.assert_array_equal(buffer.finish(state), expected)


@schedules
def test_whole_buffer(schedule):
    run(schedule, WholeBuffer(schedule))


@pytest.mark.parametrize(
    "schedule",
    [Schedule(*sizes) for sizes in SCHEDULES if sizes[1] % sizes[0] == 0],
    ids=str,
)
def test_stream_buffer(schedule):
    run(schedule, StreamBuffer(schedule))


def test_batch_is_split_by_strides_and_merged_in_order():
    """11: example b goes to microbatch b % M."""
    x = jnp.arange(6.0)[:, jnp.newaxis]
    split = split_batch(x, 3)
    np.testing.assert_array_equal(split[:, :, 0], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(merge_batch(split), x)
