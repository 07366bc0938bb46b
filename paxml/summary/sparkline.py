"""Curves in a terminal."""

import math
from collections.abc import Mapping

import numpy as np

from praxis.inspection.table import Column, Table

_BARS = "▁▂▃▄▅▆▇█"
_NOT_A_NUMBER = "!"


def sparkline(curve: Mapping[int, float], width: int = 40) -> str:
    """Draws a curve in one line of text; each character stands for the mean of some steps.

    Args:
      curve: Values by step, in the order of steps.
      width: Characters, at most.

    Example:
      >>> sparkline({1: 0.0, 2: 7.0, 3: 3.0})
      '▁█▄'
    """
    values = np.array(list(curve.values()), np.float64)
    means = [
        float(np.mean(part))
        for part in np.array_split(values, min(width, len(values)))
        if part.size
    ]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        _BARS[round((mean - low) * scale)] if math.isfinite(mean) else _NOT_A_NUMBER
        for mean in means
    )


def curves_table(runs: Mapping[str, Mapping[str, Mapping[int, float]]], tag: str) -> Table:
    """Lists the curves of runs: last step, first, best and last value, and the curve as bars.

    Args:
      runs: For each run, by name, curves by part.
      tag: What the numbers are.
    """
    columns = [
        Column("run"),
        Column("part"),
        *(Column(title, is_number=True) for title in ("step", "first", "least", "last")),
        Column(tag),
    ]
    rows = []
    for run, curves in runs.items():
        for part, curve in curves.items():
            values = list(curve.values())
            finite = [value for value in values if math.isfinite(value)]
            numbers = (values[0], min(finite, default=math.nan), values[-1])
            texts = [f"{number:.4g}" for number in numbers]
            rows.append((run, part, str(list(curve)[-1]), *texts, sparkline(curve)))
    return Table(columns, rows)
