"""What to do with a checkpoint of another model (trainer behaviours 89 and 90)."""

import jax.numpy as jnp
import numpy as np
import pytest

from paxml.checkpoint.compare import CheckpointMismatchError, check_fits
from paxml.checkpoint.health import SavedArray
from paxml.task.rules import source_name
from paxml.tasks_lib import LOAD_ALL, CheckpointLoadingRules

DIRECTORY = "run/checkpoints/checkpoint_00000012"


def arrays(**shapes):
    """Arrays by name, in which `_` stands for a dot."""
    return {
        f"mdl_vars.params.{name.replace('_', '.')}": SavedArray(shape, np.dtype("float32"))
        for name, shape in shapes.items()
    }


def message_of(saved, wanted):
    with pytest.raises(CheckpointMismatchError) as error:
        check_fits(DIRECTORY, saved, wanted, saved_unpadded={}, wanted_unpadded={})
    return str(error.value)


def test_the_message_ends_with_the_rule_to_write():
    saved = arrays(old_w=(7, 3), lin_w=(5, 3), lin_b=(3,), gone=(2,))
    wanted = arrays(new_w=(7, 3), lin_w=(5, 4), lin_b=(3,), added=(11,))
    text = message_of(saved, wanted)
    rule = text[text.index("  task.train") :]
    assert rule == (
        "  task.train.init_from_checkpoint_rules = {\n"
        "      'run/checkpoints': tasks_lib.CheckpointLoadingRules(\n"
        '          load_rules=[("params/new/w$", "params/old/w"), tasks_lib.LOAD_ALL],\n'
        '          ignore_rules=["params/added$", "params/lin/w$"],\n'
        "          step=12,\n"
        "      )\n"
        "  }"
    )


def test_the_rule_works():
    saved = arrays(old_w=(7, 3), lin_w=(5, 3))
    text = message_of(saved, arrays(new_w=(7, 3), lin_w=(5, 4)))
    tasks_lib = type("Module", (), {"LOAD_ALL": LOAD_ALL})
    tasks_lib.CheckpointLoadingRules = CheckpointLoadingRules  # pyright: ignore
    written = text[text.index("= {") + 2 :]
    rules = eval(written, {"tasks_lib": tasks_lib})["run/checkpoints"]
    assert source_name("params/new/w", rules.load_rules) == "params/old/w"
    assert rules.ignore_rules == ["params/lin/w$"]


def test_two_candidates_are_no_rename():
    saved = arrays(one_w=(7, 3), two_w=(7, 3))
    text = message_of(saved, arrays(three_w=(7, 3)))
    assert 'ignore_rules=["params/three/w$"]' in text
    assert "load_rules=[tasks_lib.LOAD_ALL]" in text


def test_another_dtype_alone_is_loaded_and_cast():
    saved = arrays(lin_w=(5, 3))
    wanted = {name: SavedArray(a.shape, jnp.dtype("bfloat16")) for name, a in saved.items()}
    text = message_of(saved, wanted)
    assert "params.lin.w: saved float32[5,3], wanted bfloat16[5,3]" in text
    assert "ignore_rules" not in text
