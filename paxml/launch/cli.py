"""The console command `pax`: `pax train FLAGS` and `pax list`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from absl import app

from paxml.experiment import registry
from paxml.experiment.lookup import load_entry_points
from paxml.launch.main import main as train_main

USAGE = """usage: pax COMMAND ...

  pax train --exp=NAME --job_log_dir=DIR [--flag=value ...]   train an experiment
  pax list [--import MODULE ...] [--tag TAG]                  show the registered experiments

`pax train --help` shows all flags.
"""

NOTHING_REGISTERED = """No experiment is registered. Name the module that registers yours, as in
  pax list --import my_package.experiments
or train one by its full name, without registering it:
  pax train --exp=my_package.experiments.MyExperiment --job_log_dir=DIR"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "train":
        app.run(train_main, argv=["pax train", *rest])
        return 0
    if command == "list":
        return list_experiments(rest)
    is_help = command in ("-h", "--help", "help")
    if command and not is_help:
        print(f"pax: there is no command {command!r}.", file=sys.stderr)
    print(USAGE, end="", file=sys.stdout if is_help else sys.stderr)
    return 0 if is_help else 2


def list_experiments(arguments: Sequence[str]) -> int:
    """Prints the full name and tags of each registered experiment, one a line."""
    parser = argparse.ArgumentParser(
        prog="pax list", description="Shows the registered experiments."
    )
    parser.add_argument(
        "--import", dest="modules", action="append", default=[], help="module to import first"
    )
    parser.add_argument("--tag", help="show only those with this tag")
    options = parser.parse_args(arguments)
    sys.path.insert(0, "")  # as `python -m` does, so that modules of the working directory import
    load_entry_points()
    for module in options.modules:
        importlib.import_module(module)
    found = sorted(registry.get_all())
    tags = {key: registry.get_registry_tags(key) for key in found}
    shown = [key for key in found if options.tag is None or options.tag in tags[key]]
    for key in shown:
        print(f"{key}  [{', '.join(tags[key])}]" if tags[key] else key)
    if not found:
        print(NOTHING_REGISTERED, file=sys.stderr)
    elif not shown:
        print(f"None of {len(found)} experiments has the tag {options.tag!r}.", file=sys.stderr)
    return 0
