"""Texts about the model (trainer 10.1)."""

import jax.numpy as jnp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from paxml import summary_utils, train_states
from paxml.summary.tables import parameter_table
from paxml.summary.writer import get_summary_writer

VARIABLES = {"params": {"lin": {"w": jnp.ones([4, 3]), "b": jnp.ones([3])}}}


def test_texts_of_the_first_step(tmp_path):
    state = train_states.TrainState(jnp.uint32(0), VARIABLES, [])
    with get_summary_writer(tmp_path) as writer:
        summary_utils.write_model_structure(writer, state, False)
        summary_utils.write_total_num_params(writer, 1234567)
        summary_utils.write_global_batch_size(writer, 2048)
        origin = train_states.build_train_state_provenance(state)
        summary_utils.write_model_provenance(writer, origin)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()

    def text(tag):
        (event,) = events.Tensors(f"{tag}/text_summary")
        assert event.step == 0
        return event.tensor_proto.string_val[0].decode()

    assert text("Model") == "    params/lin/b: 3\n    params/lin/w: 4x3"
    assert text("Total Num Params") == "1 234 567"
    assert text("Global batch size") == "2 048"
    assert text("Model vars provenance").count("random_init") == 2


@pytest.mark.parametrize(
    ("digits", "grouped"), [("", ""), ("12", "12"), ("123", "123"), ("1234", "1 234")]
)
def test_groups_of_digits(digits, grouped):
    assert summary_utils.pretty_format_iters(digits) == grouped


def test_nested_text():
    text = summary_utils.pretty_repr({"a": {"b": 1, "c": {"d": "x"}}, "e": 2}, num_spaces=2)
    assert text == "a:\n  b: 1\n  c:\n    d: 'x'\ne: 2"


def test_shapes():
    arrays = {"w": jnp.ones([2, 4, 3]), "n": jnp.ones([2], jnp.int32)}
    assert summary_utils.pretty_repr_shapes(arrays, True, with_dtype=True) == (
        "n: scalar, int32\nw: 4x3, float32"
    )


def test_parameter_table():
    assert "params/lin/w  4x3" in parameter_table(VARIABLES)
