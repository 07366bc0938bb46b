"""Tables of variables and of configs, for a terminal, a log or a notebook."""

import dataclasses
import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import rich.markup
import rich.table

from praxis.config.text import leaf_text
from praxis.config.visit import visit_nested_struct
from praxis.core.weights import WeightHParams, WeightInit

_LONGEST_VALUE = 72


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a `Table`.

    Attributes:
      title: Heading.
      is_number: Whether entries end at the right edge.
    """

    title: str
    is_number: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text; `print` it, give it to rich, or let a notebook show it.

    Attributes:
      columns: Headings.
      rows: One text a column.
      totals: A last row, or None.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    totals: Sequence[str] | None = None

    def __str__(self) -> str:
        titles = [column.title for column in self.columns]
        body = [*self.rows, *([self.totals] if self.totals else [])]
        widths = [max(map(len, texts)) for texts in zip(titles, *body, strict=True)]

        def line(texts: Sequence[str]) -> str:
            padded = (
                text.rjust(width) if column.is_number else text.ljust(width)
                for text, width, column in zip(texts, widths, self.columns, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("-" * width for width in widths)
        lines = [line(titles), rule, *map(line, self.rows)]
        return "\n".join([*lines, rule, line(self.totals)] if self.totals else lines)

    def __rich__(self) -> rich.table.Table:
        table = rich.table.Table(show_footer=self.totals is not None)
        for index, column in enumerate(self.columns):
            table.add_column(
                column.title,
                footer=self.totals[index] if self.totals else "",
                justify="right" if column.is_number else "left",
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*map(rich.markup.escape, row))
        return table

    def _repr_html_(self) -> str:
        def cells(texts: Iterable[str], tag: str) -> str:
            sides = ("right" if column.is_number else "left" for column in self.columns)
            return "".join(
                f'<{tag} style="text-align:{side}">{html.escape(text)}</{tag}>'
                for text, side in zip(texts, sides, strict=True)
            )

        head = cells((column.title for column in self.columns), "th")
        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        foot = f"<tfoot><tr>{cells(self.totals, 'th')}</tr></tfoot>" if self.totals else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>"


def size_text(num_bytes: float | int) -> str:
    """Returns a size with a unit.

    Example:
      >>> size_text(1536)
      '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if num_bytes < 1024 or unit == "TiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"


_VARIABLE_COLUMNS = (
    Column("variable"),
    Column("shape"),
    Column("dtype"),
    Column("count", is_number=True),
    Column("size", is_number=True),
    Column("init"),
    Column("sharding"),
    Column("collections"),
)


def variable_table(variables: Any) -> Table:
    """Lists the variables of a layer, with their number of elements and size in total.

    Args:
      variables: Tree of WeightHParams, as `abstract_init_with_metadata` returns it, or of arrays,
        as `init` does. Stacked layers count with all their layers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(variable_table({"params": {"w": jnp.ones([4, 3])}}).totals[3])
      12
    """
    rows, counts, sizes = [], 0, 0
    leaves = jax.tree_util.tree_leaves_with_path(
        variables, is_leaf=lambda leaf: isinstance(leaf, WeightHParams)
    )
    for path, leaf in leaves:
        shape = tuple(leaf.full_shape if isinstance(leaf, WeightHParams) else leaf.shape)
        dtype = jnp.dtype(leaf.dtype or jnp.float32)
        count = math.prod(shape)
        counts, sizes = counts + count, sizes + count * dtype.itemsize
        rows.append(
            (
                jax.tree_util.keystr(path, simple=True, separator="/"),
                "x".join(map(str, shape)) or "scalar",
                dtype.name,
                f"{count:,}",
                size_text(count * dtype.itemsize),
                *_origin(leaf),
            )
        )
    totals = (f"{len(rows)} variables", "", "", f"{counts:,}", size_text(sizes), "", "", "")
    return _without_empty_columns(_VARIABLE_COLUMNS, rows, totals)


def _without_empty_columns(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], totals: Sequence[str]
) -> Table:
    body = [*rows, totals]
    used = [index for index in range(len(columns)) if any(row[index] for row in body)]
    return Table(
        [columns[index] for index in used],
        [[row[index] for index in used] for row in rows],
        [totals[index] for index in used],
    )


def _origin(leaf: Any) -> tuple[str, str, str]:
    """Texts of initializer, sharding and collections."""
    if not isinstance(leaf, WeightHParams):
        spec = getattr(getattr(leaf, "sharding", None), "spec", None)
        return "", "" if spec is None else _sharding_text(tuple(spec)), ""
    # A dim that is not split is -1 or None.
    mapping = tuple(None if axis == -1 else axis for axis in leaf.full_split_dims_mapping or ())
    collections = (name.strip("_").removeprefix("lingvo_jax_") for name in leaf.collections or ())
    return _init_text(leaf.init), _sharding_text(mapping), ", ".join(collections)


def _sharding_text(mapping: Sequence[Any]) -> str:
    if all(axis is None for axis in mapping):
        return "replicated"
    texts = (
        "+".join(map(str, axis)) if isinstance(axis, list | tuple) else axis for axis in mapping
    )
    return ", ".join("-" if text is None else str(text) for text in texts)


def _init_text(init: WeightInit | None) -> str:
    return "" if init is None else f"{init.method}({init.scale:g})"


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
