"""The rule that loads what still fits from a checkpoint of another model."""

import os
import re
from collections.abc import Mapping

from paxml.checkpoint.health import SavedArray
from paxml.checkpoint.naming import SEPARATOR

_VARIABLES = f"mdl_vars{SEPARATOR}"


def loading_rule(
    directory: str, saved: Mapping[str, SavedArray], wanted: Mapping[str, SavedArray]
) -> str:
    """Writes a `CheckpointLoadingRules` out.

    A new variable takes the values of one that is gone if each is the only such one of its shape
    and dtype. What finds no values, or values of another shape, is left at random.

    Args:
      directory: Of the checkpoint of a step.
      saved: Its arrays, by name.
      wanted: Arrays of the train state, by name.
    """
    new = {name: wanted[name] for name in _variables(wanted) if name not in saved}
    gone = {name: saved[name] for name in _variables(saved) if name not in wanted}
    renamed = _pairs(new, gone)
    random = [
        name
        for name in _variables(wanted)
        if name not in renamed and (name not in saved or saved[name].shape != wanted[name].shape)
    ]
    rules = [f'("{_pattern(name)}", "{_rule_name(old)}")' for name, old in renamed.items()]
    ignored = ", ".join(f'"{_pattern(name)}"' for name in random)
    parent, step_name = os.path.split(directory)
    step = int(step_name.rpartition("_")[2])
    lines = [
        "  task.train.init_from_checkpoint_rules = {",
        f"      {parent!r}: tasks_lib.CheckpointLoadingRules(",
        f"          load_rules=[{', '.join([*rules, 'tasks_lib.LOAD_ALL'])}],",
        *([f"          ignore_rules=[{ignored}],"] if ignored else []),
        f"          step={step},",
        "      )",
        "  }",
    ]
    return "\n".join(lines)


def _pairs(new: Mapping[str, SavedArray], gone: Mapping[str, SavedArray]) -> dict[str, str]:
    """Old names of new variables, where there is no doubt."""
    by_kind: dict[SavedArray, tuple[list[str], list[str]]] = {}
    for index, arrays in enumerate((new, gone)):
        for name, array in arrays.items():
            by_kind.setdefault(array, ([], []))[index].append(name)
    alike = [names for names in by_kind.values() if len(names[0]) == len(names[1]) == 1]
    return {mine[0]: old[0] for mine, old in alike}


def _variables(arrays: Mapping[str, SavedArray]) -> list[str]:
    return sorted(name for name in arrays if name.startswith(_VARIABLES))


def _rule_name(name: str) -> str:
    return name.removeprefix(_VARIABLES).replace(SEPARATOR, "/")


def _pattern(name: str) -> str:
    return f"{re.escape(_rule_name(name))}$".replace("\\", "\\\\")
