"""Turns configs into objects: templates stay, layer fields flow down, the rest is called."""

import copy
import dataclasses
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import fiddle as fdl
from fiddle import building, daglish
from fiddle import history as fiddle_history

from praxis.config import callables, copying, module_stack

_IN_PROGRESS = object()


@dataclasses.dataclass(frozen=True)
class TemplateWrapper:
    """Holds a template where a build passes; calling it gives the template.

    Attributes:
      template: The config, or a container of configs, that is not built.
    """

    template: Any

    def __call__(self) -> Any:
        return self.template


@dataclasses.dataclass(frozen=True)
class _FreshTemplate:
    """Gives each call of a built partial a template of its own."""

    template: Any

    def __call__(self) -> Any:
        return _own_copy(self.template)


def build(buildable: Any) -> Any:
    """Builds a config, or every config in a nest of lists, tuples, dicts and NestedMaps.

    Arguments are built bottom-up without a Flax parent; the outermost configs get the module that
    is running as parent, as if their classes were called here. One config object in two places
    gives one object. The configs given are not changed and the results share no config with them.

    Args:
      buildable: A config or a nest of configs. A nest without configs is returned as it is.

    Returns:
      The object, or the same nest of objects.

    Raises:
      Exception: whatever a constructor raises, with its place in the config added to the text.
    """
    if not contains_config(buildable):
        return buildable
    prepared = wrap_templates(buildable)
    _inherit(prepared, None, set())
    return build_with_empty_flax_module_stack(prepared)


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Builds a config with some fields set first; the config itself keeps its values.

    Args:
      config: The config.
      **kwargs: Values by field, built objects or configs.

    Raises:
      AttributeError: if a keyword is no field of the config.
      TypeError: if there are keywords and `config` is no config.
    """
    if kwargs:
        if not isinstance(config, fdl.Buildable):
            raise TypeError(
                f"Fields {sorted(kwargs)} were given for {config!r}, which is no config."
            )
        config = copy.copy(config)
        assign_fields(config, kwargs)
    return build(config)


def assign_fields(config: fdl.Buildable, values: dict[str, Any]) -> None:
    """Sets fields of a config after checking all the names.

    Raises:
      AttributeError: for the first name that is no field; then nothing has been set.
    """
    facts = callables.callable_facts(fdl.get_callable(config))
    for name in values:
        if not facts.accepts(name) and not _is_settable_property(config, name):
            raise AttributeError(facts.wrong_name(name))
    for name, value in values.items():
        setattr(config, name, value)


def wrap_templates(buildable: Any) -> Any:
    """Returns a copy in which every outermost template is hidden in a `TemplateWrapper`.

    Raises:
      ValueError: if a field is annotated with a container that cannot hold templates.
      TypeError: if a field holds a config and its annotation cannot be resolved.
    """
    return _Walk(_wrap_arguments).visit(buildable, ())


def copy_inheritable_base_layer_params(buildable: Any) -> Any:
    """Returns a copy in which each layer config has taken fields from its nearest layer ancestor.

    Configs of other classes in between are passed over. A class is a layer when it has a static
    method `copy_base_hparams(source, target)`, which decides what is taken.
    """
    copied = _own_copy(buildable)
    _inherit(copied, None, set())
    return copied


def build_with_empty_flax_module_stack(buildable: Any) -> Any:
    """Calls every config bottom-up: arguments without a Flax parent, the outermost with one."""
    return _Walk(_call).visit(buildable, ())


def contains_config(value: Any) -> bool:
    """Returns whether a value is a config or a nest that holds one."""
    if isinstance(value, fdl.Buildable):
        return True
    if copying.is_shared_type(type(value)):
        return False
    return any(contains_config(child) for _, child in _children(value))


class _Walk:
    """Walks a nest, replaces each config by what `visit_config` makes of it, once per object.

    Containers are rebuilt, other values kept.
    """

    def __init__(
        self, visit_config: Callable[["_Walk", fdl.Buildable, tuple[daglish.PathElement, ...]], Any]
    ):
        self._visit_config = visit_config
        # Results by id of the original. The original is kept with it, or the id could be reused.
        self._memo: dict[int, tuple[Any, Any]] = {}

    def visit(self, value: Any, path: tuple[daglish.PathElement, ...]) -> Any:
        """Returns the replacement of `value`, which lies at `path`."""
        if copying.is_shared_type(type(value)):
            return value
        _, known = self._memo.get(id(value), (None, self))
        if known is _IN_PROGRESS:
            raise ValueError(f"The config contains itself at <root>{daglish.path_str(path)}.")
        if known is not self:
            return known
        self._memo[id(value)] = (value, _IN_PROGRESS)
        if isinstance(value, fdl.Buildable):
            result = self._visit_config(self, value, path)
        else:
            children = _children(value)
            visited = [self.visit(child, (*path, element)) for element, child in children]
            result = _rebuild(value, visited)
        self._memo[id(value)] = (value, result)
        return result


def _wrap_arguments(
    walk: _Walk, config: fdl.Buildable, path: tuple[daglish.PathElement, ...]
) -> Any:
    facts = callables.callable_facts(fdl.get_callable(config))
    arguments: dict[Any, Any] = {}
    for key, value in config.__arguments__.items():
        if copying.is_shared_type(type(value)) or isinstance(value, TemplateWrapper):
            arguments[key] = value
        elif contains_config(value) and facts.holds_template(key):
            arguments[key] = _protect(config, value)
        else:
            if (
                str(key).endswith("_tpl")
                and isinstance(value, fdl.Buildable)
                and not _is_wanted_built(value, facts.hints.get(str(key)))
            ):
                _warn_of_annotation(facts.name, str(key))
            arguments[key] = walk.visit(value, (*path, daglish.attr_or_index(key)))
    return copying.copy_node(config, arguments)


def _is_wanted_built(config: fdl.Buildable, annotation: Any) -> bool:
    """Returns whether the annotation is a class that the built object is an instance of."""
    made = fdl.get_callable(config)
    if not inspect.isclass(annotation) or not isinstance(made, type) or annotation is Any:
        return False
    return issubclass(made, annotation)


def _warn_of_annotation(owner: str, field: str) -> None:
    warnings.warn(
        f"{owner}.{field} is built with its owner, for it is not annotated as a template. "
        f"Annotate it as a config: {field}: pax_fiddle.Config[...] = template_field(...).",
        stacklevel=2,
    )


def _protect(owner: fdl.Buildable, template: Any) -> Any:
    if isinstance(owner, fdl.Config):
        return TemplateWrapper(_own_copy(template))
    # A partial is called many times, so it gets a function that gives a template each time.
    return fdl.ArgFactory(_FreshTemplate(_own_copy(template)))


def _own_copy(template: Any) -> Any:
    """Copies configs and containers; objects of unknown kind are shared, not deep-copied."""
    return copying.copy_tree(template, {}, leaf=lambda value: value)


def _inherit(value: Any, owner: fdl.Config | None, seen: set[int]) -> None:
    """Fills the layer configs of a tree in place, from the top; `owner` is the nearest layer."""
    if copying.is_shared_type(type(value)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, fdl.Config):
        target: Any = fdl.get_callable(value)
        if callables.callable_facts(target).is_layer:
            if owner is not None:
                with fiddle_history.suspend_tracking():
                    target.copy_base_hparams(owner, value)
            owner = value
    for _, child in _children(value):
        _inherit(child, owner, seen)


def _call(walk: _Walk, config: fdl.Buildable, path: tuple[daglish.PathElement, ...]) -> Any:
    with module_stack.empty_flax_module_stack():
        arguments = {}
        for key, value in config.__arguments__.items():
            if isinstance(value, TemplateWrapper):
                arguments[key] = value.template
            else:
                arguments[key] = walk.visit(value, (*path, daglish.attr_or_index(key)))
    return building.call_buildable(config, arguments, current_path=path)


def _children(value: Any) -> list[tuple[daglish.PathElement, Any]]:
    """Returns the path element and value of what a config or container holds directly."""
    if isinstance(value, fdl.Buildable):
        return [(daglish.attr_or_index(k), v) for k, v in value.__arguments__.items()]
    if isinstance(value, dict):
        return [(daglish.Key(key), child) for key, child in value.items()]
    traverser = daglish.find_node_traverser(type(value))
    if traverser is None:
        return []
    return list(zip(traverser.path_elements(value), traverser.flatten(value)[0], strict=True))


def _rebuild(value: Any, children: list[Any]) -> Any:
    """Returns a container like `value` with other children; a value without children itself."""
    if isinstance(value, dict):
        result = copy.copy(value)
        for key, child in zip(value, children, strict=True):
            dict.__setitem__(result, key, child)
        return result
    traverser = daglish.find_node_traverser(type(value))
    if traverser is None:
        return value
    return traverser.unflatten(children, traverser.flatten(value)[1])


def _is_settable_property(config: fdl.Buildable, name: str) -> bool:
    own = getattr(type(config), name, None)
    return isinstance(own, property) and own.fset is not None
