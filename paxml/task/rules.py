"""Rules that say which values of other runs a fresh run begins with."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from praxis import pax_fiddle

Rule = Sequence[str]  # (pattern, reference)

LOAD_ALL = ("(.*)", "{}")

# `opt_states_0_2`: the second number counts the transformations of the optimizer. Of a model with
# stacked layers, the key of the group stands between: `opt_states_0/p#4#i-1_2`.
_TRANSFORMATION = r"opt_states_\d+(?:/.+?)??_\d+"


class CheckpointLoadingRules(NamedTuple):
    """What to load from the checkpoints of another run.

    Names are paths with '/': variables as `params/lm/softmax/w`, the optimizer's arrays as on disk,
    `opt_states_0_2/m/params/lm/softmax/w`. Patterns are regular expressions matched at the start
    of a name. The wanted variables decide over dtype and sharding; floating numbers are cast.

    Attributes:
      task_p: Config of the task of the other run. Only looked at to find out whether it keeps a
        moving average; None takes the checkpoint's word for it.
      load_rules: (pattern, reference) pairs. The first whose pattern matches the name of a variable
        gives the name in the checkpoint: the reference, with `{}` for the groups of the pattern. A
        reference that starts with `ema/` takes the moving average of the variable. Variables that
        match nothing keep their random values.
      safe_load: Whether a pattern that matches no variable is an error, not a warning.
      ignore_rules: Patterns of variables that are not loaded whatever the rules say.
      step: Which checkpoint; None is the newest.
      load_step: Whether the run begins at the step of the checkpoint. Else at 0.
      load_opt_states: Whether the whole optimizer state is loaded. Without, it starts anew from
        the loaded weights. The moments of a Praxis Adam (m, v) become those of `optax.adam` (mu,
        nu), value by value.
      partial_load_opt_states: Whether `load_rules` and `ignore_rules` are applied to the names of
        the optimizer's arrays as well; what matches nothing starts anew.
      load_ema_states: Whether `ema/` references are allowed.
      input_specs_provider_p: Not needed: shapes come from the checkpoint.
    """

    task_p: pax_fiddle.Config | None = None
    load_rules: Sequence[Rule] = ()
    safe_load: bool = False
    ignore_rules: Sequence[str] | None = None
    step: int | None = None
    load_step: bool = False
    load_opt_states: bool = False
    partial_load_opt_states: bool = False
    load_ema_states: bool = True
    input_specs_provider_p: pax_fiddle.Config | None = None


def is_ignored(name: str, rules: CheckpointLoadingRules) -> bool:
    """Whether a name is not loaded whatever the rules say."""
    return any(re.match(pattern, name) for pattern in rules.ignore_rules or ())


def source_name(name: str, rules: Sequence[Rule]) -> str | None:
    """The name in the checkpoint that the first matching rule gives, or None.

    Raises:
      ValueError: if the reference asks for groups that the pattern does not have.

    >>> source_name("params/new/w", [("params/new/(.*)", "params/old/{}"), LOAD_ALL])
    'params/old/w'
    """
    for pattern, reference in rules:
        match = re.match(pattern, name)
        if match is None:
            continue
        groups = [group or "" for group in match.groups()]
        try:
            return reference.format(*groups, **match.groupdict(""))
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"Load rule ({pattern!r}, {reference!r}): the reference cannot be filled from the "
                f"{len(groups)} groups of the pattern ({error!r}). Use one {{}} for each group."
            ) from error
    return None


def unmatched_patterns(names: Sequence[str], rules: Sequence[Rule]) -> list[str]:
    """Patterns that match none of the names."""
    return [pattern for pattern, _ in rules if not any(re.match(pattern, name) for name in names)]


def get_praxis_opt_state_regex() -> str:
    """A pattern of the names of the moments of a Praxis Adam, matched at their start."""
    return rf"({_TRANSFORMATION})/(m|v)/(.+)"


def get_optax_opt_load_rules() -> list[tuple[str, str]]:
    """Rules that give the state of an `optax.adam` the values of a Praxis Adam.

    A Praxis Adam keeps moments that are corrected for their start from 0, optax does not: the two
    agree after the first 1 / (1 - beta) steps or so.
    """
    inside = rf"({_TRANSFORMATION})(?:_\d+)+"
    return [
        (rf"{inside}/mu/(.+)", "{}/m/{}"),
        (rf"{inside}/nu/(.+)", "{}/v/{}"),
        (rf"{inside}/count$", "{}/count"),
    ]
