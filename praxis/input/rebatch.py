"""Input that cuts the batches of another one into smaller ones."""

import base64
from typing import Any

import jax

from praxis import pax_fiddle
from praxis.input import children
from praxis.input import state as state_lib
from praxis.input.base import BaseInput


class RebatchInput(BaseInput):
    """Batches of `batch_size` rows, cut from the larger ones of another input.

    Attributes:
      input: Config of the other input, whose batch size is a multiple of this one's. Required.

    Raises:
      ValueError: when built without `input`, or if the sizes do not divide; from `get_next`, if an
        inner batch has another number of rows than its config says.
    """

    input: pax_fiddle.Config | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input is None:
            raise ValueError(f"{self._text}: input is not set. Set it to the config of an input.")
        self._inner: BaseInput = children.config_of_child(self, self.input, "inner").Instantiate()
        self._check_multiple(type(self._inner).get_batch_size(self.input))
        self._large: Any = None
        self._next_row = 0
        self._state_before_large: bytes | None = None

    def _check_multiple(self, rows: int) -> None:
        if rows % self._batch_rows:
            raise ValueError(
                f"{self._text}: the inner batch of {rows} rows is not a multiple of batch_size = "
                f"{self.batch_size}."
            )

    def get_next(self) -> Any:
        if self._large is None:
            try:
                self._state_before_large = self._inner.get_state()
            except NotImplementedError:
                self._state_before_large = None
            self._large = self._inner.get_next()
            self._next_row = 0
            self._check_multiple(self._rows)
        start = self._next_row
        self._next_row = stop = start + self._batch_rows
        batch = jax.tree.map(lambda array: array[start:stop], self._large)
        if stop >= self._rows:
            self._large = None
        return batch

    @property
    def _rows(self) -> int:
        return jax.tree.leaves(self._large)[0].shape[0]

    def get_child(self, input_name: str) -> BaseInput:
        return self._inner

    def ids_to_strings(self, ids: Any, lengths: Any, key: str | None = None) -> Any:
        return self._inner.ids_to_strings(ids, lengths, key)

    def reset(self) -> None:
        super().reset()
        self._inner.reset()
        self._large = None

    def _get_state_internal(self) -> bytes:
        if self._large is None:
            inner, row = self._inner.get_state(), 0
        elif self._state_before_large is None:
            raise NotImplementedError(f"{type(self._inner).__name__} has no state.")
        else:
            inner, row = self._state_before_large, self._next_row
        return state_lib.encode(inner=base64.b64encode(inner).decode(), row=row)

    def _set_state_internal(self, state: bytes) -> None:
        inner, row = state_lib.decode(state, "inner", "row")
        self._large = None
        self._inner.set_state(base64.b64decode(inner))
        while self._next_row_in_large < row:
            self.get_next()

    @property
    def _next_row_in_large(self) -> int:
        return 0 if self._large is None else self._next_row
