"""Summaries of each type, read back by TensorBoard (trainer 10.1)."""

import io
import wave

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from paxml import summary_utils
from paxml.summary.current import writing_to
from paxml.summary.writer import get_summary_writer
from praxis.core.summaries import SummaryType


def written(directory, tensor, summary_type, **options):
    with get_summary_writer(directory) as writer, writing_to(writer):
        summary_utils.write_summary_tensor(3, "x", tensor, summary_type, **options)
    sizes = {"images": 0, "audio": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(directory), size_guidance=sizes).Reload()


@pytest.mark.parametrize("kind", [SummaryType.SCALAR, SummaryType.AGGREGATE_SCALAR])
def test_scalars_are_averaged(tmp_path, kind):
    (event,) = written(tmp_path, np.array([1.0, 4.0]), kind).Scalars("x")
    assert (event.step, event.value) == (3, 2.5)


@pytest.mark.parametrize("kind", [SummaryType.IMAGE, SummaryType.AGGREGATE_IMAGE])
def test_images_one_by_one_and_not_more_than_64(tmp_path, kind):
    events = written(tmp_path, np.zeros([70, 5, 7, 3], np.float32), kind)
    assert set(events.Tags()["images"]) == {f"x/{index}" for index in range(64)}
    (image,) = events.Images("x/63")
    assert (image.height, image.width) == (5, 7)


def test_audio_is_a_wave_file(tmp_path):
    samples = np.array([[0.0, 0.5, -1.0, 2.0]])
    (audio,) = written(tmp_path, samples, SummaryType.AUDIO, sample_rate=16000).Audio("x/0")
    with wave.open(io.BytesIO(audio.encoded_audio_string)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 1, 4)
        got = np.frombuffer(file.readframes(4), "<i2")
    np.testing.assert_array_equal(got, [0, 16383, -32767, 32767])


def test_texts(tmp_path):
    events = written(tmp_path, ["one", b"two"], SummaryType.TEXT)
    (text,) = events.Tensors("x/1/text_summary")
    assert text.tensor_proto.string_val == [b"two"]


def test_histograms_leave_out_what_is_not_finite(tmp_path):
    values = np.array([[1.0, 2.0], [np.nan, np.inf]])
    (event,) = written(tmp_path, values, SummaryType.HISTOGRAM).Histograms("x")
    value = event.histogram_value
    assert (value.min, value.max, value.num) == (1, 2, 2)


def test_video_is_refused(tmp_path):
    with pytest.raises(NotImplementedError, match="'x': VIDEO cannot be written yet"):
        written(tmp_path, np.zeros([1, 2, 3, 4, 3]), SummaryType.VIDEO)


def test_without_a_current_writer():
    with pytest.raises(RuntimeError, match="No summary writer is current"):
        summary_utils.write_summary_tensor(3, "x", 1.0, SummaryType.SCALAR)


def test_flat_keys():
    nested = {"a": {"b_scalar": 1, "c_aggregate_scalar": [2, 3]}, "d_histogram": 4}
    assert summary_utils.flatten_flax_summaries(nested) == {
        "a/b_scalar": 1,
        "a/c_0_aggregate_scalar": 2,
        "a/c_1_aggregate_scalar": 3,
        "d_histogram": 4,
    }
    assert summary_utils.flatten_summary_dict({"b_scalar": 1}, "p") == [("p/b_scalar", 1)]


def test_display_names():
    shown = summary_utils.get_summary_display_name_from_key
    assert shown("a/b_aggregate_image") == "a/b_image"
    assert shown("a/b_scalar") == "a/b_scalar"


def test_cap():
    images = np.zeros([40, 2, 2, 1])
    assert not summary_utils.should_cap_summary({"x_image": [images]}, "x_image")
    assert summary_utils.should_cap_summary({"x_image": [images, images]}, "x_image")
    assert not summary_utils.should_cap_summary({"x_scalar": [1] * 99}, "x_scalar")
