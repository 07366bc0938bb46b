"""What the commands share."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

import jax
import rich.console

from paxml.experiment.base import BaseExperiment
from paxml.experiment.lookup import get_experiment
from paxml.experiment.settings import with_settings
from praxis.inspection.table import Table


def use_host_only() -> None:
    """Keeps JAX off the accelerators, which a run may be using."""
    jax.config.update("jax_platforms", "cpu")


def import_from_working_directory(*modules: str) -> None:
    """Imports modules; those of the working directory are found, as with `python -m`.

    Raises:
      ValueError: if one does not exist, or imports what is not installed. Any other error in a
        module is shown as it is.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            what = f"it needs {error.name!r}, which is not installed"
            if error.name and f"{module}.".startswith(f"{error.name}."):
                what = "there is no such module, here or installed"
            raise ValueError(f"Could not import module {module!r}: {what}.") from error


def show(table: Table) -> None:
    """Prints a table: with lines in a terminal, as plain text elsewhere."""
    console = rich.console.Console(highlight=False)
    if console.is_terminal:
        console.print(table)
    else:
        print(table, flush=True)


def experiment_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """Returns a parser of the name of an experiment, and of settings."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("experiment", metavar="EXP", help="name of the experiment")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="PATH=VALUE, as in pax train"
    )
    return parser


def chosen_experiment(options: argparse.Namespace) -> BaseExperiment:
    """Returns the experiment that the arguments of `experiment_parser` name.

    Raises:
      ValueError: if there is no such experiment or setting.
    """
    import_from_working_directory()
    return with_settings(get_experiment(options.experiment), options.settings)()


def experiment_from_arguments(
    prog: str,
    description: str | None,
    arguments: Sequence[str] | None,
    switches: Mapping[str, str] | None = None,
) -> tuple[BaseExperiment, argparse.Namespace]:
    """Parses the arguments of a tool, which works without accelerators.

    Args:
      prog: Name of the tool.
      description: What it does.
      arguments: The arguments; None: those of the process.
      switches: Help texts of flags without a value, by name.
    """
    parser = experiment_parser(prog, (description or "").partition(":")[0])
    for name, text in (switches or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    options = parser.parse_args(arguments)
    use_host_only()
    return chosen_experiment(options), options
