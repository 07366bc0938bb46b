"""Which fields a child layer takes over from its parent when it has none of its own."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fiddle as fdl
import jax.numpy as jnp
from flax import linen as nn

from praxis.config.copying import copy_tree
from praxis.core.weights import is_default_param_init

# Called with source, target and the names of the fields that the target took over.
Listener = Callable[[Any, Any, Sequence[str]], None]
_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar(
    "praxis_inheritance", default=None
)

_WHERE_NONE = (
    "skip_lp_regularization",
    "ici_mesh_shape",
    "dcn_mesh_shape",
    "mesh_axis_names",
    "contiguous_submeshes",
)
INHERITED = ("dtype", "fprop_dtype", *_WHERE_NONE, "params_init")


def copy_base_hparams(source: Any, target: Any, *, with_fprop_dtype: bool = True) -> None:
    """Fills the common fields of `target` that nobody set with those of `source`.

    `dtype` counts as unset when it is float32, but not when it is the text "float32"; `params_init`
    when it is the default initializer, the others when they are None.

    Args:
      source: Layer or config of a layer.
      target: Layer or config of a layer, changed in place.
      with_fprop_dtype: Whether `fprop_dtype` is handed on too.

    Raises:
      TypeError: if either is neither a layer nor a config.
    """
    for role, value in (("source", source), ("target", target)):
        if not isinstance(value, (fdl.Buildable, nn.Module)):
            raise TypeError(f"{role} is a {type(value).__name__}, expected a layer or its config.")
    changes: dict[str, Any] = {}
    pinned = isinstance(target.dtype, str)
    if not pinned and target.dtype == jnp.float32 and source.dtype != target.dtype:
        changes["dtype"] = source.dtype
    if with_fprop_dtype and target.fprop_dtype is None and source.fprop_dtype is not None:
        changes["fprop_dtype"] = source.fprop_dtype
    for name in _WHERE_NONE:
        if getattr(target, name) is None and (value := getattr(source, name)) is not None:
            changes[name] = copy_tree(value, {})
    if is_default_param_init(target.params_init) and not is_default_param_init(source.params_init):
        changes["params_init"] = copy_tree(source.params_init, {})
    write = setattr if isinstance(target, fdl.Buildable) else object.__setattr__
    for name, value in changes.items():
        write(target, name, value)
    if (listener := _listener.get()) is not None:
        listener(source, target, list(changes))


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tells a function of each inheritance meanwhile, as `praxis.inspection` does."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
