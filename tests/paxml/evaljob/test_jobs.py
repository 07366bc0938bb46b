"""Evaluation and decoding jobs on the checkpoints of a run (behaviours 98-102)."""

import contextlib
import json
import os
import time

import numpy as np
import pytest
import toy_decoding
import toy_experiment

from paxml import eval_lib, io_utils
from paxml.program.status import TrainingStatus
from paxml.summary.events import read_scalars
from paxml.trainer.types import RunningMode

EMA = 0.9
FAST = eval_lib.Polling(interval_secs=0.01, first_timeout_secs=0.05)


def evaluated(directory, tag="loss"):
    return read_scalars(directory / "summaries" / "eval_test_test", tag)


def predictions(directory, step):
    path = directory / "decoder_out" / "held_out" / f"decoder_out_{step}_shard_0.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def test_a_finished_run_is_evaluated_once_with_averaged_weights(make, trained, caplog):
    """Behaviour 98: the last step, with the moving average, although the settings say no."""
    directory = make(4, 8, 10)
    with caplog.at_level("INFO", logger="absl"):
        eval_lib.evaluate(toy_decoding.variant(EMA=EMA), directory)
    assert sorted(evaluated(directory)) == [10]
    assert "keeps a moving average of the weights: this job uses it" in caplog.text
    assert "num_train_steps is 10" in caplog.text
    assert abs(evaluated(directory)[10] - evaluated(trained)[10]) > 1e-3
    assert not (directory / "_internal_artifacts" / "_eval_progress.json").exists()


def test_plain_weights_give_what_training_gave(make, trained):
    directory = make(10)
    eval_lib.evaluate(toy_decoding.variant(), directory)
    np.testing.assert_allclose(evaluated(directory)[10], evaluated(trained)[10], rtol=1e-5)


def test_new_checkpoints_and_the_final_one_off_the_interval(make, publish_next):
    """Behaviour 99: each newest one, and that of `num_train_steps`; then the job ends."""
    directory = make(0)
    told = []

    def publish(metrics, mode, step, is_last, checkpoints):
        told.append((step, is_last))
        assert mode == RunningMode.EVAL
        assert checkpoints == directory / "checkpoints"
        assert sorted(metrics) == [
            "eval_steps_per_sec",
            "eval_test_test/metrics/loss",
            "eval_test_test/metrics/mae",
            "num_params",
        ]
        for following in {0: [4, 8], 8: [10], 10: []}[step]:
            publish_next(following)
        return False

    eval_lib.evaluate(toy_decoding.variant(), directory, early_stopping_fn=publish, polling=FAST)
    assert told == [(0, False), (8, False), (10, True)]
    assert sorted(evaluated(directory)) == [0, 8, 10]


def test_early_stopping_ends_the_job(make):
    directory = make(4)
    eval_lib.evaluate(toy_decoding.variant(), directory, early_stopping_fn=lambda *_: True)
    assert sorted(evaluated(directory)) == [4]


@pytest.mark.parametrize("end", ["finished", "lost", "shorter"])
def test_the_job_ends_with_training_that_never_reached_its_last_step(make, caplog, end):
    """Behaviour 99: also when training was stopped early, or has died."""
    directory = make(4)
    status = TrainingStatus(directory, 4 if end == "shorter" else 10)
    with contextlib.suppress(KeyError), status:
        if end == "lost":
            raise KeyError
    path = directory / "_internal_artifacts" / "_train_status.json"
    if end != "finished":
        long_ago = time.time() - 2 * eval_lib.Polling().training_lost_secs
        os.utime(path, (long_ago, long_ago))
    with caplog.at_level("INFO", logger="absl"):
        eval_lib.evaluate(toy_decoding.variant(), directory, polling=FAST)
    assert sorted(evaluated(directory)) == [4]
    said = {
        "finished": "training has finished",
        "lost": "training is stopped and was last heard",
        "shorter": "finished with num_train_steps = 4, while this job was told 10",
    }
    assert said[end] in caplog.text


def test_without_a_checkpoint_the_job_gives_up(make):
    with pytest.raises(TimeoutError, match=r"has no checkpoint of step 0 or later.*job_log_dir"):
        eval_lib.evaluate(toy_decoding.variant(), make(), polling=FAST)


class Breaks(toy_experiment.CountingInput):
    """Fails while the class says so."""

    broken = True

    def get_next(self):
        if type(self).broken:
            raise RuntimeError("preempted")
        return super().get_next()


def test_a_stopped_job_goes_on_with_its_step_and_leaves_finished_inputs_out(
    make, publish_next, caplog, monkeypatch
):
    """Behaviour 100: the same step from the progress file."""
    directory = make(4)
    experiment = toy_decoding.variant(
        EVAL_INPUTS=(("test", toy_experiment.CountingInput), ("other", Breaks))
    )
    with pytest.raises(RuntimeError, match="preempted"):
        eval_lib.evaluate(experiment, directory, restore_checkpoint_step=4)
    progress = directory / "_internal_artifacts" / "_eval_progress.json"
    assert json.loads(progress.read_text()) == {"restore_checkpoint_step": 4}
    monkeypatch.setattr(Breaks, "broken", False)
    publish_next(8)
    publish_next(10)
    with caplog.at_level("INFO", logger="absl"):
        eval_lib.evaluate(experiment, directory, polling=FAST)
    other = read_scalars(directory / "summaries" / "eval_test_other", "loss")
    assert sorted(other) == [4, 10]
    assert "Input test was finished at step 4 before" in caplog.text
    assert sorted(evaluated(directory)) == [4, 10]
    assert not progress.exists()


