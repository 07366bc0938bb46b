"""Pictures of how runs went."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paxml.summary.events import read_scalars

Curve = Mapping[int, float]

_TRAIN = "train"


def read_curves(job_log_dir: str | os.PathLike[str], tag: str = "loss") -> Mapping[str, Curve]:
    """Returns the values of a scalar by step, for each part of a run that has it.

    Args:
      job_log_dir: Directory of the run, with `summaries/`.
      tag: Name of the scalar.

    Returns:
      Curves by part: `train` first, then `eval_train`, `eval_test_<input>` and so on.

    Raises:
      FileNotFoundError: if no part of the run has the scalar.
    """
    summaries = Path(job_log_dir) / "summaries"
    curves = {
        directory.name: values
        for directory in sorted(summaries.glob("*"), key=lambda path: (path.name != _TRAIN, path))
        if directory.is_dir() and (values := read_scalars(directory, tag))
    }
    if not curves:
        raise FileNotFoundError(
            f"No summary under {summaries} has the scalar {tag!r}. Is {job_log_dir} the "
            "job_log_dir of a run that has come to its first summary?"
        )
    return curves


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
      FileNotFoundError: if no summary of the run has the scalar.
    """
    return draw_curves({"": read_curves(job_log_dir, tag)}, output_png, tag)


def draw_curves(
    runs: Mapping[str, Mapping[str, Curve]], output_png: str | os.PathLike[str], tag: str
) -> Path:
    """Draws the curves of several runs in one picture, each run in a color of its own.

    Args:
      runs: For each run, by name, what `read_curves` returns. A name may be empty.
      output_png: File to write; its directory is created if needed.
      tag: What the numbers are.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.add_subplot()
    several = len(runs) > 1
    for index, (run, curves) in enumerate(runs.items()):
        # Training first and in the background: it has the most points and the most noise.
        for name, values in curves.items():
            style = {"linewidth": 1.0, "alpha": 0.8} if name == _TRAIN else {"marker": "o"}
            if several:
                style |= {"color": f"C{index}"}
                style |= {} if name == _TRAIN else {"linestyle": "--", "markersize": 4}
            axes.plot(list(values), list(values.values()), label=f"{run} {name}".strip(), **style)
    axes.set(xlabel="step", ylabel=tag)
    axes.grid(alpha=0.3)
    axes.legend()
    output = Path(output_png)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=120)
    return output


def names_of_runs(directories: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns a short name for each directory: its last part, or more where that is not unique.

    Example:
      >>> names_of_runs(["runs/a/small", "runs/b/small"])
      ['a/small', 'b/small']
    """
    parts = [Path(directory).resolve().parts for directory in directories]
    length = 1
    while len({path[-length:] for path in parts}) < len(set(parts)):
        length += 1
    return ["/".join(path[-length:]) for path in parts]


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
