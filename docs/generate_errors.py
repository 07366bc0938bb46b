"""Writes docs/errors.md: what Pax says when something is wrong, by provoking each error.

Run `make docs-errors`. A test compares the page with what this program writes.
"""

import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

# Each registers its situations, which stand on the page in this order.
# isort: off
import docs.situations.configs
import docs.situations.sizes
import docs.situations.variables
import docs.situations.sharding
import docs.situations.data
import docs.situations.training  # noqa: F401

# isort: on
from docs.situations.situation import SITUATIONS

PAGE = pathlib.Path(__file__).with_name("errors.md")

HEAD = """\
# Errors

What Pax says when something is wrong. Each message starts with the layer (class and path) or the
config it is about, then the field or argument, what was given, what was expected, and what to do.
This page is written by `make docs-errors`, which provokes every error on it; the wording is not
part of the public API.

An exception that leaves a layer has notes under its message: the innermost layer with the method
that was running, its arguments as dtype and shape, and the outermost layer. `error.__notes__` has
them as a list. They cost nothing until something fails. An exception that leaves a constructor
while a config is built says at its end where in the config that was (`Fiddle context`, left out
here).
"""


def page() -> str:
    """Returns the whole page."""
    parts, section = [HEAD], ""
    for entry in SITUATIONS:
        if entry.section != section:
            section = entry.section
            parts.append(f"\n## {section}\n")
        parts.append(f"\n### {entry.title}\n\n```text\n{message(entry.provoke)}\n```\n")
    return "".join(parts)


def message(provoke: Callable[[], Any]) -> str:
    """Returns class, message and notes of the error that a function makes.

    Raises:
      RuntimeError: if it makes none.
    """
    try:
        provoke()
    except Exception as error:
        return "\n".join(_lines(error))
    raise RuntimeError("Nothing went wrong.")


def _lines(error: Exception) -> Iterator[str]:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    # What Fiddle adds is long: the arguments of the constructor.
    text = text.partition("\n\nFiddle context")[0]
    notes = [note for note in getattr(error, "__notes__", []) if "JAX has removed" not in note]
    for paragraph in [f"{type(error).__name__}: {text}", *notes]:
        for line in paragraph.splitlines():
            yield from textwrap.wrap(
                _steady(line), 98, break_long_words=False, break_on_hyphens=False
            ) or [""]


def _steady(text: str) -> str:
    """Refuses text that differs between runs."""
    if re.search(r"0x[0-9a-f]{6,}|/site-packages/|object at", text):
        raise RuntimeError(f"A message has an address or a path in it: {text}")
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page())
