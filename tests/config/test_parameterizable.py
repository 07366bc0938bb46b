"""Configurable classes that are no layers (core behaviours 38 and 39)."""

import copy
import pickle

import pytest

from praxis import base_hyperparams, pax_fiddle


class Schedule(base_hyperparams.FiddleBaseParameterizable):
    steps: int = 10
    needed: int

    def value(self):
        return self.steps + self.needed


class Learner(base_hyperparams.FiddleBaseParameterizable):
    schedule: Schedule = pax_fiddle.instance_field(Schedule)
    schedule_tpl: pax_fiddle.Config = pax_fiddle.template_field(Schedule)


def test_keyword_construction():
    """Behaviour 38."""
    schedule = Schedule(needed=3)
    assert (schedule.name, schedule.value()) == ("", 13)
    schedule.steps = 4
    assert schedule.value() == 7
    assert Schedule.config(needed=3, name="a").Instantiate() == Schedule(needed=3, name="a")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda cls: cls(1, 2), r"Schedule takes keyword arguments only.*\(1, 2\)"),
        (lambda cls: cls(needed=1, other=2), "other"),
        (lambda cls: cls(), "needed"),
    ],
)
def test_wrong_construction(make, text):
    """Behaviour 38."""
    with pytest.raises(TypeError, match=text):
        make(Schedule)


def test_override_without_annotation():
    """Behaviour 38."""
    with pytest.raises(TypeError, match=r"Longer\.steps.*Write steps: int"):

        class Longer(Schedule):
            steps = 20

    class Shorter(Schedule):
        steps: int = 5

    assert Shorter(needed=1).value() == 6


def test_sub_configs():
    config = Learner.config()
    config.schedule.needed = 1
    learner = config.Instantiate()
    assert learner.schedule == Schedule(needed=1)
    assert learner.schedule_tpl == pax_fiddle.Config(Schedule)


def test_post_init_takes_no_arguments():
    with pytest.raises(ValueError, match="__post_init__ takes no arguments"):
        Schedule(needed=1).__post_init__(3)


def test_hparams_view():
    """Behaviour 39."""
    schedule = Schedule(needed=3, name="a")
    assert (schedule.hparams.steps, schedule.hparams.cls) == (10, Schedule)
    assert schedule.hparams.clone() == Schedule.config(needed=3, name="a")
    assert schedule.hparams.to_text() == (
        f"cls : type/{__name__}/Schedule\nname : 'a'\nneeded : 3\nsteps : 10\n"
    )
    assert repr(schedule.hparams) == "hparams of Schedule(name='a', steps=10, needed=3)"
    with pytest.raises(AttributeError, match="'steps' cannot be set"):
        schedule.hparams.steps = 3
    for name in ("other", "parent"):
        with pytest.raises(AttributeError, match=f"no field '{name}'"):
            getattr(schedule.hparams, name)


def test_clone_of_hparams_is_independent():
    class Holder(base_hyperparams.FiddleBaseParameterizable):
        values: list = pax_fiddle.instance_field(list)

    holder = Holder(values=[1])
    holder.hparams.clone().values.append(2)
    assert holder.values == [1]


def test_removed_hparams_class():
    with pytest.raises(AttributeError, match=r"Schedule has no HParams; use Schedule\.config"):
        _ = Schedule.HParams
    assert not hasattr(Schedule, "HParams")


def test_pickles_and_copies():
    schedule = Schedule(needed=3)
    assert copy.deepcopy(schedule) == pickle.loads(pickle.dumps(schedule)) == schedule
