"""Event files, read back by TensorBoard itself (trainer 10; behaviours 60, 106, 114, 115)."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from paxml.summary.entry import write_summary_entry
from paxml.summary.handler import SummaryHandler
from paxml.summary.writer import get_summary_writer


def read(directory):
    events = EventAccumulator(str(directory), size_guidance={"tensors": 0, "images": 0})
    return events.Reload()


def scalars(directory, tag):
    return {event.step: event.value for event in read(directory).Scalars(tag)}


def tags(directory):
    return set(read(directory).Tags()["scalars"])


def outputs(step):
    return {
        "loss": jnp.float32(step),
        "weighted_scalars": {"accuracy": (jnp.float32(0.5 * step), jnp.float32(4))},
        "summary_tensors": {
            "lr_scalar": jnp.float32(0.1),
            "lm": {"ffn": {"norm_aggregate_scalar": jnp.float32(7), "x_scalar": [1.0, 2.0]}},
        },
    }


@pytest.mark.parametrize("is_async", [True, False])
def test_tags_steps_and_values(tmp_path, is_async):
    handler = SummaryHandler(tmp_path / "train", 2, is_async=is_async)
    written = [handler.process(step, **outputs(step), steps_per_sec=3.0) for step in range(1, 7)]
    handler.text("Model", "w: 4x1", 0)
    handler.close()
    assert written == [False, True] * 3
    assert tags(tmp_path / "train") == {
        "loss",
        "Steps/sec",
        "Metrics/accuracy",
        "Metrics/accuracy-weight",
        "lr_scalar",
        "lm/ffn/norm_scalar",
        "lm/ffn/x_0_scalar",
        "lm/ffn/x_1_scalar",
    }
    assert scalars(tmp_path / "train", "loss") == {2: 2, 4: 4, 6: 6}
    assert scalars(tmp_path / "train", "Metrics/accuracy") == {2: 1, 4: 2, 6: 3}
    assert scalars(tmp_path / "train", "lm/ffn/x_1_scalar")[6] == 2
    (text,) = read(tmp_path / "train").Tensors("Model/text_summary")
    assert text.tensor_proto.string_val == [b"w: 4x1"]


def test_does_not_wait_for_the_device(tmp_path):
    """The caller goes on while the value is still computed."""

    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 40, lambda _, y: jnp.tanh(y @ y), x).sum()

    loss = slow(jnp.ones([700, 700]))
    handler = SummaryHandler(tmp_path, 1, is_async=True)
    handler.process(1, loss, None, None)
    assert not loss.is_ready()
    handler.close()
    assert scalars(tmp_path, "loss") == {1: float(loss)}


def test_force_writes_off_the_interval(tmp_path):
    """Behaviour 13."""
    handler = SummaryHandler(tmp_path, 4)
    assert handler.process(5, jnp.float32(1), None, None, force=True)
    handler.close()
    assert scalars(tmp_path, "loss") == {5: 1}


@pytest.mark.parametrize("is_async", [True, False])
def test_accumulated_entries_hold_means(tmp_path, is_async):
    """Behaviour 115: plain means, weighted for metrics, at the step of the entry."""
    handler = SummaryHandler(tmp_path, 4, accumulate_interval_steps=2, is_async=is_async)
    for step in range(1, 9):
        handler.process(
            step,
            jnp.float32(step),
            {"m": (jnp.float32(step), jnp.float32(step))},
            {"x_scalar": jnp.float32(10 * step)},
            steps_per_sec=float(step),
        )
    handler.close()
    assert scalars(tmp_path, "loss") == {4: 3, 8: 7}
    assert scalars(tmp_path, "Steps/sec") == {4: 3, 8: 7}
    assert scalars(tmp_path, "x_scalar") == {4: 30, 8: 70}
    np.testing.assert_allclose(scalars(tmp_path, "Metrics/m")[8], (36 + 64) / 14, rtol=2e-5)
    assert scalars(tmp_path, "Metrics/m-weight") == {4: 6, 8: 14}


@pytest.mark.parametrize(
    ("write", "accumulate", "text"),
    [
        (2, 3, r"'train': write_interval_steps 2 is not a multiple of accumulate_interval_steps 3"),
        (0, None, "'train': write_interval_steps is 0, expected at least 1"),
    ],
)
def test_intervals_that_cannot_be(tmp_path, write, accumulate, text):
    with pytest.raises(ValueError, match=text):
        SummaryHandler(tmp_path, write, accumulate, name="train")


def test_error_in_the_thread_comes_at_the_next_step(tmp_path):
    """Behaviour 60."""
    handler = SummaryHandler(tmp_path, 1, is_async=True)
    handler.process(1, jnp.float32(1), None, {"no_type": 1.0})
    with pytest.raises(ValueError, match="no_type"):
        for step in range(2, 200):
            handler.process(step, jnp.float32(1), None, None)
            time.sleep(0.01)
    handler.close()


def test_error_in_the_thread_comes_at_the_latest_at_close(tmp_path):
    """Behaviours 38 and 60."""
    handler = SummaryHandler(tmp_path, 1, is_async=True)
    handler.process(1, jnp.float32(1), None, {"no_type": 1.0})
    with pytest.raises(ValueError, match="no_type"):
        handler.close()
    with pytest.raises(RuntimeError, match="are closed; step 2 came after"):
        handler.process(2, jnp.float32(1), None, None)


def test_steps_that_go_backwards(tmp_path):
    handler = SummaryHandler(tmp_path, 1, name="train")
    handler.process(5, jnp.float32(1), None, None)
    with pytest.warns(UserWarning, match="'train': step 4 after step 5"):
        handler.process(4, jnp.float32(1), None, None)
    handler.close()


def test_entry_over_several_batches(tmp_path):
    """Behaviour 106: metrics are weighted, the loss is the plain mean."""
    with get_summary_writer(tmp_path) as writer:
        pairs = {"m": [(1.0, 1.0), (3.0, 3.0)], "none": [(5.0, 0.0)]}
        write_summary_entry(writer, 3, [1.0, 3.0], pairs, None, {"x_scalar": [2.0, 6.0]})
    assert scalars(tmp_path, "loss") == {3: 2}
    assert scalars(tmp_path, "Metrics/m") == {3: 2.5}
    assert scalars(tmp_path, "Metrics/m-weight") == {3: 4}
    assert scalars(tmp_path, "Metrics/none") == {3: 0}
    assert scalars(tmp_path, "x_scalar") == {3: 4}


def test_disabled_writer_writes_nothing(tmp_path):
    with get_summary_writer(tmp_path / "no", enable_summary_writer=False) as writer:
        write_summary_entry(writer, 3, 1.0, None)
    assert not (tmp_path / "no").exists()
