"""Inference jobs: one record for each example of the decoding datasets."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath

from paxml.checkpoint.kinds import retrieve_checkpoint_type
from paxml.evaljob.job import input_specs, restore_for_evaluation
from paxml.evaljob.polling import latest_step
from paxml.evaljob.runner import BaseInferenceRunner
from paxml.experiment.base import BaseExperiment
from paxml.output.sharded import ShardedParallelWriter, check_format
from paxml.partitioning.base import Partitioner
from paxml.partitioning.create import create_experiment_or_default_partitioner
from paxml.program.batches import global_batch_size, with_texts
from paxml.program.eval_batches import eval_batches
from paxml.task.single_task import SingleTask
from paxml.train_states import TrainState
from paxml.trainer import dtypes
from paxml.trainer.inputs import check_unique_names, get_input_partition_specs
from paxml.trainer.types import BaseStepFnStaticArgs, RunningMode, StepFnOutput
from praxis import base_layer, pax_fiddle, py_utils
from praxis.utils import trees


def infer_and_write(
    experiment_config: BaseExperiment,
    job_log_dir: epath.PathLike,
    enforce_restore_shape_check: bool = False,
    tensorstore_use_ocdbt: bool = False,
) -> None:
    """Runs the task's inference runner over the decoding datasets, on any mesh.

    The records of an input go to `output/<input>/output.jsonl-00000-of-00032` and so on.

    Args:
      experiment_config: The experiment; its task has an `infer_writer`.
      job_log_dir: Where the records go.
      enforce_restore_shape_check: Has no effect: a checkpoint of other shapes is always refused.
      tensorstore_use_ocdbt: Has no effect: what a checkpoint is written with is found out.

    Raises:
      ValueError: without an `infer_writer` or its runner, without datasets or a checkpoint.
      NotImplementedError: for an output format other than JSON lines.
    """
    del enforce_restore_shape_check, tensorstore_use_ocdbt
    task = pax_fiddle.instantiate(experiment_config.task())
    _check(experiment_config, task)
    datasets = list(experiment_config.decode_datasets())
    partitioner = create_experiment_or_default_partitioner(
        experiment_config=experiment_config,
        jax_task=task,
        running_mode=RunningMode.DECODE,
        checkpoint_type=retrieve_checkpoint_type(False, task),
        input_p=datasets[0],
        enable_auto_sharding=False,
        init_is_eval=True,
    )
    root_key, init_key = jax.random.split(jax.random.PRNGKey(task.infer.random_seed))
    partitioner.setup(task, init_key, input_specs(experiment_config, task, datasets[0]))
    source = task.infer_writer.restore_checkpoint_dir or epath.Path(job_log_dir) / "checkpoints"
    step = task.infer_writer.restore_checkpoint_step
    state = restore_for_evaluation(
        task, partitioner, source, latest_step(source) if step is None else step
    )
    inputs = [partitioner.preprocess_input_config(config).Instantiate() for config in datasets]
    check_unique_names(inputs)
    for each in inputs:
        _infer_input(task, partitioner, state, root_key, each, epath.Path(job_log_dir))
    py_utils.sync_global_devices("finished")


def infer_and_write_pmap(
    task: Any, prng_key: Any, partitioner: Any, checkpointer: Any, inputs_p: Any, job_log_dir: Any
) -> None:
    """The old way without a mesh.

    Raises:
      NotImplementedError: always.
    """
    del task, prng_key, partitioner, checkpointer, inputs_p, job_log_dir
    raise NotImplementedError(
        "infer_and_write_pmap is gone with pmap. Call infer_and_write(experiment, job_log_dir), "
        "which works with and without a mesh."
    )


def _infer_input(
    task: SingleTask,
    partitioner: Partitioner,
    state: TrainState,
    key: jax.Array,
    source: Any,
    job_log_dir: epath.Path,
) -> None:
    axis_names = partitioner.global_mesh.axis_names
    static_args = BaseStepFnStaticArgs(unpadded_global_batch_size=global_batch_size(source))
    key = partitioner.preprocess_prng_key(key)
    settings, runner = task.infer_writer, task.inference_runner
    assert settings is not None
    path = job_log_dir / "output" / source.name / "output.jsonl"
    step, examples = None, 0
    batches = eval_batches(
        source,
        partitioner,
        lambda batch: get_input_partition_specs(axis_names, batch),
        what="Inference",
    )
    with contextlib.ExitStack() as opened:
        writer = None
        if jax.process_index() == 0:  # it has the outputs of all
            writer = opened.enter_context(
                ShardedParallelWriter(path, settings.output_num_shards, settings.output_format)
            )
        for batch, texts in batches:
            if step is None:
                step, _ = partitioner.partition(
                    _step_of(runner), trees.get_shape_dtype(batch), is_eval=True
                )
            _, out = step(state, key, batch, static_args)
            if writer is not None:
                records = runner.serialize_outputs(with_texts(out.per_example_out, texts))
                examples += len(records)
                writer.write(records)
    logging.info("Wrote %d records of input %s beside %s.", examples, source.name, path)


def _step_of(runner: BaseInferenceRunner) -> Any:
    """The step that a partitioner compiles."""

    def infer_step(
        jax_task: SingleTask,
        train_state: TrainState,
        prng_key: jax.Array,
        inputs: Any,
        fprop_dtype: Any = jnp.float32,
        var_weight_hparams: Any = None,
        static_args: BaseStepFnStaticArgs | None = None,
    ) -> tuple[None, StepFnOutput]:
        del jax_task, static_args
        variables = dtypes.cast_variables(train_state.mdl_vars, var_weight_hparams, fprop_dtype)
        context = base_layer.JaxContext.HParams(do_eval=True)
        with base_layer.JaxContext.new_context(hparams=context):
            outputs = runner.infer(
                train_state.replace(mdl_vars=variables),
                prng_key,
                var_weight_hparams,
                dtypes.cast_inputs(inputs, fprop_dtype),
            )
        return None, StepFnOutput(
            loss=None,
            weighted_scalars={},
            per_example_out=dtypes.widen(outputs),
            summary_tensors={},
        )

    return infer_step


def _check(experiment: BaseExperiment, task: SingleTask) -> None:
    if task.infer_writer is None or task.inference_runner is None:
        raise ValueError(
            f"Task {task.name!r} has no inference runner. Set task_config.infer_writer = "
            "pax_fiddle.Config(InferWriter, inference_runner=pax_fiddle.Config(MyRunner))."
        )
    check_format(task.infer_writer.output_format)
    if not experiment.decode_datasets():
        raise ValueError(
            f"{type(experiment).__name__} has no decode_datasets(), which inference runs over."
        )
    dtypes.forward_dtype(task.model)
