"""Measures Pax against other programs that do the same maths, and prints a table.

usage: python -m benchmarks.run [--quick] [--only=NAME,...] [--out=DIRECTORY] [--strict]

Each figure runs in a process of its own. The exit code is 1 if a figure fails, above all if
programs that are compared give different numbers; with --strict also if a target is not met.
"""

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import frame, report

# Modules here, in the order of the table.
FIGURES = (
    "imports",
    "configs",
    "tracing",
    "train_step",
    "long_sequences",
    "trainer_loop",
    "decoding",
    "experts",
    "optimizer_update",
    "checkpoints",
    "compilations",
)
# Seconds after which a figure counts as failed.
TIME_LIMIT = 600


def measure_here(name: str, settings: frame.Settings, path: pathlib.Path) -> None:
    """Measures a figure in this process, and writes its rows."""
    module = importlib.import_module(f"benchmarks.{name}")
    rows = []
    for row in module.measure(settings):
        print(f"  {row.case}: {report.ratio(row.judged)} {row.judged_unit}", flush=True)
        rows.append(row)
    report.write_json(path, {name: rows}, report.machine())


def measure(name: str, settings: frame.Settings, out: pathlib.Path) -> list[frame.Row] | None:
    """Measures a figure in a process of its own; None if that fails."""
    print(f"{name}:", flush=True)
    path = out / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.run", "--here", name, "--out", os.fspath(out)]
    start = time.perf_counter()
    try:
        code = subprocess.run(
            [*command, *(["--quick"] if settings.quick else [])], timeout=TIME_LIMIT, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"  FAILED: not done after {TIME_LIMIT} s", flush=True)
        return None
    print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    if code != 0 or not path.exists():
        print(f"  FAILED with exit code {code}", flush=True)
        return None
    return report.rows_from_json(json.loads(path.read_text())["figures"][name])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it runs")
    parser.add_argument("--only", default="", help=f"some of {', '.join(FIGURES)}")
    parser.add_argument("--out", default="runs/bench", help="where the results go")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = frame.Settings(quick=arguments.quick)
    out = pathlib.Path(arguments.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        measure_here(arguments.here, settings, out / f"{arguments.here}.json")
        return 0

    names = [name for name in arguments.only.split(",") if name] or list(FIGURES)
    if unknown := sorted(set(names) - set(FIGURES)):
        parser.error(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    about = report.machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()) + "\n", flush=True)
    measured = {name: measure(name, settings, out) for name in names}
    rows = {name: group for name, group in measured.items() if group is not None}
    failed = [name for name, group in measured.items() if group is None]
    lines = [report.table(rows)]
    missed = [
        f"{name}: {row.case}"
        for name, group in rows.items()
        for row in group
        if row.verdict == "NO"
    ]
    if settings.quick:
        lines.append("Measured with --quick: too short to judge times by.")
    lines += [f"MISSED {line}" for line in missed] + [f"FAILED {name}" for name in failed]
    print("\n" + "\n\n".join(lines))
    (out / "bench.md").write_text("\n\n".join(lines) + "\n")
    report.write_json(out / "bench.json", rows, about)
    if not report.write_picture(out / "bench.png", rows, about):
        print("No picture: matplotlib is not installed (pip install '.[demo]').")
    print(f"\n{out / 'bench.md'}, bench.json and bench.png there")
    return 1 if failed or (missed and arguments.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
