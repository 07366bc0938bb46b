"""`pax list` and `pax describe`: what experiments there are, and what one takes."""

import argparse
import math
import sys
from collections.abc import Sequence

from paxml.experiment import registry
from paxml.experiment.lookup import load_entry_points
from paxml.launch.commands.common import (
    chosen_experiment,
    experiment_parser,
    import_from_working_directory,
    show,
    use_host_only,
)
from paxml.tools.compile_step import compile_apart
from paxml.tools.describe import describe, mesh_of

NOTHING_REGISTERED = """No experiment is registered. Name the module that registers yours, as in
  pax list my_package.experiments
or train one by its full name, without registering it:
  pax train --exp=my_package.experiments.MyExperiment --job_log_dir=DIR"""


def list_experiments(arguments: Sequence[str]) -> int:
    """Prints the full name and tags of each registered experiment, one a line."""
    parser = argparse.ArgumentParser(
        prog="pax list", description="Shows the registered experiments."
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="module to import first")
    parser.add_argument(
        "--import", dest="more_modules", action="append", default=[], help=argparse.SUPPRESS
    )
    parser.add_argument("--tag", help="show only those with this tag")
    options = parser.parse_args(arguments)
    use_host_only()
    load_entry_points()
    import_from_working_directory(*options.modules, *options.more_modules)
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


def describe_experiment(arguments: Sequence[str]) -> int:
    """Prints variables, FLOPs and memory of an experiment, before anything is allocated."""
    parser = experiment_parser(
        "pax describe", "Says what training an experiment takes, from shapes alone."
    )
    parser.add_argument("--devices", type=int, help="number of devices; default: the model's mesh")
    parser.add_argument("--kind", help="kind of device, such as h100 or tpu-v5e")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the step for that many made-up devices, and list what they send each other",
    )
    options = parser.parse_args(arguments)
    use_host_only()
    experiment = chosen_experiment(options)
    compiled = None
    if options.compile:
        num_devices = math.prod(mesh_of(experiment, options.devices).values())
        compiled = compile_apart(options.experiment, options.settings, num_devices)
    found = describe(experiment, devices=options.devices, kind=options.kind, compiled=compiled)
    show(found.variables)
    print()
    show(found.summary_table())
    if (exchanges := found.collectives_table()) is not None:
        print()
        show(exchanges)
    return 0
