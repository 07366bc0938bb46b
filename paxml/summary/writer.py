"""Where the summaries of a run go: the writers that were chosen, in the first process."""

import contextlib
import contextvars
import difflib
import importlib
import os
from collections.abc import Iterator, Sequence

import jax

from paxml.summary.writers.base import OpenWriter, SummaryWriter
from paxml.summary.writers.several import SeveralWriters

DEFAULT_WRITERS = ("tensorboard",)

# Module and class of each kind. They are imported when used: one of them may not be installed.
_KINDS = {
    "tensorboard": ("paxml.summary.writers.tensorboard", "TensorBoardWriter"),
    "jsonl": ("paxml.summary.writers.jsonl", "JsonLinesWriter"),
    "wandb": ("paxml.summary.writers.wandb", "WandbWriter"),
}
_CHOSEN: contextvars.ContextVar[tuple[OpenWriter, ...] | None] = contextvars.ContextVar(
    "summary_writers", default=None
)


def writer_kinds() -> list[str]:
    """Returns the names of the kinds of writers."""
    return sorted(_KINDS)


@contextlib.contextmanager
def using_summary_writers(kinds: Sequence[str | OpenWriter]) -> Iterator[None]:
    """Chooses the writers that are opened inside the `with`.

    Args:
      kinds: Names, see `writer_kinds`, or functions that open a writer of one's own in a directory.

    Raises:
      ValueError: for an unknown name.
      ImportError: if the package of a writer is not installed.
    """
    token = _CHOSEN.set(tuple(_opener(kind) for kind in kinds))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def get_summary_writer(
    summary_dir: str | os.PathLike[str], enable_summary_writer: bool = True
) -> SummaryWriter:
    """Opens the chosen writers in a directory; by default that of TensorBoard.

    Args:
      summary_dir: Is created if needed.
      enable_summary_writer: If False, and in all processes but the first, nothing is written.
    """
    if not enable_summary_writer or jax.process_index() != 0:
        return SeveralWriters()
    chosen = _CHOSEN.get()
    if chosen is None:
        chosen = tuple(map(_opener, DEFAULT_WRITERS))
    writers = [open_writer(summary_dir) for open_writer in chosen]
    return writers[0] if len(writers) == 1 else SeveralWriters(writers)


def _opener(kind: str | OpenWriter) -> OpenWriter:
    if not isinstance(kind, str):
        return kind
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind, _KINDS, n=1, cutoff=0.4)
        question = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"There is no summary writer {kind!r}.{question} There are {writer_kinds()}."
        )
    module, name = _KINDS[kind]
    writer = getattr(importlib.import_module(module), name)
    writer.check_available()
    return writer
