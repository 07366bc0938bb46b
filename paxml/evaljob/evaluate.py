"""Evaluation and decoding jobs: beside a training, or after it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from paxml.checkpoint.kinds import retrieve_checkpoint_type
from paxml.checkpoint.steps import UnreadableCheckpointError
from paxml.evaljob.job import EvaluationJob, MissingCheckpointError, input_specs
from paxml.evaljob.polling import NewCheckpoints, Polling, latest_step
from paxml.experiment.base import BaseExperiment
from paxml.output.formats import EvaluationMode
from paxml.partitioning.base import Partitioner
from paxml.partitioning.create import create_experiment_or_default_partitioner
from paxml.task.single_task import SingleTask
from paxml.trainer.dtypes import forward_dtype
from paxml.trainer.files import write_post_init_model_hparams_file
from paxml.trainer.types import RunningMode
from praxis import pax_fiddle, py_utils

Steps = int | Sequence[int] | None


def evaluate(
    experiment_config: BaseExperiment,
    job_log_dir: epath.PathLike,
    maybe_use_persistence_checkpointing: bool = False,
    restore_checkpoint_dir: epath.PathLike | None = None,
    restore_checkpoint_step: Steps = None,
    early_stopping_fn: Callable[..., bool] | None = None,
    enable_auto_sharding: bool = False,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
    enable_summary_writer: bool = True,
    polling: Polling | None = None,
) -> None:
    """Evaluates the checkpoints of a run, each new one until training ends.

    The newest checkpoint comes first; while training goes on, the newest one after each
    evaluation. The job ends with the last checkpoint: that of `num_train_steps`, or the newest one
    when training has stopped early, or has given no sign of life for a long time.

    The moving average of the weights is used whenever the learner keeps one.

    Args:
      experiment_config: The experiment.
      job_log_dir: Of the run; summaries and outputs go there.
      maybe_use_persistence_checkpointing: Not available.
      restore_checkpoint_dir: Directory of the checkpoints; None is that of the run.
      restore_checkpoint_step: Steps to evaluate, and no others; None is as above.
      early_stopping_fn: Called after each checkpoint; True ends the job.
      enable_auto_sharding: Not available.
      enforce_restore_shape_check: Has no effect: a checkpoint of other shapes is always refused.
      tensorstore_use_ocdbt: Has no effect: what a checkpoint is written with is found out.
      enable_summary_writer: Whether event files are written.
      polling: How long to wait.

    Raises:
      TimeoutError: if there is no checkpoint after a long time.
      ValueError: if there is no checkpoint of a step that was asked for.
    """
    del enforce_restore_shape_check, tensorstore_use_ocdbt
    programs = list(experiment_config.eval_programs())
    if not programs:
        logging.info("%s has no evaluation datasets.", type(experiment_config).__name__)
        return
    task, partitioner = _place(
        experiment_config,
        RunningMode.EVAL,
        experiment_config.eval_datasets(),
        maybe_use_persistence_checkpointing,
        enable_auto_sharding,
    )
    job = EvaluationJob(
        task,
        partitioner,
        job_log_dir,
        restore_checkpoint_dir or epath.Path(job_log_dir) / "checkpoints",
        mode=EvaluationMode.EVAL,
        eval_programs=programs,
        early_stopping_fn=early_stopping_fn,
    )
    with job:
        job.set_up_programs(task.evaluate.random_seed, enable_summary_writer=enable_summary_writer)
        found = NewCheckpoints(job.checkpoint_dir, task.train.num_train_steps, polling or Polling())
        if restore_checkpoint_step is not None:
            _run_steps(job, _as_list(restore_checkpoint_step))
        else:
            _run_continuously(job, found, job.first_step(found.first()))
    py_utils.sync_global_devices("finished")


def decode(
    experiment_config: BaseExperiment,
    job_log_dir: epath.PathLike,
    maybe_use_persistence_checkpointing: bool,
    restore_checkpoint_dir: epath.PathLike | None,
    restore_checkpoint_step: Steps,
    continuous_decode: bool,
    run_eval: bool = False,
    early_stopping_fn: Callable[..., bool] | None = None,
    enable_auto_sharding: bool = False,
    output_pickle: bool = True,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
    enable_summary_writer: bool = True,
    polling: Polling | None = None,
) -> None:
    """Decodes checkpoints of a run: some steps once, or each new one until training ends.

    Args:
      experiment_config: The experiment.
      job_log_dir: Of the run; summaries and outputs go there.
      maybe_use_persistence_checkpointing: Not available.
      restore_checkpoint_dir: Directory of the checkpoints; None is that of the run.
      restore_checkpoint_step: A step or several; None is the newest. Not with `continuous_decode`.
      continuous_decode: Whether to go on with new checkpoints, as `evaluate` does.
      run_eval: Whether to run the evaluation programs too, after decoding.
      early_stopping_fn: Called after each checkpoint; True ends the job.
      enable_auto_sharding: Not available.
      output_pickle: Whether a pickle is written beside the JSON lines.
      enforce_restore_shape_check: Has no effect: a checkpoint of other shapes is always refused.
      tensorstore_use_ocdbt: Has no effect: what a checkpoint is written with is found out.
      enable_summary_writer: Whether event files are written.
      polling: How long to wait.

    Raises:
      TimeoutError: if there is no checkpoint after a long time, with `continuous_decode`.
      ValueError: if there is no checkpoint, or none of a step that was asked for; also for steps
        together with `continuous_decode`.
    """
    del enforce_restore_shape_check, tensorstore_use_ocdbt
    if continuous_decode and restore_checkpoint_step is not None:
        raise ValueError(
            f"restore_checkpoint_step = {restore_checkpoint_step} asks for certain steps, but a "
            "continuous decoding takes each new one. Use --mode=decode_once, or leave it out."
        )
    decode_programs = list(experiment_config.decode_programs())
    eval_programs = list(experiment_config.eval_programs()) if run_eval else []
    if not decode_programs and not eval_programs:
        logging.info("%s has no decoding datasets.", type(experiment_config).__name__)
        return
    task, partitioner = _place(
        experiment_config,
        RunningMode.DECODE,
        [*experiment_config.decode_datasets(), *experiment_config.eval_datasets()],
        maybe_use_persistence_checkpointing,
        enable_auto_sharding,
    )
    write_post_init_model_hparams_file(
        task.model,
        partitioner.get_train_state_metadata(discard_opt_states=True),
        epath.Path(job_log_dir) / EvaluationMode.DECODE.output_dir_name,
        do_eval=True,
    )
    job = EvaluationJob(
        task,
        partitioner,
        job_log_dir,
        restore_checkpoint_dir or epath.Path(job_log_dir) / "checkpoints",
        mode=EvaluationMode.DECODE,
        eval_programs=eval_programs,
        decode_programs=decode_programs,
        early_stopping_fn=early_stopping_fn,
    )
    with job:
        job.set_up_programs(
            task.decode.random_seed,
            output_pickle=output_pickle,
            enable_summary_writer=enable_summary_writer,
        )
        if continuous_decode:
            found = NewCheckpoints(
                job.checkpoint_dir, task.train.num_train_steps, polling or Polling()
            )
            first = found.first(task.train.decode_start_after_n_steps)
            _run_continuously(job, found, job.first_step(first))
        else:
            _run_steps(job, _as_list(restore_checkpoint_step) or [latest_step(job.checkpoint_dir)])
    py_utils.sync_global_devices("finished")


def _place(
    experiment: BaseExperiment,
    mode: RunningMode,
    datasets: Sequence[Any],
    maybe_use_persistence_checkpointing: bool,
    enable_auto_sharding: bool,
) -> tuple[SingleTask, Partitioner]:
    """The task, and a partitioner that knows it."""
    task = pax_fiddle.instantiate(experiment.task())
    forward_dtype(task.model)
    partitioner = create_experiment_or_default_partitioner(
        experiment_config=experiment,
        jax_task=task,
        running_mode=mode,
        checkpoint_type=retrieve_checkpoint_type(maybe_use_persistence_checkpointing, task),
        input_p=datasets[0],
        enable_auto_sharding=enable_auto_sharding,
        init_is_eval=True,
    )
    seed = jax.random.PRNGKey(task.train.random_seed)
    partitioner.setup(task, seed, input_specs(experiment, task, datasets[0]))
    return task, partitioner


def _run_steps(job: EvaluationJob, steps: Sequence[int]) -> None:
    for step in steps:
        if job.run(step, is_last=step == steps[-1]):
            return


def _run_continuously(job: EvaluationJob, found: NewCheckpoints, start: int) -> None:
    step: int | None = start
    while step is not None:
        try:
            is_last = found.end_of_training(step) is not None
            if job.run(step, is_last=is_last):
                logging.info("Early stopping at step %d.", step)
                return
        except (MissingCheckpointError, UnreadableCheckpointError):
            # Training may have deleted it meanwhile; then there is a newer one.
            latest = found.latest()
            if latest is None or latest <= step:
                raise
            logging.warning("The checkpoint of step %d is gone; taking %d.", step, latest)
            step = latest
            continue
        step = found.newer_than(step)


def _as_list(steps: Steps) -> list[int]:
    if steps is None:
        return []
    return [steps] if isinstance(steps, int) else list(steps)
