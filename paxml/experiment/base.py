"""What to train, on what data: the object that a user's experiment class is."""

import abc
import warnings
from collections.abc import Sequence
from typing import Any

from paxml.partitioning.base import Partitioner
from paxml.program.base import Program
from paxml.program.base_executor import BaseExecutor
from paxml.program.decode import SingleTaskDecodeProgram
from paxml.program.evaluate import BaseEvalProgram, SingleTaskEvalProgram
from paxml.program.train import BaseTrainProgram, SingleTaskTrainProgram
from praxis import base_input, pax_fiddle

InputConfigs = Sequence[pax_fiddle.Config[base_input.BaseInput]]


class BaseExperiment(abc.ABC):
    """An experiment: constructed without arguments, settings as class attributes in capitals.

    Each call of a method may build new configs; callers neither share nor change what they get.

    Example:
      >>> from paxml import experiment_registry
      >>> @experiment_registry.register
      ... class Tiny(BaseExperiment):
      ...     LEARNING_RATE = 0.1
      ...
      ...     def datasets(self):
      ...         return []
      ...
      ...     def task(self):
      ...         raise NotImplementedError
      >>> experiment_registry.get("Tiny").LEARNING_RATE
      0.1
    """

    @abc.abstractmethod
    def datasets(self) -> InputConfigs:
        """Configs of all training and evaluation inputs; `is_training` tells them apart."""

    @abc.abstractmethod
    def task(self) -> Any:
        """Config of the task, usually a `tasks_lib.SingleTask`."""

    def train_datasets(self) -> InputConfigs:
        """The inputs to train on; the trainer uses the first."""
        return [dataset for dataset in self.datasets() if dataset.is_training]

    def eval_datasets(self) -> InputConfigs:
        """The inputs to evaluate on."""
        return [dataset for dataset in self.datasets() if not dataset.is_training]

    def decode_datasets(self) -> InputConfigs:
        """The inputs to decode; none by default."""
        if type(self).decoder_datasets is not BaseExperiment.decoder_datasets:
            return self.decoder_datasets()
        return []

    def decoder_datasets(self) -> InputConfigs:
        """Old name of `decode_datasets`."""
        warnings.warn(
            "decoder_datasets is deprecated; use decode_datasets.", DeprecationWarning, stacklevel=2
        )
        return []

    def training_dataset(self) -> pax_fiddle.Config[base_input.BaseInput]:
        """The one training input. Deprecated: use `train_datasets`.

        Raises:
          ValueError: if there is none, or several.
        """
        warnings.warn(
            "training_dataset is deprecated; use train_datasets.", DeprecationWarning, stacklevel=2
        )
        return self._only_training_input()

    def get_input_specs_provider_params(
        self,
    ) -> pax_fiddle.Config[base_input.BaseInputSpecsProvider]:
        """Config of the object that knows the shapes of a batch.

        By default it draws one batch from a second instance of the training input; override it
        with something cheaper when that input is expensive to open.
        """
        return pax_fiddle.Config(
            base_input.DatasetInputSpecsProvider, input_p=self._only_training_input()
        )

    def validate(self) -> None:  # noqa: B027  # a hook that may stay empty
        """Hook for checks of the settings; called once after construction by `paxml.main`."""

    def search(self) -> Any:
        """The search algorithm of a tuning experiment."""
        raise NotImplementedError(
            f"{type(self).__name__} is not a tuning experiment: it has no search()."
        )

    def sub_experiments(self) -> dict[str, type["BaseExperiment"]]:
        """Experiments run in one trial of a tuning experiment, by name."""
        return {"": type(self)}

    def partitioner(self) -> Partitioner | None:
        """How to place state and steps on devices; None leaves it to the trainer."""
        return None

    def executor(self) -> BaseExecutor | None:
        """The object that interleaves the programs; None is the default executor."""
        return None

    def train_programs(self) -> Sequence[BaseTrainProgram]:
        """The training program; only the first is used."""
        return [SingleTaskTrainProgram()]

    def eval_programs(self) -> Sequence[BaseEvalProgram]:
        """One program for each input of `eval_datasets`, in order."""
        return [SingleTaskEvalProgram(dataset) for dataset in self.eval_datasets()]

    def decode_programs(self) -> Sequence[Program]:
        """One program for each input of `decode_datasets`, in order."""
        return [SingleTaskDecodeProgram(dataset) for dataset in self.decode_datasets()]

    def _only_training_input(self) -> pax_fiddle.Config[base_input.BaseInput]:
        found = self.train_datasets()
        if len(found) != 1:
            raise ValueError(
                f"{type(self).__name__} has {len(found)} training datasets, expected exactly one. "
                "Set is_training = True on one dataset, or override "
                "get_input_specs_provider_params()."
            )
        return found[0]
