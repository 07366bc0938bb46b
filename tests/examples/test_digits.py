"""The comparison of optimizers on digits: its data and its configs."""

import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

pytest.importorskip("sklearn")

from examples.digits import data, optimizers, train
from praxis import optimizers as praxis_optimizers
from praxis import pax_fiddle


def test_no_image_is_on_both_sides():
    train_images, test_images = data.load()
    assert (len(train_images.image), len(test_images.image)) == (1438, 359)
    assert np.abs(train_images.image).max() == 1.0
    np.testing.assert_array_equal(train_images.label_probs.sum(-1), 1.0)
    rows = np.concatenate([train_images.image, test_images.image]).reshape(1797, -1)
    assert len(np.unique(rows, axis=0)) == 1797


def test_an_epoch_has_every_image_once():
    images = data.load()[1].Transform(lambda x: x[:10])
    batches = data.epochs(images, num_epochs=2, batch_size=5)
    assert batches.image.shape == (4, 5, 8, 8, 1)
    for epoch in (batches.image[:2], batches.image[2:]):
        rows = epoch.reshape(10, -1)
        np.testing.assert_array_equal(
            np.unique(rows, axis=0), np.unique(batches.image.reshape(20, -1), axis=0)
        )


def test_every_optimizer_has_an_entry():
    """Except the shells, the plain Sgd's other name, and what another entry stands for."""
    known = {entry.cls.__name__ for entry in optimizers.OPTIMIZERS.values()}
    public = {
        name
        for name in praxis_optimizers.__all__
        if isinstance(cls := getattr(praxis_optimizers, name), type)
        and issubclass(cls, (praxis_optimizers.BaseOptimizer, praxis_optimizers.OptaxOptimizer))
    }
    left_out = {"BaseOptimizer", "ShardedSgd", "DistributedShampoo", "ShardedDistributedShampoo"}
    assert known == public - left_out
    for entry in optimizers.OPTIMIZERS.values():
        pax_fiddle.build(optimizers.config(entry, 440)).get_grad_transformation()


def test_training_learns_and_reaches_its_threshold(monkeypatch, capsys):
    """An epoch is better than chance, one in ten."""
    entry = optimizers.Entry(praxis_optimizers.Sgd, 0.1, {"momentum": 0.9}, threshold=0.2)
    monkeypatch.setattr(optimizers, "OPTIMIZERS", {"Sgd": entry})
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    code = train.main(["--epochs=1"])
    jax.config.update("jax_disable_most_optimizations", before)
    assert code == 0
    assert "Below" not in capsys.readouterr().out


def test_exit_code_tells_that_a_threshold_is_missed(monkeypatch, capsys):
    monkeypatch.setattr(train, "train", lambda digits, entry, batches: None)
    monkeypatch.setattr(train, "accuracy", lambda digits, variables, test: 0.5)
    assert train.main(["--only", "Adam", "Muon"]) == 1
    assert capsys.readouterr().out.endswith("Below the threshold: Adam, Muon\n")
