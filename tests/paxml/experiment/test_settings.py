"""Settings of an experiment from the command line."""

import pytest

from paxml.experiment.settings import with_settings


class Tiny:
    """An experiment."""

    NUM_STEPS = 1000
    NAME = "plain"
    _HIDDEN = 1


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("NUM_STEPS=20", "NUM_STEPS", 20),
        ("NUM_STEPS=[1, 2]", "NUM_STEPS", [1, 2]),
        ("NAME=a=b", "NAME", "a=b"),
        ("NAME=", "NAME", ""),
    ],
)
def test_value(text, name, value):
    changed = with_settings(Tiny, [text])
    assert getattr(changed, name) == value
    assert (changed.__name__, changed.__module__) == (Tiny.__name__, Tiny.__module__)
    assert Tiny.NUM_STEPS == 1000


def test_nothing_set_is_the_class_itself():
    assert with_settings(Tiny, []) is Tiny


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NUM_STEP=1", r"--set=NUM_STEP=1: Tiny has no setting 'NUM_STEP'.*mean 'NUM_STEPS'"),
        ("NUM_STEPS", r"expected NAME=VALUE, with a name of \['NAME', 'NUM_STEPS'\]"),
        ("_HIDDEN=2", "no setting '_HIDDEN'"),
    ],
)
def test_wrong_setting(text, message):
    with pytest.raises(ValueError, match=message):
        with_settings(Tiny, [text])
