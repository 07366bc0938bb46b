"""The picture of the loss and the reader behind it."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from paxml.summary.events import read_scalars
from paxml.summary.plot import loss_curve
from paxml.summary.writer import get_summary_writer


def write(directory, values, tag="loss"):
    with get_summary_writer(directory) as writer:
        for step, value in values.items():
            writer.add_scalar(tag, value, step)


def test_reader_agrees_with_tensorboard(tmp_path):
    write(tmp_path, {1: 0.5, 2: 0.25})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert read_scalars(tmp_path, "loss") == {e.step: e.value for e in events} == {1: 0.5, 2: 0.25}
    assert read_scalars(tmp_path, "other") == {}


def test_reader_stops_at_an_event_that_is_not_finished(tmp_path):
    """A run that was killed, or still writes, leaves a file with a cut end."""
    write(tmp_path, {1: 0.5, 2: 0.25})
    (path,) = tmp_path.glob("*.tfevents.*")
    whole = path.read_bytes()
    for size in (len(whole) - 3, len(whole) - 30, 5):
        path.write_bytes(whole[:size])
        assert read_scalars(tmp_path, "loss").keys() <= {1}


def test_picture(tmp_path):
    matplotlib_image = pytest.importorskip("matplotlib.image")
    write(tmp_path / "run" / "summaries" / "train", {step: 1 / step for step in range(1, 20)})
    write(tmp_path / "run" / "summaries" / "eval_test_dev", {5: 0.3, 10: 0.2})
    output = loss_curve(tmp_path / "run", tmp_path / "pictures" / "loss.png")
    pixels = matplotlib_image.imread(output)
    assert pixels.shape[:2] == (480, 840)
    # White paper with something on it.
    assert 0.005 < (pixels[..., :3].min(-1) < 0.9).mean() < 0.5


def test_directory_without_losses(tmp_path):
    write(tmp_path / "summaries" / "train", {1: 1.0}, tag="other")
    with pytest.raises(
        FileNotFoundError, match=r"summaries has the scalar 'loss'\. Is .* the job_log"
    ):
        loss_curve(tmp_path, tmp_path / "loss.png")
