"""Builds every config of an experiment: `python -m paxml.tools.validate_config EXP`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from paxml.experiment.base import BaseExperiment
from paxml.launch.commands.common import experiment_from_arguments
from paxml.task.unbuilt import refuse_unbuilt_settings
from paxml.trainer.init import create_train_state_metadata, get_train_input_specs_for_model_init
from paxml.trainer.inputs import check_unique_names
from praxis import pax_fiddle


def validate_experiment(experiment: BaseExperiment) -> list[str]:
    """Builds task, inputs and programs of an experiment, and makes the shapes of its variables.

    Inputs are built, which opens what their constructors open; no weight is allocated.

    Returns:
      What is wrong, one text each; empty if nothing is.
    """
    problems: list[str] = []

    def attempt(what: str, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except Exception as error:  # whatever is wrong with it: the rest is looked at, too
            problems.append(f"{what}: {type(error).__name__}: {error}")
            return None

    attempt("validate()", experiment.validate)
    task = attempt("task()", lambda: pax_fiddle.instantiate(experiment.task()))
    for name in ("train_datasets", "eval_datasets", "decode_datasets"):
        configs = attempt(f"{name}()", getattr(experiment, name)) or []
        built = [
            attempt(f"{name}()[{index}]", config.Instantiate)
            for index, config in enumerate(configs)
        ]
        found = [one for one in built if one is not None]
        attempt(f"{name}()", lambda inputs=found: check_unique_names(inputs))
    if task is not None:
        attempt("task()", lambda: refuse_unbuilt_settings(task))
        attempt("variables", lambda: _make_shapes(experiment, task))
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is wrong with an experiment; exit code 1 if anything is."""
    experiment, _ = experiment_from_arguments("validate_config", __doc__, arguments)
    problems = validate_experiment(experiment)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{type(experiment).__name__}: all configs can be built.")
    return 1 if problems else 0


def _make_shapes(experiment: BaseExperiment, task: Any) -> None:
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    jax.tree.leaves(create_train_state_metadata(task, specs))


if __name__ == "__main__":
    sys.exit(main())
