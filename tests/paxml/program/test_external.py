"""A first state from the user's own reader (behaviour 96)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment

from paxml import checkpoints, train
from praxis import pax_fiddle


class Handler:
    """Gives a state of ones, at step 5."""

    calls: ClassVar[list] = []

    def restore(self, path, item, partitioner, transformations):
        self.calls.append((path, transformations))
        state = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), item.padded_global_shapes)
        return state.replace(step=jnp.uint32(5))


class Shapeless(Handler):
    """Gives arrays of a wrong shape."""

    def restore(self, path, item, partitioner, transformations):
        state = super().restore(path, item, partitioner, transformations)
        return jax.tree.map(lambda x: x[None], state)


class Tuple(Handler):
    """Gives no state."""

    def restore(self, path, item, partitioner, transformations):
        return (super().restore(path, item, partitioner, transformations), None)


class Foreign(toy_experiment.Toy):
    """Starts from a foreign checkpoint at step 5 and does one step."""

    STEPS = 6
    EVAL = 0
    HANDLER = None

    def task(self):
        task = super().task()
        task.train.external_checkpoint_path = "foreign"
        task.train.restore_transformations = {"some": "mapping"}
        task.train.external_checkpoint_handler = self.HANDLER and self.HANDLER()
        return task


def test_it_is_used_without_own_checkpoints_and_ignored_with(tmp_path):
    Handler.calls.clear()
    foreign = type("WithHandler", (Foreign,), {"HANDLER": Handler})
    train.train_and_evaluate(foreign(), tmp_path, False, False)
    assert Handler.calls == [("foreign", {"some": "mapping"})]
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert steps == ["checkpoint_00000005", "checkpoint_00000006"]
    assert not (tmp_path / "train_state_provenance.txt").exists()

    task = pax_fiddle.instantiate(toy_experiment.Toy().task())
    specs = foreign().get_input_specs_provider_params().Instantiate().get_input_specs()
    shapes = task.create_train_state_unpadded_shapes(task.model.abstract_init_with_metadata(specs))
    state = checkpoints.restore_checkpoint(
        shapes, tmp_path / "checkpoints", None, checkpoints.CheckpointType.GDA, step=5
    )
    np.testing.assert_array_equal(state.mdl_vars["params"]["w"], np.ones(3))

    longer = type("Longer", (foreign,), {"STEPS": 7})
    train.train_and_evaluate(longer(), tmp_path, False, False)
    assert len(Handler.calls) == 1


@pytest.mark.parametrize(
    ("handler", "error", "message"),
    [
        (None, ValueError, r"external_checkpoint_path is 'foreign'.*handler is None.*init_from"),
        (Tuple, TypeError, r"Tuple\.restore returned a tuple, expected a TrainState"),
        (Shapeless, ValueError, r"Shapeless\.restore returned .* expected uint32\[\]"),
    ],
    ids=["no handler", "tuple", "shape"],
)
def test_a_wrong_handler_is_named(tmp_path, handler, error, message):
    foreign = type("Wrong", (Foreign,), {"HANDLER": handler})
    with pytest.raises(error, match=message):
        train.train_and_evaluate(foreign(), tmp_path, False, False)
