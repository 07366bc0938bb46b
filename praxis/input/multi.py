"""Input that reads several others side by side."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import jax

from praxis import pax_fiddle, pytypes
from praxis.config.hparams_view import HParamsView
from praxis.core.nested_map import NestedMap
from praxis.input import children
from praxis.input import state as state_lib
from praxis.input.base import BaseInput
from praxis.utils import batches


class MultiInput(BaseInput):
    """Named inputs whose batches are returned together, each under its name.

    The outer batch is the greatest common divisor of the children's batches; each array [B, ...]
    becomes [outer, B / outer, ...].

    Attributes:
      input_to_params: Config by name. Numbers of hosts, `is_training`, `reset_for_eval` and
        `eval_loop_num_batches` of this input are filled in. Required.
      default_input: The child that `ids_to_strings` asks unless told otherwise.
      batch_size: Must not be set; the children have theirs.

    Raises:
      ValueError: when built without children, with `batch_size`, with a `default_input` that is no
        child, or with `reset_for_eval` and several children, whose ends would differ.
    """

    input_to_params: dict[str, pax_fiddle.Config] | None = None
    default_input: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        configs = self.input_to_params
        if not configs:
            raise ValueError(f"{self._text}: input_to_params is empty, expected configs by name.")
        if self.default_input is not None and self.default_input not in configs:
            raise ValueError(
                f"{self._text}: default_input is {self.default_input!r}, expected one of "
                f"{sorted(configs)}."
            )
        if self.reset_for_eval and len(configs) > 1:
            raise ValueError(
                f"{self._text}: reset_for_eval with {len(configs)} children {sorted(configs)}: "
                "they need not end together. Use one input for each."
            )
        self._children: dict[str, BaseInput] = {
            name: children.config_of_child(self, config, name).Instantiate()
            for name, config in configs.items()
        }
        self._outer_batch = _outer_batch(configs)

    def _check_batch_size(self) -> None:
        if self.batch_size is not None:
            raise ValueError(
                f"{self._text}: batch_size is {self.batch_size}, but it follows from the children. "
                "Leave it unset."
            )

    @classmethod
    def get_batch_size(cls, params: pax_fiddle.Config | HParamsView) -> int:
        """The outer batch: the greatest common divisor of the children's."""
        return _outer_batch(params.input_to_params)

    def get_next(self) -> Any:
        result = NestedMap()
        for name, child in self._children.items():
            result[name] = jax.tree.map(
                lambda array: batches.reshape_with_outer_batch_size(array, self._outer_batch),
                child.get_next(),
            )
        return result

    def get_child(self, input_name: str) -> BaseInput:
        """The child of a name.

        Raises:
          ValueError: if there is none.
        """
        if input_name not in self._children:
            raise ValueError(
                f"{self._text} has no child {input_name!r}, expected one of "
                f"{sorted(self._children)}."
            )
        return self._children[input_name]

    def ids_to_strings(
        self,
        ids: pytypes.NpTensor,
        lengths: pytypes.NpTensor,
        key: str | None = None,
        input_name: str | None = None,
    ) -> Sequence[str]:
        """The texts of rows of token ids, as the child `input_name` or the default one reads them.

        Raises:
          ValueError: if neither is given, or if there is no such child.
        """
        name = input_name or self.default_input
        if name is None:
            raise ValueError(
                f"{self._text}: pass input_name, or set default_input to one of "
                f"{sorted(self._children)}."
            )
        return self.get_child(name).ids_to_strings(ids, lengths, key)

    def reset(self) -> None:
        super().reset()
        for child in self._children.values():
            child.reset()

    def _get_state_internal(self) -> bytes:
        states = {name: child.get_state() for name, child in self._children.items()}
        encoded = {name: base64.b64encode(state).decode() for name, state in states.items()}
        return state_lib.encode(children=encoded)

    def _set_state_internal(self, state: bytes) -> None:
        (states,) = state_lib.decode(state, "children")
        if sorted(states) != sorted(self._children):
            raise ValueError(
                f"the state has the children {sorted(states)}, expected {sorted(self._children)}."
            )
        for name, child in self._children.items():
            child.set_state(base64.b64decode(states[name]))


def _outer_batch(configs: dict[str, pax_fiddle.Config]) -> int:
    return math.gcd(*(config.cls.get_batch_size(config) for config in configs.values()))
