"""Configs as the Python code that makes them."""

import collections
import dataclasses
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import fiddle as fdl
from fiddle import daglish

from praxis.config import calls, equality, traverse
from praxis.config.callables import callable_facts
from praxis.config.config import PaxArgFactory, PaxConfig, PaxPartial
from praxis.config.text import nested_struct_to_text

_Path = tuple[daglish.PathElement, ...]

_WIDTH = 100
_ALIASES = {"jax.numpy": "jnp", "numpy": "np", "fiddle": "fdl"}
_KINDS = {PaxConfig: "Config", PaxPartial: "Partial", PaxArgFactory: "ArgFactory"}


def to_python(config: Any, name: str = "make_config") -> str:
    """Writes a module with a function that makes an equal config.

    What the defaults of a class give is left out; values that stand in two places stand in a
    variable, so that sharing stays.

    Args:
      config: A config, or a nest of lists, tuples, dicts and NestedMaps.
      name: Name of the function.

    Raises:
      ValueError: if a value cannot be written, as a lambda; names its place in the config.

    Example:
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> print(to_python(pax_fiddle.Config(linears.Linear, input_dims=3)))
      from praxis import pax_fiddle
      from praxis.layers import linears
      <BLANKLINE>
      <BLANKLINE>
      def make_config():
          return pax_fiddle.Config(linears.Linear, input_dims=3)
      <BLANKLINE>
    """
    writer = _Writer(config)
    result = _lines("return ", writer.node(config, ()), "    ")
    body = [f"    {line}" for line in [*writer.statements, *result]]
    head = [*sorted(writer.imports()), "", "", f"def {name}():"]
    return "\n".join([*head, *body]).lstrip("\n") + "\n"


_Node: TypeAlias = "_Group | str"


@dataclasses.dataclass(frozen=True)
class _Group:
    """Something in brackets.

    Attributes:
      opened: Text up to the bracket, with it.
      items: What stands before each element, as `name=`, and the element.
      closed: The bracket that closes, after a comma if need be.
    """

    opened: str
    items: Sequence[tuple[str, "_Group | str"]]
    closed: str

    def flat(self) -> str:
        """Returns it on one line."""
        texts = [prefix + _flat(item) for prefix, item in self.items]
        return f"{self.opened}{', '.join(texts)}{self.closed}"


def _flat(node: _Node) -> str:
    return node if isinstance(node, str) else node.flat()


def _lines(prefix: str, node: _Node, margin: str, suffix: str = "") -> list[str]:
    """Writes a node on one line, or with an element a line where that is too long."""
    flat = f"{prefix}{_flat(node)}{suffix}"
    if isinstance(node, str) or not node.items or len(margin) + len(flat) <= _WIDTH:
        return [flat]
    inner = [
        f"    {line}"
        for before, item in node.items
        for line in _lines(before, item, f"{margin}    ", ",")
    ]
    return [prefix + node.opened, *inner, node.closed.lstrip(",") + suffix]


