"""Configs as a tree to fold and unfold in a notebook."""

import dataclasses
import html
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import fiddle as fdl

from praxis.config.callables import short_name
from praxis.config.text import leaf_text


@dataclasses.dataclass(frozen=True)
class ConfigView:
    """A config that a notebook shows as a tree, `print` as the tree in text.

    Where the package `treescope` (the extra `notebook`) is installed, it draws the tree.

    Attributes:
      config: The config.
    """

    config: fdl.Buildable

    def __str__(self) -> str:
        return "\n".join(_lines("", self.config, ""))

    def _repr_html_(self) -> str:
        if importlib.util.find_spec("treescope") is None:
            return plain_html(self.config)
        import treescope

        return treescope.render_to_html(_Node(self.config))


class _Node:
    """A config as treescope draws it; a class of its own, for treescope adds `_repr_html_`."""

    def __init__(self, config: fdl.Buildable):
        self._config = config

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        from treescope import repr_lib

        return repr_lib.render_object_constructor(
            object_type=_target(self._config),
            attributes={str(key): _wrapped(value) for key, value in _arguments(self._config)},
            path=path,
            subtree_renderer=subtree_renderer,
            roundtrippable=False,
        )


def config_view(config: fdl.Buildable) -> ConfigView:
    """Returns a config as a tree, for the last line of a notebook's cell.

    Example:
      >>> from praxis import base_layer, pax_fiddle
      >>> print(config_view(pax_fiddle.Config(base_layer.WeightInit, "xavier", 0.5)))
      WeightInit
        method: 'xavier'
        scale: 0.5
    """
    return ConfigView(config)


def plain_html(config: Any) -> str:
    """Returns a config as nested HTML lists that fold, with no script."""
    return f"<div>{_html('', config, 0)}</div>"


def _html(name: str, value: Any, depth: int) -> str:
    label = html.escape(f"{name}: " if name else "")
    children = _children(value)
    if not children:
        return f"{label}<code>{html.escape(_leaf(value))}</code>"
    items = "".join(f"<li>{_html(key, child, depth + 1)}</li>" for key, child in children)
    opened = " open" if depth < 2 else ""
    title = f"<summary>{label}<b>{html.escape(_title(value))}</b></summary>"
    return f"<details{opened}>{title}<ul>{items}</ul></details>"


def _lines(name: str, value: Any, margin: str) -> Iterator[str]:
    label = f"{margin}{name}: " if name else margin
    children = _children(value)
    yield label + (_title(value) if children else _leaf(value))
    for key, child in children:
        yield from _lines(key, child, f"{margin}  ")


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, fdl.Buildable):
        return [(str(key), child) for key, child in _arguments(value)]
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if isinstance(value, list | tuple) and any(map(_is_node, value)):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    return []


def _is_node(value: Any) -> bool:
    return isinstance(value, fdl.Buildable | Mapping | list | tuple)


def _title(value: Any) -> str:
    return short_name(_target(value) if isinstance(value, fdl.Buildable) else type(value))


def _leaf(value: Any) -> str:
    if isinstance(value, fdl.Buildable):
        return f"{_title(value)}()"
    if value is None or isinstance(value, str | list | tuple | Mapping):
        return repr(value)
    return short_name(value) if callable(value) else leaf_text(value)


def _wrapped(value: Any) -> Any:
    """Puts nodes in the place of the configs inside containers."""
    if isinstance(value, fdl.Buildable):
        return _Node(value)
    if type(value) in (list, tuple):
        return type(value)(map(_wrapped, value))
    if type(value) is dict:
        return {key: _wrapped(child) for key, child in value.items()}
    return value


def _target(config: fdl.Buildable) -> Any:
    return fdl.get_callable(config)


def _arguments(config: fdl.Buildable) -> list[tuple[str | int, Any]]:
    return list(config.__arguments__.items())
