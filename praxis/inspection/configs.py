"""Tables of configs, and of what differs between two."""

from typing import Any

import fiddle as fdl

from praxis.config.text import differences, leaf_text
from praxis.config.visit import visit_nested_struct
from praxis.inspection.table import Column, Table

_LONGEST_VALUE = 72

_CONFIG_COLUMNS = (Column(""), Column("field"), Column("value"), Column("default"))


def config_table(config: fdl.Buildable, changed_only: bool = False) -> Table:
    """Lists the fields of a config by path; `*` marks those that are not at their default.

    A nested config counts as at its default when it is what the outer one would have there. If its
    class was replaced, its fields are compared with the defaults of the new class.

    Args:
      config: A config, with any configs inside.
      changed_only: Whether fields at their default are left out.
    """
    actual = _leaf_texts(config)
    defaults: dict[str, str] = {}

    def enter(path: str, node: Any) -> bool:
        if isinstance(node, fdl.Buildable):
            own_class = f"{path}.cls" if path else "cls"
            if own_class not in defaults or defaults[own_class] != actual.get(own_class):
                replaced = defaults.get(own_class)
                fresh = type(node)(fdl.get_callable(node))
                prefix = f"{path}." if path else ""
                defaults.update({prefix + name: text for name, text in _leaf_texts(fresh).items()})
                if path:
                    defaults[own_class] = replaced or "NoneType"
        return True

    visit_nested_struct(config, lambda path, leaf: None, enter_fn=enter)
    rows = []
    for path, text in actual.items():
        changed = defaults.get(path, "NoneType") != text
        if changed or not changed_only:
            default = _short(defaults.get(path, "")) if changed else ""
            rows.append(("*" if changed else "", path, _short(text), default))
    return Table(_CONFIG_COLUMNS, rows)


_DIFF_COLUMNS = (Column("field"), Column("before"), Column("after"))


def config_diff(before: Any, after: Any) -> Table:
    """Lists the fields in which two configs differ; what one of them lacks stays empty.

    `praxis.config.text.diff_text` gives the same as text in full.

    Args:
      before: A config or other structure.
      after: Another one.

    Example:
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> config = pax_fiddle.Config(linears.Linear, input_dims=3)
      >>> print(config_diff(config, config.clone().set(input_dims=5)))
      field       before  after
      ----------  ------  -----
      input_dims  3       5
    """
    return Table(
        _DIFF_COLUMNS,
        [
            (path, *("" if text is None else _short(text) for text in (old, new)))
            for path, old, new in differences(before, after)
        ],
    )


def _leaf_texts(config: Any) -> dict[str, str]:
    leaves: dict[str, Any] = {}
    visit_nested_struct(config, leaves.__setitem__)
    return {path: leaf_text(leaf) for path, leaf in leaves.items()}


def _short(text: str) -> str:
    """Returns `Linear` for `type/praxis.layers.linears/Linear`, and cuts long texts."""
    kind, _, name = text.partition("/")
    if kind in ("type", "callable"):
        text = name.rpartition("/")[2]
    elif text == "NoneType":
        text = "None"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
