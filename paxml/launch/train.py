"""Training of an experiment, from its class to its last checkpoint."""

from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from etils import epath

from paxml.checkpoint.kinds import retrieve_checkpoint_type
from paxml.checkpoint.manager import Checkpointer
from paxml.checkpoint.retention import parse_duration
from paxml.experiment.base import BaseExperiment
from paxml.experiment.class_vars import get_cls_vars_summary
from paxml.experiment.hparams import hparams_of
from paxml.partitioning.create import create_experiment_or_default_partitioner
from paxml.program.executor import DefaultExecutor
from paxml.program.lock import exclusive_use
from paxml.task.settings import Train
from paxml.task.single_task import SingleTask
from paxml.task.unbuilt import refuse_unbuilt_settings
from paxml.trainer.dtypes import forward_dtype
from paxml.trainer.files import write_text
from paxml.trainer.types import RunningMode
from praxis import base_hyperparams, pax_fiddle

OCDBT_HINT = "Checkpoints are written without OCDBT; leave tensorstore_use_ocdbt off."


def train_and_evaluate(
    experiment_config: BaseExperiment,
    job_log_dir: epath.PathLike,
    maybe_use_persistence_checkpointing: bool = False,
    eval_on_test: bool = False,
    checkpoint_todelete_subdir: str | None = None,
    early_stopping_fn: Callable[..., bool] | None = None,
    run_decode: bool = False,
    enable_auto_sharding: bool = False,
    enable_async_checkpointing: bool = False,
    enable_checkpoint_saving: bool = True,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
    exit_after_ondemand_checkpoint: bool = False,
    override_num_train_steps: int | None = None,
    enable_summary_writer: bool = True,
    async_timeout_secs: int | None = None,
    train_first_result_callback_fn: Callable[[Any], None] | None = None,
) -> None:
    """Trains an experiment, from its newest checkpoint if there is one.

    Args:
      experiment_config: The experiment.
      job_log_dir: Where checkpoints, summaries and texts go.
      maybe_use_persistence_checkpointing: Not available.
      eval_on_test: Whether to evaluate on the experiment's evaluation inputs while training.
      checkpoint_todelete_subdir: Directory in `checkpoints` that old ones are moved into, in place
        of being deleted.
      early_stopping_fn: Called after each step; True ends training.
      run_decode: Whether to decode while training.
      enable_auto_sharding: Not available.
      enable_async_checkpointing: Whether arrays are written while training goes on.
      enable_checkpoint_saving: Whether checkpoints are written.
      enforce_restore_shape_check: Has no effect: a checkpoint of other shapes is always refused.
      tensorstore_use_ocdbt: Not available.
      exit_after_ondemand_checkpoint: Whether a termination signal ends with exit code 1.
      override_num_train_steps: In place of the task's `num_train_steps`.
      enable_summary_writer: Whether event files are written.
      async_timeout_secs: Has no effect: a save is waited for however long it takes.
      train_first_result_callback_fn: Called with the loss of the first step.

    Raises:
      ValueError: for a wrong experiment, config or log directory.
      TrainingStopped: after SIGINT or SIGTERM, when a checkpoint is complete.
      DirectoryInUseError: if another run trains in the log directory.
      InputExhaustedError: if the training data ends early; the last state is saved.
      CheckpointSaveError: if a checkpoint cannot be written; those before it are as they were.
      CheckpointMismatchError: if the newest checkpoint holds other arrays than the task wants.
    """
    del enforce_restore_shape_check, async_timeout_secs
    if tensorstore_use_ocdbt:
        raise NotImplementedError(OCDBT_HINT)
    job_log_dir = writable_directory(job_log_dir)
    task_config = experiment_config.task().clone()
    if override_num_train_steps is not None:
        task_config.train.num_train_steps = override_num_train_steps
    train_input_p = _train_input(experiment_config)
    task = pax_fiddle.instantiate(task_config)
    refuse_unbuilt_settings(task)
    forward_dtype(task.model)

    checkpoint_type = retrieve_checkpoint_type(maybe_use_persistence_checkpointing, task)
    partitioner = create_experiment_or_default_partitioner(
        experiment_config=experiment_config,
        jax_task=task,
        running_mode=RunningMode.TRAIN,
        checkpoint_type=checkpoint_type,
        input_p=train_input_p,
        enable_auto_sharding=enable_auto_sharding,
    )
    provider = experiment_config.get_input_specs_provider_params().Instantiate()
    train_program = experiment_config.train_programs()[0]
    if train_first_result_callback_fn is not None:
        train_program.register_first_result_callback_fn(train_first_result_callback_fn)
    executor = experiment_config.executor() or DefaultExecutor()
    with exclusive_use(job_log_dir):
        executor.setup(
            task,
            job_log_dir,
            _open_checkpoints(
                job_log_dir / "checkpoints",
                task.train,
                async_save=enable_async_checkpointing,
                saves=enable_checkpoint_saving,
                todelete_subdir=checkpoint_todelete_subdir,
            ),
            partitioner,
            provider,
            _with_checkpoints(partitioner.preprocess_input_config(train_input_p), task.train),
            train_program,
            _eval_programs(experiment_config, task, eval_on_test),
            _decode_programs(experiment_config, task, run_decode),
            early_stopping_fn,
            exit_after_ondemand_checkpoint=exit_after_ondemand_checkpoint,
            enable_summary_writer=enable_summary_writer,
        )
        if isinstance(executor, DefaultExecutor):  # others may leave the program alone
            train_program.text_writer.add_hparams(hparams_of(experiment_config, task_config))
        executor.start()


