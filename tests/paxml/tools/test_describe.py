"""What training takes, against numbers counted by hand."""

import jax
import pytest
import toy_experiment

from paxml.tools.describe import describe


def test_numbers_of_a_small_model():
    """Weight [3] and bias are trained, the mean [3] is not; Adam has moments and 4 counts."""
    found = describe(toy_experiment.Toy())
    assert (found.num_params, found.num_trainable) == (7, 4)
    assert found.batch == {"x": "float32[8,3]", "y": "float32[8]"}
    assert (found.batch_size, found.tokens_per_step) == (8, 0)
    assert found.mesh == {"data": 1}
    memory = found.memory
    assert (memory.variables, memory.gradients) == (7 * 4, 4 * 4)
    assert memory.opt_state == 2 * 4 * 4 + 4 * 4
    # Kept for the gradients: x after dropout [8, 3], and the errors [8].
    assert memory.activations == (8 * 3 + 8) * 4
    assert found.fits is None
    assert found.fastest_steps_per_sec is None


def test_a_mesh_splits_what_it_says_and_needs_no_devices():
    """The matrix [5, 3] has its 5 rows on 4 devices, 2 rows on each."""
    sharded = toy_experiment.variant(MODEL=toy_experiment.Sharded, MESH=[1, 16, 4])
    assert jax.device_count() < 64
    found = describe(sharded, devices=64, kind="TPU v5e")
    assert found.mesh == {"replica": 1, "data": 16, "mdl": 4}
    assert found.num_devices == 64
    assert found.memory.variables == (3 + 3 + 1 + 2 * 3) * 4
    assert found.memory.activations == (8 * 3 + 8) * 4 / 64
    assert found.fits
    assert found.fastest_steps_per_sec == pytest.approx(64 * 197e12 / found.flops_per_step)
    text = str(found)
    assert "replica 1 x data 16 x mdl 4" in text
    assert "memory of tpu-v5e" in text


def test_more_devices_hold_less_of_the_activations():
    one, four = (describe(toy_experiment.Toy(), devices=count) for count in (1, 4))
    assert four.memory.activations == one.memory.activations / 4
    assert four.memory.variables == one.memory.variables
    assert four.flops_per_step == one.flops_per_step


def test_wrong_devices_and_kinds_are_named():
    sharded = toy_experiment.variant(MODEL=toy_experiment.Sharded, MESH=[1, 2, 4])
    with pytest.raises(
        ValueError, match="mesh, replica 1 x data 2 x mdl 4, has 8 devices, but 16 are asked for"
    ):
        describe(sharded, devices=16)
    with pytest.raises(ValueError, match="0 devices: expected at least 1"):
        describe(toy_experiment.Toy(), devices=0)
    with pytest.raises(ValueError, match=r"No kind of device 'h1' is known.*'h100'"):
        describe(toy_experiment.Toy(), kind="h1")