class _Writer:
    """Turns values into nodes, and gathers the imports and the variables they need."""

    def __init__(self, root: Any):
        self.statements: list[str] = []
        self._modules: dict[str, str] = {}
        self._variables: dict[int, str] = {}
        self._times: collections.Counter[int] = collections.Counter()
        self._count(root)

    def imports(self) -> list[str]:
        """Returns the import statements."""
        lines = []
        for module, alias in self._modules.items():
            package, _, last = module.rpartition(".")
            renamed = "" if alias == last else f" as {alias}"
            short = package and module not in _ALIASES
            lines.append(f"from {package} import {last}{renamed}" if short else _import(module))
        return lines

    def node(self, value: Any, path: _Path) -> _Node:
        """Returns the node of a value that lies at `path`."""
        if id(value) in self._variables:
            return self._variables[id(value)]
        node, changes = self._new_node(value, path)
        if not changes and self._times[id(value)] < 2:
            return node
        kind = fdl.get_callable(value) if isinstance(value, fdl.Buildable) else type(value)
        stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", kind.__name__).lower()
        variable = f"{stem}_{len(self._variables) + 1}"
        self.statements += _lines(f"{variable} = ", node, "    ")
        self.statements += [change.format(variable) for change in changes]
        self._variables[id(value)] = variable
        return variable

    def _count(self, value: Any) -> None:
        """Counts the places of each object that can change."""
        if not isinstance(value, fdl.Buildable | list | dict | set | tuple):
            return
        if not isinstance(value, tuple):
            self._times[id(value)] += 1
            if self._times[id(value)] > 1:
                return
        traverser = traverse.registry.find_node_traverser(type(value))
        for child in traverser.flatten(value)[0] if traverser else ():
            self._count(child)

    def _new_node(self, value: Any, path: _Path) -> tuple[_Node, list[str]]:
        """Returns the node, and statements on the variable `{}` that complete the value."""
        if value is None or type(value) in (bool, int):
            return repr(value), []
        if type(value) is float:
            return (repr(value) if abs(value) < float("inf") else f'float("{value}")'), []
        if type(value) is str:
            return _quoted(value), []
        if isinstance(value, fdl.Buildable):
            return self._config(value, path)
        if isinstance(value, dict):
            return self._dict(value, path), []
        if isinstance(value, list | tuple):
            return self._sequence(value, path), []
        if name := calls.import_name(value):
            return self._imported(*name), []
        recipe = calls.as_call(value)
        if recipe is None:
            raise calls.unwritable(f"<config>{daglish.path_str(path)}", value)
        function, args, kwargs = recipe
        items = [("", self.node(item, path)) for item in args]
        items += [(f"{key}=", self.node(item, path)) for key, item in kwargs.items()]
        return _Group(f"{_flat(self.node(function, path))}(", items, ")"), []

    def _config(self, config: fdl.Buildable, path: _Path) -> tuple[_Node, list[str]]:
        target = fdl.get_callable(config)
        fresh = type(config)(target)
        items: list[tuple[str, _Node]] = [("", self.node(target, path))]
        by_position = _positional(config)
        for key in [*by_position, *(key for key in config.__arguments__ if key not in by_position)]:
            value = config.__arguments__[key]
            if key in fresh.__arguments__ and self._same(value, fresh.__arguments__[key]):
                continue
            prefix = "" if key in by_position else f"{key}="
            items.append((prefix, self.node(value, (*path, daglish.attr_or_index(key)))))
        changes = [
            f"del {{}}.{key}" for key in fresh.__arguments__ if key not in config.__arguments__
        ]
        for verb, field, tag in _tag_changes(fresh, config):
            call = f"{self._imported('fiddle', f'{verb}_tag')}({{}}, {_quoted(field)}, "
            changes.append(f"{call}{_flat(self.node(tag, path))})")
        if type(config) in _KINDS:
            kind = f"{self._module('praxis.pax_fiddle')}.{_KINDS[type(config)]}"
        else:
            kind = _flat(self.node(type(config), path))
        return _Group(f"{kind}(", items, ")"), changes

    def _same(self, value: Any, default: Any) -> bool:
        """Whether a value may be left to the default: equal, and nothing in it shared."""
        nodes = [node for node, _ in traverse.iterate(value, memoized=False)]
        if any(self._times[id(node)] > 1 for node in nodes):
            return False
        texts = [nested_struct_to_text(side) for side in (value, default)]
        tags = [
            [
                dict(node.__argument_tags__)
                for node, _ in traverse.iterate(side, memoized=False)
                if isinstance(node, fdl.Buildable)
            ]
            for side in (value, default)
        ]
        return texts[0] == texts[1] and tags[0] == tags[1] and equality.equal_trees(value, default)

    def _dict(self, value: dict[Any, Any], path: _Path) -> _Node:
        items = [
            (f"{_flat(self.node(key, path))}: ", self.node(item, (*path, daglish.Key(key))))
            for key, item in value.items()
        ]
        if type(value) is dict:
            return _Group("{", items, "}")
        return _Group(f"{_flat(self.node(type(value), path))}({{", items, "})")

    def _sequence(self, value: list | tuple, path: _Path) -> _Node:
        nodes = [self.node(item, (*path, daglish.Index(i))) for i, item in enumerate(value)]
        if isinstance(value, list):
            return _Group("[", [("", node) for node in nodes], "]")
        names: Sequence[str] | None = getattr(type(value), "_fields", None)
        if names is None:
            return _Group("(", [("", node) for node in nodes], ",)" if len(nodes) == 1 else ")")
        items = [(f"{name}=", node) for name, node in zip(names, nodes, strict=True)]
        return _Group(f"{_flat(self.node(type(value), path))}(", items, ")")

    def _imported(self, module: str, name: str) -> str:
        if module == "builtins":
            return name
        return ".".join(filter(None, [self._module(module), name]))

    def _module(self, module: str) -> str:
        """Returns the name under which a module is imported, of its own where two would clash."""
        if module not in self._modules:
            stem = alias = _ALIASES.get(module, module.rpartition(".")[2])
            taken = {*self._modules.values(), *keyword.kwlist}
            while alias in taken:
                alias = f"{stem}_module{len(self._modules)}"
            self._modules[module] = alias
        return self._modules[module]


def _import(module: str) -> str:
    return f"import {module} as {_ALIASES[module]}" if module in _ALIASES else f"import {module}"


def _positional(config: fdl.Buildable) -> list[str | int]:
    """Keys of the arguments that are given by position: those of `*args`, and all before them."""
    numbered = sorted(key for key in config.__arguments__ if isinstance(key, int))
    if not numbered:
        return []
    named = list(callable_facts(fdl.get_callable(config)).parameters)
    return [*(name for name in named[: numbered[0]] if name in config.__arguments__), *numbered]


def _quoted(text: str) -> str:
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written else written


def _tag_changes(before: fdl.Buildable, after: fdl.Buildable) -> list[tuple[str, str, Any]]:
    """Returns (verb, field, tag) of the tags that came and of those that went."""

    def listed(tags: Mapping[Any, Any]) -> set[tuple[str, Any]]:
        return {(str(field), tag) for field, own in tags.items() for tag in own}

    old, new = listed(before.__argument_tags__), listed(after.__argument_tags__)
    sides = {"add": new - old, "remove": old - new}
    return [(verb, *pair) for verb, pairs in sides.items() for pair in sorted(pairs, key=str)]
