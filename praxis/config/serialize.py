"""Configs to JSON and back, by Fiddle's serialization."""

from collections.abc import Callable
from typing import Any, NamedTuple

import fiddle as fdl
from fiddle import daglish
from fiddle.experimental import serialization

from praxis.config import calls, copying, traverse

_Path = tuple[daglish.PathElement, ...]


class Call(NamedTuple):
    """Stands in JSON for a value that is made anew by calling something.

    Attributes:
      function: A class or function.
      args: Its arguments.
      kwargs: Its arguments by name.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Import(NamedTuple):
    """Stands in JSON for an object that a module has under a name.

    Attributes:
      module: The module.
      name: The name, dotted inside a class.
    """

    module: str
    name: str


def to_json(config: Any, indent: int | None = None) -> str:
    """Writes a config as JSON, from which `from_json` makes an equal one.

    Tags, sharing, dtypes, enums, arrays, dataclass instances such as initializers, and whatever a
    module has under its name, are kept.

    Args:
      config: A config, or a nest of lists, tuples, dicts and NestedMaps.
      indent: Spaces an indent; None: all on one line.

    Raises:
      ValueError: if a value cannot be written, as a lambda; names its place in the config.

    Example:
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> config = pax_fiddle.Config(linears.Linear, input_dims=3)
      >>> from_json(to_json(config)) == config
      True
    """
    return serialization.dump_json(_Walk(_encode).visit(config, ()), indent=indent)


def from_json(text: str) -> Any:
    """Makes a config from what `to_json` wrote.

    It imports the modules that the text names, and makes arrays and dataclass instances: read only
    texts that you trust.

    Raises:
      ValueError: if the text is no JSON of a config, or names what no module has.
    """
    try:
        encoded = serialization.load_json(text)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"This is not the JSON of a config: {type(error).__name__}: {error}. Expected a text "
            "that praxis.inspection.config_to_json wrote, and the modules that it names."
        ) from error
    return _Walk(_decode).visit(encoded, ())


class _Walk:
    """Copies the configs and containers of a tree, and replaces what `leaf` replaces."""

    def __init__(self, leaf: Callable[["_Walk", Any, _Path], Any]):
        self._leaf = leaf
        # Originals are kept with their copies, or an id could be reused.
        self._memo: dict[int, tuple[Any, Any]] = {}

    def visit(self, value: Any, path: _Path) -> Any:
        """Returns the copy of `value`, which lies at `path`."""
        if type(value) in (type(None), bool, int, float, str):
            return value
        if id(value) not in self._memo:
            self._memo[id(value)] = value, self._copy(value, path)
        return self._memo[id(value)][1]

    def _copy(self, value: Any, path: _Path) -> Any:
        if isinstance(value, fdl.Buildable):
            arguments = {
                key: self.visit(argument, (*path, daglish.attr_or_index(key)))
                for key, argument in value.__arguments__.items()
            }
            return copying.copy_node(value, arguments)
        traverser = traverse.registry.find_node_traverser(type(value))
        if traverser is None or isinstance(value, Call | Import):
            return self._leaf(self, value, path)
        children, metadata = traverser.flatten(value)
        pairs = zip(children, traverser.path_elements(value), strict=True)
        copied = [self.visit(child, (*path, element)) for child, element in pairs]
        return traverser.unflatten(copied, metadata)


def _encode(walk: _Walk, value: Any, path: _Path) -> Any:
    place = f"<config>{daglish.path_str(path)}"
    name = calls.import_name(value)
    if name is not None:
        # Fiddle writes most classes by itself.
        is_class = isinstance(value, type) and value.__module__ != "builtins"
        return value if is_class else Import(*name)
    recipe = calls.as_call(value)
    if recipe is None:
        raise calls.unwritable(place, value)
    function, args, kwargs = recipe
    if isinstance(function, type) and hasattr(function, "__dataclass_fields__"):
        made = function(*args, **kwargs)
        if made != value:
            raise ValueError(
                f"{place} holds {value!r}, which cannot be written: {function.__name__} makes "
                f"{made!r} of its fields."
            )
    named = walk.visit(function, path)
    return Call(named, walk.visit(args, path), walk.visit(kwargs, path))


def _decode(walk: _Walk, value: Any, path: _Path) -> Any:
    if isinstance(value, Import):
        return calls.resolve_import(value.module, value.name)
    if isinstance(value, Call):
        function, args, kwargs = (walk.visit(part, path) for part in value)
        if not calls.is_maker(function):
            raise ValueError(f"The text calls {function}, which no value of a config needs.")
        return function(*args, **kwargs)
    return value
