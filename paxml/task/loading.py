"""Fills a fresh train state from the checkpoints of other runs."""

import dataclasses
import difflib
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from paxml.checkpoint.health import SavedArray
from paxml.checkpoint.naming import leaf_name, named_leaves
from paxml.checkpoint.source import CheckpointSource, Wanted
from paxml.task.ema import EMA
from paxml.task.exclusion import has_ema
from paxml.task.rules import (
    CheckpointLoadingRules,
    get_optax_opt_load_rules,
    get_praxis_opt_state_regex,
    is_ignored,
    source_name,
    unmatched_patterns,
)
from paxml.train_states import TensorProvenance, TrainState, TrainStateProvenance
from praxis import pax_fiddle
from praxis.utils import trees

_VARIABLES = "mdl_vars"
_STEP = "step"
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where an array of the state is read from."""

    directory: str
    saved_name: str


def load_by_rules(
    state: TrainState,
    provenance: TrainStateProvenance,
    all_rules: Mapping[str, CheckpointLoadingRules | pax_fiddle.Config],
    *,
    unpadded_shapes: TrainState | None = None,
    make_opt_states: Callable[[Any], list[Any]] | None = None,
) -> tuple[TrainState, TrainStateProvenance]:
    """Replaces what the rules name.

    Args:
      state: A fresh state. The arrays that are replaced are deleted before the first one is read,
        so that both never are in memory.
      provenance: Where its values come from.
      all_rules: Rules by directory of checkpoints. For each array the first directory counts.
      unpadded_shapes: Shapes of the state before padding for a mesh; None if there is none.
      make_opt_states: From variables to an optimizer state, for when variables were loaded and
        their optimizer state was not; None keeps the one made from the random values.

    Returns:
      The new state, and where its values come from.

    Raises:
      ValueError: if a reference is not in its checkpoint or does not fit, if a `safe_load` pattern
        matches nothing, or if an optimizer state cannot be loaded as a whole.
      RuntimeError: if an average is asked for that does not exist.
    """
    plan: dict[str, _Origin] = {}
    sources: dict[str, CheckpointSource] = {}
    steps: dict[str, int | None] = {}
    for directory, given in all_rules.items():
        rules = _built(given)
        sources[directory] = CheckpointSource(directory, rules.step)
        steps[directory] = rules.step
        one = _Planner(directory, sources[directory], rules)
        for name, origin in one.plan(state, opt_states_are_planned=_has_opt(plan)).items():
            plan.setdefault(name, origin)
    if not plan:
        return state, provenance

    wanted = _wanted(state, plan, unpadded_shapes)
    remakes_opt = (
        make_opt_states is not None
        and bool(state.opt_states)
        and any(name.startswith(f"{_VARIABLES}.") for name in plan)
        and any(name not in plan for name in _opt_names(state))
    )
    for name, leaf in named_leaves(state).items():
        if name in plan or (remakes_opt and name.startswith("opt_states")):
            leaf.delete()

    loaded: dict[str, jax.Array] = {}
    for directory, source in sources.items():
        own = {n: wanted[n] for n, origin in plan.items() if origin.directory == directory}
        loaded |= source.read(own)
        logging.info("Loaded %d arrays from %s: %s", len(own), source.path, ", ".join(own))
    mdl_vars = _replaced(state.mdl_vars, loaded, _VARIABLES)
    opt_states = state.opt_states
    if remakes_opt and make_opt_states is not None:
        opt_states = make_opt_states(mdl_vars)
    new_state = state.replace(
        step=loaded.get(_STEP, state.step),
        mdl_vars=mdl_vars,
        opt_states=_replaced(opt_states, loaded, "opt_states"),
    )
    origins = {
        name: TensorProvenance(origin.directory, steps[origin.directory])
        for name, origin in plan.items()
    }
    return new_state, provenance.replace(
        step=origins.get(_STEP, provenance.step),
        mdl_vars=_replaced(provenance.mdl_vars, origins, _VARIABLES),
        opt_states=_replaced(provenance.opt_states, origins, "opt_states"),
    )


def _built(rules: CheckpointLoadingRules | pax_fiddle.Config) -> CheckpointLoadingRules:
    return pax_fiddle.instantiate(rules) if isinstance(rules, pax_fiddle.Config) else rules


def _opt_names(state: TrainState) -> list[str]:
    return [name for name in named_leaves(state) if name.startswith("opt_states")]


def _has_opt(plan: Mapping[str, _Origin]) -> bool:
    return any(name.startswith("opt_states") for name in plan)


def _wanted(
    state: TrainState, plan: Mapping[str, _Origin], unpadded_shapes: TrainState | None
) -> dict[str, Wanted]:
    leaves = named_leaves(state)
    shapes = leaves if unpadded_shapes is None else named_leaves(unpadded_shapes)
    return {
        name: Wanted(
            origin.saved_name,
            jax.ShapeDtypeStruct(
                leaves[name].shape, leaves[name].dtype, sharding=leaves[name].sharding
            ),
            SavedArray(tuple(shapes[name].shape), shapes[name].dtype),
        )
        for name, origin in plan.items()
    }


def _replaced(tree: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """The tree with the values at the names that have one."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: values.get(leaf_name((jax.tree_util.GetAttrKey(prefix), *path)), leaf),
        tree,
        is_leaf=lambda leaf: isinstance(leaf, TensorProvenance),
    )


