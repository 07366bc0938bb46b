"""An experiment whose parts are given to its constructor."""

import warnings
from collections.abc import Sequence
from typing import Any

from paxml.experiment.base import BaseExperiment
from praxis import base_input, pax_fiddle

InputConfigs = Sequence[pax_fiddle.Config[base_input.BaseInput]]


class ParameterizedExperiment(BaseExperiment):
    """An experiment made of configs, for use without a class of one's own.

    Example:
      >>> from paxml import tasks_lib
      >>> train = pax_fiddle.Config(base_input.BaseInput, name="train", is_training=True)
      >>> experiment = ParameterizedExperiment(
      ...     task=pax_fiddle.Config(tasks_lib.SingleTask, name="mine"), train_datasets=[train]
      ... )
      >>> [dataset.name for dataset in experiment.datasets()]
      ['train']
    """

    def __init__(
        self,
        *,
        task: pax_fiddle.Config[Any],
        train_datasets: InputConfigs = (),
        eval_datasets: InputConfigs = (),
        decode_datasets: InputConfigs = (),
        input_specs_provider: pax_fiddle.Config[base_input.BaseInputSpecsProvider] | None = None,
        training_dataset: pax_fiddle.Config[base_input.BaseInput] | None = None,
        decoder_datasets: InputConfigs = (),
    ) -> None:
        """Takes the parts.

        Args:
          task: Config of the task.
          train_datasets: Configs of inputs with `is_training` True; the trainer uses the first.
          eval_datasets: Configs of inputs to evaluate on.
          decode_datasets: Configs of inputs to decode.
          input_specs_provider: Config of what knows the shapes of a batch; by default one batch of
            the only training input is looked at.
          training_dataset: Old name for one more training input.
          decoder_datasets: Old name for more inputs to decode.

        Raises:
          ValueError: if `is_training` of a dataset does not fit the list that it is in.
        """
        if training_dataset is not None:
            _warn_old_name("training_dataset", "train_datasets")
            train_datasets = [*train_datasets, training_dataset]
        if decoder_datasets:
            _warn_old_name("decoder_datasets", "decode_datasets")
            decode_datasets = [*decode_datasets, *decoder_datasets]
        _check_use("train_datasets", train_datasets, is_training=True)
        _check_use("eval_datasets", eval_datasets, is_training=False)
        _check_use("decode_datasets", decode_datasets, is_training=False)
        self._task = task
        self._train_datasets = list(train_datasets)
        self._eval_datasets = list(eval_datasets)
        self._decode_datasets = list(decode_datasets)
        self._input_specs_provider = input_specs_provider

    def task(self) -> Any:
        return self._task

    def datasets(self) -> InputConfigs:
        return [*self._train_datasets, *self._eval_datasets]

    def train_datasets(self) -> InputConfigs:
        return list(self._train_datasets)

    def eval_datasets(self) -> InputConfigs:
        return list(self._eval_datasets)

    def decode_datasets(self) -> InputConfigs:
        return list(self._decode_datasets)

    def get_input_specs_provider_params(
        self,
    ) -> pax_fiddle.Config[base_input.BaseInputSpecsProvider]:
        if self._input_specs_provider is not None:
            return self._input_specs_provider
        return super().get_input_specs_provider_params()


def _check_use(field: str, datasets: InputConfigs, *, is_training: bool) -> None:
    for index, dataset in enumerate(datasets):
        if bool(dataset.is_training) != is_training:
            raise ValueError(
                f"{field}[{index}], dataset {dataset.name!r}, has is_training = "
                f"{dataset.is_training}, expected {is_training}. Set it, or put the dataset in "
                "another list."
            )


def _warn_old_name(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated; use {new}.", DeprecationWarning, stacklevel=3)
