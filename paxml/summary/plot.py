"""A picture of how a run went."""

import os
from pathlib import Path
from typing import Any

from paxml.summary.events import read_scalars


def loss_curve(
    job_log_dir: str | os.PathLike[str], output_png: str | os.PathLike[str], tag: str = "loss"
) -> Path:
    """Draws the loss of training and of each evaluation over the steps.

    Args:
      job_log_dir: Directory of the run, with `summaries/`.
      output_png: File to write; its directory is created if needed.
      tag: Scalar to draw.

    Returns:
      The path of the picture.

    Raises:
      ImportError: if matplotlib is not installed.
      FileNotFoundError: if no event file of the run has the scalar.
    """
    summaries = Path(job_log_dir) / "summaries"
    curves = {
        directory.name: values
        for directory in sorted(summaries.glob("*"))
        if directory.is_dir() and (values := read_scalars(directory, tag))
    }
    if not curves:
        raise FileNotFoundError(
            f"No event file under {summaries} has the scalar {tag!r}. Is {job_log_dir} the "
            "job_log_dir of a run that has come to its first summary?"
        )
    figure = _figure()
    axes = figure.add_subplot()
    # Training first and in the background: it has the most points and the most noise.
    for name in sorted(curves, key=lambda name: (name != "train", name)):
        values = curves[name]
        style = {"linewidth": 1.0, "alpha": 0.8} if name == "train" else {"marker": "o"}
        axes.plot(list(values), list(values.values()), label=name, **style)
    axes.set(xlabel="step", ylabel=tag)
    axes.grid(alpha=0.3)
    axes.legend()
    output = Path(output_png)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    return output


def _figure() -> Any:
    """Returns an empty figure with the backend that needs no screen."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "The picture of the loss needs matplotlib: pip install 'pax[demo]'."
        ) from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
