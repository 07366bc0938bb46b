"""Prints shapes and dtypes of a batch as JSON: `python -m paxml.tools.dump_input_specs EXP`."""

import sys
from collections.abc import Sequence

from paxml.experiment.base import BaseExperiment
from paxml.launch.commands.common import experiment_from_arguments
from paxml.trainer.files import input_specs_text


def batch_specs_text(experiment: BaseExperiment) -> str:
    """Shapes and dtypes of a training batch of one process, as in `input_specs.json`."""
    provider = experiment.get_input_specs_provider_params().Instantiate()
    return input_specs_text(provider.get_input_specs())


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the text; returns the exit code."""
    experiment, _ = experiment_from_arguments("dump_input_specs", __doc__, arguments)
    print(batch_specs_text(experiment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
