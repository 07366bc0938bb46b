"""Where summaries go: TensorBoard event files of the first process."""

import os

import jax
from tensorboardX import SummaryWriter

# Seconds between flushes: a user who watches a run sees it almost live.
_FLUSH_SECS = 5


def get_summary_writer(
    summary_dir: str | os.PathLike[str], enable_summary_writer: bool = True
) -> SummaryWriter:
    """Opens an event file in a directory; for use with `with`, or with a `close()` at the end.

    Args:
      summary_dir: Is created if needed.
      enable_summary_writer: If False, and in all processes but the first, nothing is written.
    """
    writes = enable_summary_writer and jax.process_index() == 0
    return SummaryWriter(os.fspath(summary_dir), flush_secs=_FLUSH_SECS, write_to_disk=writes)
