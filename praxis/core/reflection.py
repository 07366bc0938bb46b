"""Checks of a layer class and object, and the config that a built layer stands for."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import fiddle as fdl
import jax.numpy as jnp
from flax import linen as nn

from praxis.config.callables import short_name
from praxis.config.config import PaxConfig
from praxis.config.fields import template_field
from praxis.core import boxed, children, names

_SHARDING_FIELDS = {
    "WeightSharding": "weight_split_dims_mapping",
    "ActivationSharding": "activation_split_dims_mapping",
}


def prepare_class(cls: Any) -> None:
    """Checks the body of a layer class before Flax makes a dataclass of it.

    A nested sharding class becomes a frozen dataclass and the template of its field.

    Raises:
      ValueError: if there is a nested class HParams, or a sharding class that derives from none.
    """
    if "HParams" in cls.__dict__:
        raise ValueError(
            f"{cls.__name__} has a nested class HParams: declare its fields on the layer itself."
        )
    for nested, field in _SHARDING_FIELDS.items():
        if nested in cls.__dict__:
            _declare_sharding(cls, nested, field)


def finish_class(cls: Any) -> None:
    """Makes a class's own `setup` write the layer's config at its end where that is asked for."""
    if "setup" not in cls.__dict__:
        return
    setup = cls.setup

    def setup_and_reflect(self: Any) -> None:
        setup(self)
        reflect_config(self)

    setup_and_reflect.__name__ = "setup"
    setup_and_reflect.__doc__ = setup.__doc__
    # Flax wrapped `setup` when the class was made, and wraps the same function only once.
    setup_and_reflect.method_handler_wrapped = True  # pyright: ignore[reportFunctionMemberAccess]
    cls.setup = setup_and_reflect


def check_dtype(layer: Any) -> None:
    """Raises a TypeError if the layer's `dtype` is none, as when it was made from its config."""
    if not _is_dtype(layer.dtype):
        given = repr(layer.dtype)
        if isinstance(layer.dtype, fdl.Buildable):
            given = f"a config of {short_name(fdl.get_callable(layer.dtype))}"
        raise TypeError(
            f"{type(layer).__name__}: dtype is {given}, expected a dtype such as "
            "jnp.float32. To build a layer from its config, call `config.Instantiate()`."
        )


def reflect_config(layer: Any) -> None:
    """Stores the layer's config among its variables, where the context asks for it."""
    if layer.reflect_configs and layer.is_mutable_collection(names.HYPER_PARAMS):
        own = config_of(layer, lambda _: None, of_template=lambda _: None)
        layer.put_variable(names.HYPER_PARAMS, "_hparams", boxed.WrappedHParams(meta=own))


def config_of(
    layer: Any,
    of_layer: Callable[[Any], Any],
    of_template: Callable[[Any], Any] | None = None,
) -> PaxConfig[Any]:
    """Returns a config with the current field values, layers and layer templates in them replaced.

    Args:
      layer: The layer.
      of_layer: What stands for a layer in a field, list or dict.
      of_template: What stands for a config of a layer; None: the config itself.
    """

    def convert(value: Any) -> Any:
        if children.is_layer(value):
            return of_layer(value)
        if of_template is not None and children.is_layer_config(value):
            return of_template(value)
        if isinstance(value, (list, tuple)) and any(map(_holds_layer, value)):
            return [convert(item) for item in value]
        if isinstance(value, Mapping) and any(map(_holds_layer, value.values())):
            return {key: convert(item) for key, item in value.items()}
        return value

    fields = (field.name for field in dataclasses.fields(layer) if field.name != "parent")
    return PaxConfig(type(layer), **{name: convert(getattr(layer, name)) for name in fields})


def _holds_layer(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_layer, value))
    if isinstance(value, Mapping):
        return any(map(_holds_layer, value.values()))
    return children.is_layer(value) or children.is_layer_config(value)


def _is_dtype(value: Any) -> bool:
    if value is None or isinstance(value, fdl.Buildable):
        return False
    try:
        jnp.dtype(value)
    except TypeError:
        return False
    return True


def _declare_sharding(cls: Any, nested: str, field: str) -> None:
    base = next(getattr(parent, nested) for parent in cls.__mro__[1:] if hasattr(parent, nested))
    sharding = cls.__dict__[nested]
    root = base.__mro__[-3]  # Below the mixin and object: the class of BaseLayer itself.
    if not (isinstance(sharding, type) and issubclass(sharding, root)):
        raise ValueError(f"{cls.__name__}.{nested} must derive from BaseLayer.{nested}.")
    sharding = dataclasses.dataclass(frozen=True)(sharding)
    setattr(cls, nested, sharding)
    cls.__annotations__ = {**inspect.get_annotations(cls), field: PaxConfig[sharding]}
    setattr(cls, field, template_field(sharding))


def root_of(layer: Any) -> Any:
    """Returns the outermost module around a layer, or the layer itself."""
    while isinstance(layer.parent, nn.Module):
        layer = layer.parent
    return layer


def root_name(root: Any) -> str | None:
    """Returns the name of a root, or for a copy that runs inside a loop, that of the true root."""
    if root.scope is not None and root.scope.path:
        return vars(root).get("_root_name")
    return root.name


def no_attribute(layer: Any, name: str) -> str:
    """Returns the message for an attribute that a layer does not have."""
    if name == "HParams":
        return f"{layer.path_text} has no HParams; use {type(layer).__name__}.config(...)."
    if layer.scope is None:
        return (
            f"{layer.path_text} has no attribute {name!r} outside of init and apply: children and "
            "what setup assigns exist only there. Run the layer through `layer.init(key, ...)` or "
            "`layer.apply(variables, ...)`."
        )
    near = difflib.get_close_matches(name, dir(type(layer)) + list(vars(layer)), n=1)
    question = f" Did you mean {near[0]!r}?" if near else ""
    children_text = ", ".join(layer.children) or "none"
    return f"{layer.path_text} has no attribute {name!r}.{question} Its children: {children_text}."
