"""`pax plot`: the losses of runs beside each other."""

import argparse
from collections.abc import Sequence

from paxml.launch.commands.common import show
from paxml.summary.plot import draw_curves, names_of_runs, read_curves
from paxml.summary.sparkline import curves_table


def plot_runs(arguments: Sequence[str]) -> int:
    """Prints the curves of runs, and draws them in a picture if one is asked for."""
    parser = argparse.ArgumentParser(
        prog="pax plot", description="Compares runs by a scalar of their summaries."
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="job_log_dir of a run")
    parser.add_argument("--tag", default="loss", help="scalar to show; default: %(default)s")
    parser.add_argument("--output", metavar="PNG", help="picture to write (needs matplotlib)")
    options = parser.parse_args(arguments)
    names = names_of_runs(options.directories)
    runs = {
        name: read_curves(directory, options.tag)
        for name, directory in zip(names, options.directories, strict=True)
    }
    show(curves_table(runs, options.tag))
    if options.output:
        print(draw_curves(runs, options.output, options.tag))
    return 0
