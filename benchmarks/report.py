"""What a run of the benchmarks leaves: a Markdown table, a JSON file and a picture."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from benchmarks.frame import Row

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "fiddle", "numpy")


def machine() -> dict[str, Any]:
    """Where and with what was measured."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load at the start": round(load, 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def number(value: float) -> str:
    """Three digits that count, without exponents."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else number(value)


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Markdown, a line for each row, by figure."""
    head = ["figure", "case", "measured", "judged", "quartiles", "target", "met", "processor time"]
    lines = ["| " + " | ".join(head) + " |", "|" + " :--- |" * len(head)]
    for figure, group in rows.items():
        for row in group:
            values = ", ".join(f"{name} {number(value)}" for name, value in row.values.items())
            unit = "" if row.judged_unit == "x" else f" {row.judged_unit}"
            spread = f"{ratio(row.spread[0])} to {ratio(row.spread[1])}" if row.spread else ""
            cells = [
                figure,
                row.case + (f" ({row.note})" if row.note else ""),
                f"{values} {row.unit}".strip(),
                f"{ratio(row.judged)}{unit}",
                spread,
                str(row.limit or ""),
                row.verdict,
                "" if row.cpu_ratio is None else ratio(row.cpu_ratio),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(
    path: pathlib.Path, rows: Mapping[str, Sequence[Row]], about: Mapping[str, Any]
) -> None:
    figures = {
        figure: [dataclasses.asdict(row) | {"met": row.verdict} for row in group]
        for figure, group in rows.items()
    }
    text = json.dumps({"machine": about, "figures": figures}, indent=2)
    path.write_text(text + "\n")


def write_picture(
    path: pathlib.Path, rows: Mapping[str, Sequence[Row]], about: Mapping[str, Any]
) -> bool:
    """Bars of the judged numbers over their targets; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    judged = [(name, row) for name, group in rows.items() for row in group if row.limit]
    if not judged:
        return True
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.3 * len(judged)), layout="constrained")
    for place, (_, row) in enumerate(judged):
        assert row.limit is not None
        share = row.limit.share(row.judged)
        low, high = (row.limit.share(end) for end in row.spread or (row.judged, row.judged))
        axes.barh(place, share, color="tab:green" if row.verdict == "yes" else "tab:red")
        axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.axvline(1.0, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(judged)), [f"{name}: {row.case}" for name, row in judged], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("measured over target; left of the line is met")
    axes.set_title(f"{about['processor']}, {about['cores']} cores, jax {about['jax']}", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def rows_from_json(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of a figure that another process has written."""
    from benchmarks.frame import Limit

    rows = []
    for entry in entries:
        fields = {name: value for name, value in entry.items() if name != "met"}
        if fields["limit"] is not None:
            fields["limit"] = Limit(**fields["limit"])
        if fields["spread"] is not None:
            fields["spread"] = tuple(fields["spread"])
        rows.append(Row(**fields))
    return rows
