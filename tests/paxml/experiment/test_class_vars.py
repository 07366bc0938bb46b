"""Settings as text, and back (behaviour 113)."""

import pytest

from paxml import experiment_utils, experiment_vars_summary_parser
from paxml.experiment.base import BaseExperiment


class Odd:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


class Base(BaseExperiment):
    STEPS = 10
    NAME = "base: of all"
    RATES = (0.5, None)

    def datasets(self):
        return []

    def task(self):
        return None


class Derived(Base):
    STEPS = 20
    TABLE = {"a": [1, 2]}  # noqa: RUF012
    TEXT = "two\nlines:\n\n    SHAPED: like a setting"
    COLON = Odd("ends in:")
    LINES = Odd("first\n  second: 2\n\nthird:")


def test_round_trip():
    """Behaviour 113, with values that end in a colon or take several lines."""
    text = experiment_utils.get_cls_vars_summary(Derived)
    assert experiment_vars_summary_parser.parse(text) == {
        "STEPS": 20,
        "NAME": "base: of all",
        "RATES": (0.5, None),
        "TABLE": {"a": [1, 2]},
        "TEXT": Derived.TEXT,
        "COLON": "ends in:",
        "LINES": "first\n  second: 2\n\nthird:",
    }


def test_text_of_another_hand():
    parsed = experiment_vars_summary_parser.parse("a.b.C:\nX: 1\n   Y:2\n\nd.E:\n    Z: <obj: x>\n")
    assert parsed == {"X": 1, "Y": 2, "Z": "<obj: x>"}


def test_a_line_that_is_not_understood_is_left_out_with_a_warning(caplog):
    assert experiment_vars_summary_parser.parse("A: 1\n???\nB: 2") == {"A": 1, "B": 2}
    assert "line '???' is not understood" in caplog.text


@pytest.mark.parametrize("text", ["", "\n", "a.B:\n\n"])
def test_nothing(text):
    assert experiment_vars_summary_parser.parse(text) == {}
