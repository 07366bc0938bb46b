"""Profiles of real steps."""

import jax
import jax.numpy as jnp
import pytest

from paxml.profiling import Profiler
from paxml.program.profile_once import ProfileOnce
from paxml.task.settings import Decode, Train


def profiles(directory):
    return list((directory / "plugins" / "profile").glob("*/*.xplane.pb"))


def test_mean_of_durations_and_length():
    profiler = Profiler(num_steps=3, min_duration_sec=1.0, default_duration_sec=5.0)
    assert profiler.step_duration_estimate_sec == 0.0
    assert profiler.duration_sec() == 5.0
    for secs in (1.0, 2.0):
        profiler.update_step_moving_mean(secs)
    assert profiler.step_duration_estimate_sec == 1.5
    assert profiler.duration_sec() == 4.5
    profiler.update_step_moving_mean(-2.9)  # a mean of 1/30
    assert profiler.duration_sec() == 1.0


def test_capture_ends_at_close(tmp_path, caplog):
    profiler = Profiler(default_duration_sec=60.0, log_dir=tmp_path, tag="mine")
    profiler.capture_async()
    profiler.capture_async()
    assert "mine: a profile is under way" in caplog.text
    jax.block_until_ready(jnp.ones([7, 7]) @ jnp.ones([7, 7]))
    profiler.close()
    (found,) = profiles(tmp_path)
    assert found.stat().st_size > 1000
    profiler.close()


def test_another_profile_under_way_is_a_warning(tmp_path, caplog):
    first, second = (Profiler(log_dir=tmp_path / name, tag=name) for name in "ab")
    first.capture_async()
    second.capture_async()
    second.close()
    first.close()
    assert "b: no profile is taken" in caplog.text
    assert len(profiles(tmp_path / "a")) == 1
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("fields", [{"log_dir": None}, {"max_num_hosts": 0}])
def test_nothing_is_captured(fields, tmp_path):
    profiler = Profiler(**{"log_dir": tmp_path, **fields})
    profiler.capture_async()
    profiler.close()
    assert not profiles(tmp_path)


def test_a_program_takes_one_profile_where_its_settings_say(tmp_path):
    """Training counts steps from 0, decoding batches from 1; neither takes any by default."""
    short = {"profiler_num_steps": 1, "profiler_min_duration_sec": 0.0}
    train = ProfileOnce(Train(profiler_capture_step=2, **short), tmp_path / "train", "train")
    decode = ProfileOnce(Decode(**short), tmp_path / "decode", "decode")
    for profile, first in ((train, 0), (decode, 1)):
        for _ in range(2):
            for number in range(first, first + 4):
                profile.before_step(number)
        profile.close()
    assert len(profiles(tmp_path / "train")) == len(profiles(tmp_path / "decode")) == 1
    for profile in (ProfileOnce(Train(), tmp_path, "a"), ProfileOnce(Decode(), tmp_path, "b")):
        profile.before_step(1)
        profile.close()
    assert not profiles(tmp_path)
