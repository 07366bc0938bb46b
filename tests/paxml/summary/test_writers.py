"""Writers of summaries: what each leaves behind, and how they are chosen."""

import json
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]  # made at run time by protobuf
)

from paxml.summary.events import read_scalars
from paxml.summary.writer import get_summary_writer, using_summary_writers
from paxml.summary.writers.base import SummaryWriter
from paxml.summary.writers.jsonl import JsonLinesWriter
from paxml.summary.writers.several import SeveralWriters
from paxml.summary.writers.tensorboard import TensorBoardWriter

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
SOUND = np.linspace(-1, 1, 7)[:, None]


def write_all(writer):
    with writer:
        writer.add_hparams({"rate": 0.5, "name": "a", "steps": 3, "flag": True})
        for step in (1, 2):
            writer.add_scalar("loss", 1 / step, step)
            writer.add_scalar("speed", step, step)
        writer.flush()
        writer.add_text("Model", "w: 3", 0)
        writer.add_histogram("grads", np.array([[0.0, 1.0], [1.0, 3.0]]), 2)
        writer.add_image("faces/0", IMAGE, 2)
        writer.add_audio("voice/0", SOUND, 2, 8000)


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_lines_of_json(tmp_path):
    write_all(JsonLinesWriter(tmp_path / "train"))
    found = lines(tmp_path / "train")
    assert all(entry.pop("time") > 1.7e9 for entry in found)
    assert found == [
        {"step": 0, "hparams": {"rate": 0.5, "name": "a", "steps": 3, "flag": True}},
        {"step": 1, "loss": 1.0, "speed": 1.0},
        {"step": 2, "loss": 0.5, "speed": 2.0},
        {"step": 0, "tag": "Model", "text": "w: 3"},
        {"step": 2, "tag": "grads", "histogram": found[4]["histogram"]},
        {"step": 2, "tag": "faces/0", "media": "media/faces/0_2.npy"},
        {"step": 2, "tag": "voice/0", "media": "media/voice/0_2.wav"},
    ]
    histogram = found[4]["histogram"]
    assert sum(histogram["counts"]) == 4
    assert (histogram["edges"][0], histogram["edges"][-1]) == (0.0, 3.0)
    np.testing.assert_array_equal(np.load(tmp_path / "train/media/faces/0_2.npy"), IMAGE)
    assert (tmp_path / "train/media/voice/0_2.wav").read_bytes().startswith(b"RIFF")


def test_numbers_that_json_lacks_and_a_resumed_run(tmp_path):
    for step, values in [(1, (np.nan, np.inf)), (2, (-np.inf, 1.0)), (2, (3.0, 4.0))]:
        with JsonLinesWriter(tmp_path) as writer:
            for tag, value in zip("ab", values, strict=True):
                writer.add_scalar(tag, value, step)
    assert [entry["a"] for entry in lines(tmp_path)] == ["NaN", "-Infinity", 3.0]
    found = read_scalars(tmp_path, "a")
    assert np.isnan(found[1])
    assert found[2] == 3.0  # the later value
    assert read_scalars(tmp_path, "b") == {1: np.inf, 2: 4.0}


def test_a_line_still_being_written_is_left_out(tmp_path):
    with JsonLinesWriter(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_scalars(tmp_path, "loss") == {1: 1.0}


def test_tensorboard_reads_it_all(tmp_path):
    pytest.importorskip("PIL")
    write_all(TensorBoardWriter(tmp_path))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert events.Tensors("Model/text_summary")[0].tensor_proto.string_val == [b"w: 3"]
    assert events.Images("faces/0")[0].width == 3
    assert events.Audio("voice/0")[0].sample_rate == 8000
    assert events.Histograms("grads")[0].histogram_value.num == 4
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["rate"].number_value == 0.5
    assert session.hparams["name"].string_value == "a"
    assert session.hparams["flag"].bool_value is True


def test_several_writers_get_the_same(tmp_path):
    with using_summary_writers(["tensorboard", "jsonl"]):
        write_all(get_summary_writer(tmp_path))
    from_lines = read_scalars(tmp_path, "speed")
    (tmp_path / "metrics.jsonl").unlink()
    assert read_scalars(tmp_path, "speed") == from_lines == {1: 1.0, 2: 2.0}


class Failing(JsonLinesWriter):
    def close(self):
        super().close()
        raise OSError("full")


def test_each_of_several_is_closed_whatever_happens_to_another(tmp_path):
    writer = SeveralWriters([Failing(tmp_path / "a"), JsonLinesWriter(tmp_path / "b")])
    writer.add_scalar("loss", 1.0, 1)
    with pytest.raises(OSError, match="full"):
        writer.close()
    assert read_scalars(tmp_path / "a", "loss") == read_scalars(tmp_path / "b", "loss") == {1: 1.0}


def test_choice_of_writers(tmp_path):
    with get_summary_writer(tmp_path / "a") as writer:
        assert isinstance(writer, TensorBoardWriter)
    with using_summary_writers([JsonLinesWriter]):
        with get_summary_writer(tmp_path / "b") as writer:
            assert isinstance(writer, JsonLinesWriter)
        silent = get_summary_writer(tmp_path / "c", enable_summary_writer=False)
    write_all(silent)
    assert not (tmp_path / "c").exists()
    with (
        pytest.raises(ValueError, match=r"no summary writer 'json'\. Did you mean 'jsonl'\?"),
        using_summary_writers(["json"]),
    ):
        raise AssertionError("must not come here")


def test_a_missing_package_is_named_before_anything_is_written(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(
            ImportError, match=r"summary_writers=wandb needs.*pip install 'pax\[wandb\]'"
        ),
        using_summary_writers(["wandb"]),
    ):
        raise AssertionError("must not come here")


@pytest.mark.filterwarnings("ignore")  # of wandb and what it imports
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    pytest.importorskip("PIL")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with using_summary_writers(["wandb"]):
        train = get_summary_writer(tmp_path / "job" / "summaries" / "train")
        test = get_summary_writer(tmp_path / "job" / "summaries" / "eval_test_dev")
        assert isinstance(train, SummaryWriter)
        with test:
            test.add_scalar("loss", 0.25, 5)
            write_all(train)
    run_id = (tmp_path / "job" / "summaries" / "wandb_run_id.txt").read_text()
    (log,) = (tmp_path / "job" / "summaries" / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")
    data = log.read_bytes()
    for text in (b"train/loss", b"eval_test_dev/loss", b"train/grads", b"rate"):
        assert text in data