class _Planner:
    """Finds out what the rules of one directory load, without reading an array."""

    def __init__(
        self, directory: str, source: CheckpointSource, rules: CheckpointLoadingRules
    ) -> None:
        self._directory, self._source, self._rules = directory, source, rules
        self._where = f"init_from_checkpoint_rules[{directory!r}]"

    def plan(self, state: TrainState, *, opt_states_are_planned: bool) -> dict[str, _Origin]:
        """Origins by name on disk."""
        names = {
            trees.path_text(path): leaf_name((jax.tree_util.GetAttrKey(_VARIABLES), *path))
            for path, _ in jax.tree_util.tree_leaves_with_path(state.mdl_vars)
        }
        self._check_patterns(list(names))
        found = {}
        for name, saved_as in names.items():
            if (reference := self._reference(name)) is not None:
                found[saved_as] = self._variable(name, reference)
        if state.opt_states and self._rules.load_opt_states and not opt_states_are_planned:
            found |= self._whole_opt_state(state)
        elif state.opt_states and self._rules.partial_load_opt_states:
            found |= self._part_of_opt_state(state)
        if self._rules.load_step:
            found[_STEP] = _STEP
        return {name: _Origin(self._directory, saved) for name, saved in found.items()}

    def _reference(self, name: str) -> str | None:
        if is_ignored(name, self._rules):
            return None
        return source_name(name, self._rules.load_rules)

    def _check_patterns(self, names: list[str]) -> None:
        if not (unmatched := unmatched_patterns(names, self._rules.load_rules)):
            return
        message = (
            f"{self._where}: {', '.join(map(repr, unmatched))} in load_rules match no variable. "
            f"Patterns are matched at the start of names such as {_some(names)}; the checkpoint "
            f"holds {_some(self._variables())}."
        )
        if self._rules.safe_load:
            raise ValueError(message)
        warnings.warn(
            f"{message} Variables without a match keep their random values. Set safe_load = True "
            "to make this an error.",
            stacklevel=2,
        )

    def _variables(self) -> list[str]:
        """Names of the variables in the checkpoint, as rules refer to them."""
        start = f"{_VARIABLES}."
        return sorted(
            name.removeprefix(start).replace(".", "/")
            for name in self._source.arrays
            if name.startswith(start)
        )

    def _variable(self, name: str, reference: str) -> str:
        """The name on disk of what a rule refers to."""
        on_disk = _on_disk(reference)
        if on_disk.startswith(f"{EMA}."):
            return self._average(name, on_disk.removeprefix(f"{EMA}."))
        saved = f"{_VARIABLES}.{on_disk}"
        if saved not in self._source.arrays:
            self._missing(name, reference)
        return saved

    def _average(self, name: str, on_disk: str) -> str:
        task = self._rules.task_p
        if not self._rules.load_ema_states or (task is not None and not has_ema(task)):
            raise RuntimeError(
                f"{self._where}: variable {name!r} is to be loaded from 'ema/', but "
                f"load_ema_states is {self._rules.load_ema_states} and the optimizer of task_p "
                "must have ema_decay above 0."
            )
        # `opt_states_0_4.ema.params.w`; in a state grouped by stacks: `opt_states_0.p#4#i-1_4.ema.`
        ending = re.compile(rf"opt_states_0.*?_\d+\.{EMA}\.(.+)")
        arrays = self._source.arrays
        averages = {
            match[1]: saved
            for saved in arrays
            if (match := ending.fullmatch(saved)) and f"{_VARIABLES}.{match[1]}" in arrays
        }
        if not averages:
            raise RuntimeError(
                f"{self._where}: variable {name!r} is to be loaded from 'ema/', but checkpoint "
                f"{self._source.path} holds no moving average. Drop 'ema/' from the reference."
            )
        plain = f"{_VARIABLES}.{on_disk}"
        if plain not in arrays:
            self._missing(name, f"{EMA}/{on_disk.replace('.', '/')}")
        # A variable that was excluded from training has no average.
        return averages.get(on_disk, plain)

    def _missing(self, name: str, reference: str) -> None:
        known = self._variables()
        close = difflib.get_close_matches(reference.removeprefix(f"{EMA}/"), known, _SHOWN, 0.5)
        raise ValueError(
            f"{self._where}: variable {name!r} is to be loaded from {reference!r}, which "
            f"checkpoint {self._source.path} does not hold. It holds {_some(close or known)}. "
            f"Correct the rule, or add {name!r} to ignore_rules."
        )

    def _whole_opt_state(self, state: TrainState) -> dict[str, str]:
        found = {name: self._opt_array(name, _by_slash(name)) for name in _opt_names(state)}
        missing = [name for name, saved in found.items() if saved is None]
        if missing:
            own = [name for name in self._source.arrays if name.startswith("opt_states")]
            raise ValueError(
                f"{self._where}: load_opt_states is True, but checkpoint {self._source.path} has "
                f"no {_some(missing)}. It has {_some(own)}. Use the same optimizer and exclusion "
                "rules, or load a part with partial_load_opt_states."
            )
        return {name: saved for name, saved in found.items() if saved is not None}

    def _part_of_opt_state(self, state: TrainState) -> dict[str, str]:
        found = {}
        for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_states):
            path = (jax.tree_util.GetAttrKey("opt_states"), *path)
            name = trees.path_text(path, left_separator="_", right_separator="")
            if (reference := self._reference(name)) is None:
                continue
            saved = self._opt_array(_on_disk(reference), reference)
            if saved is None:
                self._missing(name, reference)
            found[leaf_name(path)] = saved
        return found

    def _opt_array(self, on_disk: str, name: str) -> str | None:
        """The name of an array of the optimizer in the checkpoint, or None."""
        arrays = self._source.arrays
        if on_disk in arrays:
            return on_disk
        by_praxis = re.compile(get_praxis_opt_state_regex())
        if any(by_praxis.match(_by_slash(saved)) for saved in arrays):
            mapped = source_name(name, get_optax_opt_load_rules())
            if mapped is not None and _on_disk(mapped) in arrays:
                return _on_disk(mapped)
        return None


def _on_disk(name: str) -> str:
    """A name with slashes, or with dots already, as the name of an array on disk."""
    return re.sub(r"\[(\d+)\]", r"_\1", name).replace("/", ".")


def _by_slash(name: str) -> str:
    return name.replace(".", "/")


def _some(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more if names else "nothing"
