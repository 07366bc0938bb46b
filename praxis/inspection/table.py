"""Rows of text that a terminal, a log or a notebook shows."""

import dataclasses
import html
from collections.abc import Iterable, Sequence

import rich.markup
import rich.table


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


def count_text(count: float | int) -> str:
    """Returns a large number with a prefix of the SI.

    Example:
      >>> count_text(1_234_567), count_text(42)
      ('1.23 M', '42')
    """
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(count) < 999.5 or prefix == "P":
            break
        count /= 1000
    return f"{count:.0f}" if not prefix else f"{count:.3g} {prefix}"


def without_empty_columns(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], totals: Sequence[str]
) -> Table:
    """Returns the table without columns in which nothing stands."""
    body = [*rows, totals]
    used = [index for index in range(len(columns)) if any(row[index] for row in body)]
    return Table(
        [columns[index] for index in used],
        [[row[index] for index in used] for row in rows],
        [totals[index] for index in used],
    )
