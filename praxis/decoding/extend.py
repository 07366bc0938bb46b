"""The function with which a model adds a token."""

import inspect
from collections.abc import Callable
from typing import Any


def coerce_to_expanded_extend_step_fn(extend_step_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function (model, ids, segment_pos, decode_loop_state) -> logits.

    Args:
      extend_step_fn: Such a function, or one without the last argument.

    Raises:
      ValueError: if it takes another number of arguments.
    """
    count = len(inspect.signature(extend_step_fn).parameters)
    if count == 4:
        return extend_step_fn
    if count != 3:
        raise ValueError(
            f"extend_step_fn takes {count} arguments, expected (model, ids, segment_pos) or "
            "(model, ids, segment_pos, decode_loop_state)."
        )
    return lambda model, ids, segment_pos, _: extend_step_fn(model, ids, segment_pos)
