"""Notes on exceptions that leave a layer: which layer and method, and with what arguments."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flax import linen as nn
from flax import traceback_util

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer

_INNERMOST = "In layer: "
_OUTERMOST = "Called from: "
_LONGEST_VALUE = 40
_LONGEST_ARGUMENTS = 300
_MOST_ENTRIES = 8


# Tracebacks and the source lines of operations leave out this file, as they do those of Flax.
traceback_util.register_exclusion(__file__)


@nn.nowrap
def call_wrapped_method(
    self: "BaseLayer", fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Runs a layer's method as Flax does; an exception that leaves it is noted.

    It takes the place of `nn.Module._call_wrapped_method`, through which Flax sends every call of
    every method.
    """
    __tracebackhide__ = True
    try:
        return nn.Module._call_wrapped_method(self, fun, args, kwargs)
    except Exception as error:
        add_layer_note(error, self, fun, args, kwargs)
        raise


def add_layer_note(
    error: Exception,
    layer: "BaseLayer",
    method: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Says in a note (PEP 678) where an exception was raised; called as it leaves each method.

    The first note names the innermost layer, its method and the shapes of the arguments. A second
    one names the outermost layer. Notes are plain text: the exception pickles as before and holds
    no layer or array.

    Args:
      error: The exception on its way.
      layer: The layer whose method it leaves.
      method: The method, without what Flax wraps around it.
      args: Its arguments, without the layer itself.
      kwargs: Its arguments by name.
    """
    if isinstance(error, StopIteration | StopAsyncIteration):
        return
    # Whatever goes wrong here, as with a layer half made, must not hide the error itself.
    with contextlib.suppress(Exception):
        called = f"{layer.path_text}, method {getattr(method, '__name__', 'call')}"
        notes = getattr(error, "__notes__", [])
        inner = _position(notes, _INNERMOST)
        if inner is None:
            error.add_note(f"{_INNERMOST}{called}({arguments_text(method, args, kwargs)})")
        elif not notes[inner].startswith(f"{_INNERMOST}{layer.path_text}, "):
            outer = _position(notes, _OUTERMOST)
            if outer is None:
                error.add_note(_OUTERMOST + called)
            else:
                notes[outer] = _OUTERMOST + called


def arguments_text(
    method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str:
    """Describes the arguments of a method: arrays by dtype and shape, other values in short.

    Example:
      >>> import jax.numpy as jnp
      >>> arguments_text(lambda self, x, mask: None, [jnp.ones([2, 3])], {"mask": None})
      'x: float32[2, 3], mask: None'
    """
    try:
        # None stands for the layer.
        given = inspect.signature(method).bind_partial(None, *args, **kwargs).arguments
        pairs = list(given.items())[1:]
    except (TypeError, ValueError):  # A wrong call, or a method without signature.
        pairs = [*((f"args[{index}]", value) for index, value in enumerate(args)), *kwargs.items()]
    return _cut(", ".join(f"{name}: {_value(value)}" for name, value in pairs), _LONGEST_ARGUMENTS)


def _position(notes: Sequence[str], start: str) -> int | None:
    found = (index for index, note in enumerate(notes) if str(note).startswith(start))
    return next(found, None)


def _value(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Mapping):
        entries = [f"{key}: {_value(entry)}" for key, entry in _few(list(value.items()))]
        return f"{{{', '.join(entries)}{_rest(value)}}}"
    if isinstance(value, list | tuple):
        text = f"{', '.join(map(_value, _few(value)))}{_rest(value)}"
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    if value is None or isinstance(value, bool | int | float | str):
        return _cut(repr(value), _LONGEST_VALUE)
    return getattr(value, "__name__", type(value).__name__)


def _few(values: Sequence[Any]) -> Sequence[Any]:
    return values[:_MOST_ENTRIES]


def _rest(values: Any) -> str:
    return ", ..." if len(values) > _MOST_ENTRIES else ""


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