def write_experiment_class_vars_file(
    exp_cls: type, job_log_dir: epath.PathLike, filename_prefix: str = ""
) -> None:
    """Writes the class variables of an experiment to `experiment_cls_vars.txt`."""
    name = f"{filename_prefix}experiment_cls_vars.txt"
    write_text(job_log_dir, name, get_cls_vars_summary(exp_cls))


def write_hparams_file(
    model_config: BaseExperiment, job_log_dir: epath.PathLike, filename_prefix: str = ""
) -> None:
    """Writes the configs of inputs and task to `model_params.txt`.

    A file with other content is kept beside it as `model_params.txt.1` and so on, with a warning.
    """
    name = f"{filename_prefix}model_params.txt"
    text = hparams_text(model_config)
    old = epath.Path(job_log_dir) / name
    if jax.process_index() == 0 and old.exists() and old.read_text() != text:
        kept = _free_name(old)
        old.rename(kept)
        logging.warning("The config differs from the last start, which is kept in %s.", kept)
    write_text(job_log_dir, name, text)


def hparams_text(experiment: BaseExperiment) -> str:
    """The configs of inputs, decoding inputs and task as text, a field a line."""
    to_text = base_hyperparams.nested_struct_to_text
    parts = [
        "".join(to_text(dataset) for dataset in experiment.datasets()),
        "".join(to_text(dataset) for dataset in experiment.decode_datasets()),
        to_text(experiment.task()),
    ]
    return "\n".join(parts)


def writable_directory(job_log_dir: epath.PathLike) -> epath.Path:
    """The log directory, made if needed.

    Raises:
      ValueError: if nothing can be written there.
    """
    path = epath.Path(job_log_dir)
    probe = path / f".writable_{jax.process_index()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"Cannot write to job_log_dir {str(path)!r}: {error.strerror or error}. Give a "
            "directory that this user may write to."
        ) from error
    return path


def _train_input(experiment: BaseExperiment) -> Any:
    datasets = list(experiment.train_datasets())
    if not datasets:
        raise ValueError(
            f"{type(experiment).__name__} has no training dataset. Return one with is_training = "
            "True from datasets()."
        )
    for dataset in experiment.datasets():
        if not isinstance(dataset, pax_fiddle.Config):
            raise ValueError(
                f"{type(experiment).__name__}.datasets() returned a {type(dataset).__name__}, "
                "expected configs of inputs: pax_fiddle.Config(MyInput, ...)."
            )
    return datasets[0]


def _with_checkpoints(input_p: Any, train: Train) -> Any:
    """The config of an input that is told whether its position is saved."""
    if not train.enable_input_checkpointing:
        return input_p
    return input_p.clone().set(input_checkpointing_enabled=True)


def _open_checkpoints(
    directory: epath.Path,
    train: Train,
    *,
    async_save: bool,
    saves: bool,
    todelete_subdir: str | None,
) -> Checkpointer:
    if saves:
        writable_directory(directory)
    else:
        directory.mkdir(parents=True, exist_ok=True)
    return Checkpointer(
        directory,
        save_interval_steps=train.save_interval_steps,
        max_to_keep=train.save_max_to_keep,
        keep_time_interval=parse_duration(train.save_keep_interval_duration or ""),
        async_save=async_save,
        read_only=not saves,
        todelete_subdir=todelete_subdir,
    )


def _eval_programs(experiment: BaseExperiment, task: SingleTask, wanted: bool) -> list[Any]:
    return list(experiment.eval_programs()) if wanted and task.train.eval_interval_steps else []


def _decode_programs(experiment: BaseExperiment, task: SingleTask, wanted: bool) -> list[Any]:
    return list(experiment.decode_programs()) if wanted and task.train.decode_interval_steps else []


def _free_name(path: epath.Path) -> epath.Path:
    number = 1
    while (candidate := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return candidate
