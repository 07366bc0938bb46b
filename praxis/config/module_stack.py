"""Hides the Flax modules that are running from modules built meanwhile."""

import contextlib
from collections.abc import Iterator

from flax.linen import module as flax_module


@contextlib.contextmanager
def empty_flax_module_stack() -> Iterator[None]:
    """Modules made inside get no parent; the stack is back on exit, also after an exception."""
    # Flax offers no public way to do this.
    context = flax_module._context
    running = context.module_stack
    context.module_stack = [None]
    try:
        yield
    finally:
        context.module_stack = running
