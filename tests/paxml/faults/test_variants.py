"""Resuming runs of several kinds (behaviours 24, 29, 95 for the trainer)."""

import shutil

import jax.numpy as jnp
import toy_experiment

from paxml import train
from paxml.summary.events import read_scalars


class Noisy(toy_experiment.Toy):
    """Computes in bfloat16, with noise on the weights and a moving average of them."""

    SUMMARY = 1
    EVAL = 0

    def task(self):
        task = super().task()
        task.model.fprop_dtype = jnp.bfloat16
        task.vn.vn_scale, task.vn.vn_regex = 0.05, "params/.*"
        task.train.learner.optimizer.ema_decay = 0.9
        return task


def losses_of(directory):
    return read_scalars(directory / "summaries" / "train", "loss")


def test_bfloat16_noise_and_a_moving_average_go_on_bit_for_bit(tmp_path):
    """Behaviours 24, 29, 95: from the checkpoint before, when someone deleted the newest."""
    train.train_and_evaluate(Noisy(), tmp_path / "whole", False, False)
    stopped = tmp_path / "stopped"
    train.train_and_evaluate(Noisy(), stopped, False, False, override_num_train_steps=6)
    shutil.rmtree(stopped / "checkpoints" / "checkpoint_00000006")
    shutil.copytree(stopped, tmp_path / "seed")
    train.train_and_evaluate(Noisy(), stopped, False, False)
    whole = losses_of(tmp_path / "whole")
    assert losses_of(stopped) == whole
    arrays = {
        path.name: (path / "0").read_bytes()
        for path in (stopped / "checkpoints" / "checkpoint_00000010" / "state").glob("*.w")
    }
    assert {name.rpartition("_")[2] for name in arrays} >= {"vars.params.w", "4.ema.params.w"}
    for name, data in arrays.items():
        saved = tmp_path / "whole" / "checkpoints" / "checkpoint_00000010" / "state" / name / "0"
        assert saved.read_bytes() == data

    other = type("OtherSeed", (Noisy,), {"SEED": 5})()
    train.train_and_evaluate(other, tmp_path / "seed", False, False, override_num_train_steps=5)
    changed = losses_of(tmp_path / "seed")
    assert changed[4] == whole[4]
    assert changed[5] != whole[5]  # other masks and noise on the same weights
    norms = [
        read_scalars(d / "summaries" / "train", "learning/var_norm_scalar")[5]
        for d in (tmp_path / "seed", tmp_path / "whole")
    ]
    assert norms[0] == norms[1]
