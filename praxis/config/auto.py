"""`auto_config`, making Pax configs."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import fiddle as fdl
from fiddle.experimental import auto_config as fiddle_auto_config

from praxis.config.config import PaxArgFactory, PaxConfig, PaxPartial


def is_auto_config(fn: Any) -> bool:
    """Returns whether `auto_config` has been applied to a function."""
    return fiddle_auto_config.is_auto_config(fn)


def auto_config(fn: Any = None, **auto_config_kwargs: Any) -> Any:
    """Gives a function a second way to run, `as_buildable`, that returns configs.

    Called normally, the function is plain Python. `fn.as_buildable(...)` runs it with constructor
    calls turned into `Config(...)`, `functools.partial` into `Partial` and calls of other
    auto-config functions inlined. Control flow is allowed.

    Args:
      fn: A function, static method or class method; a class stands for its constructor without
        arguments. One that is wrapped already is returned unchanged. None: returns a decorator.
      **auto_config_kwargs: Options of Fiddle's `auto_config`.
    """
    if fn is None:
        return functools.partial(auto_config, **auto_config_kwargs)
    if is_auto_config(fn):
        return fn
    if inspect.isclass(fn):
        return fiddle_auto_config.AutoConfig(
            func=fn, buildable_func=functools.partial(PaxConfig, fn), always_inline=True
        )
    options = {
        "experimental_allow_control_flow": True,
        "experimental_exemption_policy": _runs_as_it_is,
        "experimental_config_types": fiddle_auto_config.ConfigTypes(
            config_cls=PaxConfig, partial_cls=PaxPartial, arg_factory_cls=PaxArgFactory
        ),
        "experimental_result_must_contain_buildable": False,
    }
    return fiddle_auto_config.auto_config(fn, **(options | auto_config_kwargs))


def configure(factory: Any) -> Any:
    """Returns a config of what `factory` makes: of the class, or of what the function returns.

    A function whose source text cannot be found, as a lambda typed at a prompt, gives a config of
    the function itself.
    """
    if isinstance(factory, fdl.Buildable):
        return copy.deepcopy(factory)
    made_by: Any = _rewritten(factory) if inspect.isfunction(factory) else factory
    return made_by.as_buildable() if is_auto_config(made_by) else PaxConfig(made_by)


@functools.cache
def _rewritten(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return auto_config(function)
    except (AttributeError, OSError, SyntaxError, ValueError):
        return function  # No source text, two lambdas on a line, or a construct not allowed.


def _runs_as_it_is(function: Any) -> bool:
    """Calls that make configs are not themselves turned into configs."""
    makes_config = inspect.isclass(function) and issubclass(function, fdl.Buildable)
    return makes_config or fiddle_auto_config.auto_config_policy.latest(function)
