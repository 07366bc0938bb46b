"""Prints the config of an experiment: `python -m paxml.tools.dump_hparams EXP`.

With `--post_init` also the config of every layer as built, and its variables.
"""

import sys
from collections.abc import Sequence

from paxml.experiment.base import BaseExperiment
from paxml.launch.commands.common import experiment_from_arguments
from paxml.launch.train import hparams_text
from paxml.trainer.files import post_init_text
from paxml.trainer.init import create_train_state_metadata, get_train_input_specs_for_model_init
from praxis import pax_fiddle


def post_init_hparams_text(experiment: BaseExperiment) -> str:
    """The config of every layer as built, and the `WeightHParams` of every variable, as text."""
    task = pax_fiddle.instantiate(experiment.task())
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    return post_init_text(task.model, create_train_state_metadata(task, specs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the texts; returns the exit code."""
    experiment, options = experiment_from_arguments(
        "dump_hparams", __doc__, arguments, switches={"post_init": "layers as built, too"}
    )
    print(hparams_text(experiment))
    if options.post_init:
        print(post_init_hparams_text(experiment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
