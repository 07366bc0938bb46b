"""From the name a user types to an experiment class."""

import difflib
import importlib
import importlib.metadata

from paxml.experiment import registry

ENTRY_POINTS = "paxml.experiments"

# Imported by name, once they are asked for: they know the trainer, and not the reverse.
SHIPPED = ("paxml.tasks.catalog",)


def get_experiment(experiment_name: str) -> type:
    """The experiment class of that name.

    Looks among what is registered, then imports the part before the last dot as a module, then
    loads the shipped experiments and the modules that installed packages announce under the
    entry-point group `paxml.experiments`.

    Raises:
      ValueError: if nothing has that name, several do, or its module cannot be imported. An error
        raised inside the module is shown as it is.
    """
    found = registry.get(experiment_name)
    if found is not None:
        return found
    module_error = _import_module_of(experiment_name)
    found = registry.get(experiment_name)
    if found is None:
        load_entry_points()
        found = registry.get(experiment_name)
    if found is not None:
        return found
    hint = f" {module_error}." if module_error else ""
    raise ValueError(
        f"Could not find experiment {experiment_name!r}.{hint} {suggestion(experiment_name)}"
    )


def load_entry_points() -> None:
    """Imports the shipped experiments, and modules announced as `paxml.experiments`."""
    for module in SHIPPED:
        importlib.import_module(module)
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        point.load()


def suggestion(name: str, count: int = 5) -> str:
    """A sentence with the registered names nearest to `name`."""
    keys = list(registry.get_all())
    if not keys:
        return "No experiment is registered: name its module too, as in my_module.MyExperiment."
    short = name.rsplit(".", 1)[-1].lower()
    by_class = {}
    for key in keys:
        by_class.setdefault(key.rsplit(".", 1)[-1].lower(), []).append(key)
    close = difflib.get_close_matches(short, by_class, n=count, cutoff=0.5)
    if close:
        return f"Did you mean {', '.join(key for one in close for key in by_class[one])}?"
    shown = sorted(keys)[:count]
    more = f" and {len(keys) - count} more (see `pax list`)" if len(keys) > count else ""
    return f"Registered are {', '.join(shown)}{more}."


def _import_module_of(experiment_name: str) -> str | None:
    """Imports the module part of a dotted name; what went wrong, if its module does not exist."""
    module = experiment_name.rpartition(".")[0]
    if not module:
        return None
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            return f"Could not import module {module!r}"
        raise ValueError(
            f"Could not load experiment {experiment_name!r}: module {module!r} imports "
            f"{missing!r}, which is not installed."
        ) from error
    return None