def test_a_stopped_job_whose_checkpoint_is_gone_takes_the_newest(make, caplog):
    """Behaviour 100: the second half."""
    directory = make(10)
    progress = directory / "_internal_artifacts" / "_decoder_progress.json"
    progress.parent.mkdir()
    progress.write_text('{"restore_checkpoint_step": 4}')
    mode = io_utils.EvaluationMode.DECODE
    assert io_utils.get_checkpoint_step(directory, directory / "checkpoints", mode) == 10
    assert "A job stopped at step 4" in caplog.text
    with pytest.raises(KeyError), io_utils.checkpoint_progress(directory, 10, mode):
        raise KeyError
    assert json.loads(progress.read_text()) == {"restore_checkpoint_step": 10}
    with io_utils.checkpoint_progress(directory, 10, mode):
        pass
    assert not progress.exists()


def test_decode_once_writes_each_step_and_names_the_steps_that_there_are(make):
    """Behaviour 101, with the evaluation programs after decoding."""
    directory = make(4, 8)
    told = []
    eval_lib.decode(
        toy_decoding.variant(),
        directory,
        False,
        None,
        [4, 8],
        False,
        run_eval=True,
        output_pickle=False,
        early_stopping_fn=lambda *args: bool(told.append(args)),
    )
    files = sorted(path.name for path in (directory / "decoder_out" / "held_out").iterdir())
    assert files == ["decoder_out_4_shard_0.jsonl", "decoder_out_8_shard_0.jsonl"]
    assert np.any(
        predictions(directory, 4)["prediction"] != predictions(directory, 8)["prediction"]
    )
    assert sorted(evaluated(directory)) == [4, 8]
    assert "keep_prob" in (directory / "decoder_out" / "post_init_model_params.txt").read_text()
    metrics, mode, _, is_last, _ = told[-1]
    assert mode == RunningMode.EVAL | RunningMode.DECODE
    assert is_last
    assert {"decode_test_held_out/mean", "decode_test_held_out/rows", "num_params"} <= set(metrics)
    assert {"decode_steps_per_sec", "eval_steps_per_sec"} <= set(metrics)
    with pytest.raises(ValueError, match=r"no checkpoint of step 5; .* steps \[4, 8\]"):
        eval_lib.decode(toy_decoding.variant(), directory, False, None, 5, False)


def test_steps_and_continuous_decoding_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"\[4\] asks for certain steps.*decode_once"):
        eval_lib.decode(toy_decoding.variant(), tmp_path, False, None, [4], True)
    with pytest.raises(ValueError, match="No complete checkpoint was found in directory"):
        eval_lib.decode(toy_decoding.variant(), tmp_path, False, None, None, False)


def test_one_and_four_devices_write_the_same_records_without_padding(trained, tmp_path):
    """Behaviour 102: batches of 3 on 4 devices; each example once."""
    for devices in (1, 4):
        eval_lib.decode(
            toy_decoding.variant(DEVICES=devices, DECODE_BATCH=3),
            tmp_path / str(devices),
            False,
            trained / "checkpoints",
            None,
            False,
        )
    one, four = (predictions(tmp_path / name, 10) for name in ("1", "4"))
    assert one["prediction"].shape == (6,)
    for key in one:
        np.testing.assert_allclose(one[key], four[key], rtol=1e-5, atol=1e-6)


def test_continuous_decoding_waits_for_its_first_step(make, publish_next):
    directory = make(4)
    publish_next(10)
    experiment = toy_decoding.variant(DECODE_START=8)
    eval_lib.decode(experiment, directory, False, None, None, True, polling=FAST)
    metrics = read_scalars(directory / "summaries" / "decode_test_held_out", "decode_metrics/mean")
    assert sorted(metrics) == [10]


def test_an_experiment_without_datasets_needs_no_job(tmp_path, caplog):
    class Nothing(toy_decoding.Decoding):
        EVAL_INPUTS = ()

        def decode_datasets(self):
            return []

    with caplog.at_level("INFO", logger="absl"):
        eval_lib.evaluate(Nothing(), tmp_path)
        eval_lib.decode(Nothing(), tmp_path, False, None, None, False)
    assert "Nothing has no evaluation datasets" in caplog.text
    assert "Nothing has no decoding datasets" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_snapshots_of_other_versions_are_removed_and_nothing_else(tmp_path):
    for name in ("checkpoint_00000004", "notes"):
        (tmp_path / "_SNAPSHOTS" / name).mkdir(parents=True)
    (tmp_path / "checkpoint_00000004").mkdir()
    eval_lib.release_all_snapshots(tmp_path)
    assert [path.name for path in (tmp_path / "_SNAPSHOTS").iterdir()] == ["notes"]
    assert (tmp_path / "checkpoint_00000004").exists()
