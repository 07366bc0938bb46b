"""Batches fetched ahead (behaviours 12, 22, 111 for the trainer)."""

import threading
import time

import numpy as np
import pytest
import toy_experiment

from paxml.program import prefetch
from paxml.program.prefetch import TrainBatches


def make_input(cls=toy_experiment.CountingInput, **fields):
    return cls(name="train", batch_size=2, is_training=True, **fields)


def first_x(batch):
    return float(batch.x[0, 0])


def expected(count):
    source = make_input()
    return [first_x(source.get_next()) for _ in range(count)]


def test_the_state_belongs_to_the_batches_consumed():
    batches = TrainBatches(make_input(), lambda batch: batch)
    assert batches.state == b"0"
    for number, want in enumerate(expected(5), start=1):
        assert first_x(next(batches)) == want
        assert batches.state == str(number).encode()
    batches.close()


def test_a_peek_consumes_nothing():
    batches = TrainBatches(make_input(), lambda batch: batch)
    want = expected(2)
    next(batches)
    assert [first_x(batches.peek()), first_x(batches.peek())] == [want[1]] * 2
    assert batches.state == b"1"
    assert first_x(next(batches)) == want[1]
    batches.close()


def test_no_more_than_the_depth_is_fetched_ahead():
    source = make_input()
    batches = TrainBatches(source, lambda batch: batch, depth=2)
    deadline = time.monotonic() + 5
    while source.get_state() != b"3" and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert source.get_state() == b"3"  # two in the queue, one waiting for a place
    batches.close()


def test_the_end_and_errors_come_where_the_batch_is_used():
    batches = TrainBatches(make_input(num_batches=1), lambda batch: batch)
    next(batches)
    assert batches.peek() is None
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(batches)
    batches.close()

    def fail(batch):
        raise OSError("disk")

    batches = TrainBatches(make_input(), fail)
    with pytest.raises(OSError, match="disk"):
        next(batches)
    batches.close()


def test_closing_ends_the_thread():
    before = threading.active_count()
    batches = TrainBatches(make_input(), lambda batch: batch)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_a_thread_that_is_told_to_exit_does_not_leave_the_trainer_waiting():
    class Exits(toy_experiment.CountingInput):
        def get_next(self):
            raise SystemExit("no licence")

    batches = TrainBatches(make_input(Exits), lambda batch: batch)
    with pytest.raises(SystemExit, match="no licence"):
        next(batches)
    batches.close()


def test_closing_waits_for_a_batch_under_way():
    started, finished = threading.Event(), threading.Event()

    class Slow(toy_experiment.CountingInput):
        def get_next(self):
            started.set()
            time.sleep(0.3)
            finished.set()
            return super().get_next()

    batches = TrainBatches(make_input(Slow), lambda batch: batch)
    started.wait(5)
    batches.close()
    assert finished.is_set()


def test_closing_leaves_behind_an_input_that_never_answers(monkeypatch, caplog):
    monkeypatch.setattr(prefetch, "CLOSE_SECS", 0.2)
    started, goes_on = threading.Event(), threading.Event()

    class Stuck(toy_experiment.CountingInput):
        def get_next(self):
            started.set()
            goes_on.wait(5)
            return super().get_next()

    batches = TrainBatches(make_input(Stuck), lambda batch: batch)
    started.wait(5)
    batches.close()
    assert not goes_on.is_set()
    assert "input train has been fetching a batch for 0.2 s and is left behind" in caplog.text
    goes_on.set()


def test_an_input_that_saves_itself_is_not_read_ahead():
    class Own(toy_experiment.CountingInput):
        def save(self, checkpoint_path):
            raise AssertionError("not here")

    source = make_input(Own)
    batches = TrainBatches(source, lambda batch: batch)
    assert batches.saves_itself
    assert batches.peek() is None
    next(batches)
    assert source.get_state() == b"1"
    assert batches.state is None


def test_an_input_without_state_is_still_read_ahead():
    batches = TrainBatches(make_input(toy_experiment.StatelessInput), lambda batch: batch)
    np.testing.assert_equal([first_x(next(batches)) for _ in range(3)], expected(3))
    assert batches.state is None
    batches.close()
