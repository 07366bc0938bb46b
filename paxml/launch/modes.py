"""The modes of the command line that train nothing."""

from collections.abc import Callable
from typing import Any

from etils import epath

from paxml.evaljob.evaluate import decode, evaluate
from paxml.evaljob.infer import infer_and_write
from paxml.experiment.base import BaseExperiment
from paxml.launch.flags import FLAGS
from paxml.launch.train import write_experiment_class_vars_file, write_hparams_file

MODES = ("eval", "decode", "decode_once", "infer")


def run_job(
    mode: str,
    experiment: BaseExperiment,
    job_log_dir: epath.Path,
    early_stopping_fn: Callable[..., bool] | None,
) -> None:
    """Writes the config of an experiment and runs a job on its checkpoints.

    Args:
      mode: One of `MODES`.
      experiment: The experiment.
      job_log_dir: The log directory of the training.
      early_stopping_fn: Called after each checkpoint; True ends the job.
    """
    write_experiment_class_vars_file(type(experiment), job_log_dir, f"{mode}_")
    write_hparams_file(experiment, job_log_dir, f"{mode}_")
    common: dict[str, Any] = {
        "early_stopping_fn": early_stopping_fn,
        "enable_auto_sharding": FLAGS.enable_auto_sharding,
        "enforce_restore_shape_check": FLAGS.enforce_restore_shape_check,
        "tensorstore_use_ocdbt": FLAGS.tensorstore_use_ocdbt,
        "enable_summary_writer": FLAGS.enable_summary_writer,
    }
    if mode == "infer":
        infer_and_write(experiment, job_log_dir)
    elif mode == "eval":
        evaluate(experiment, job_log_dir, FLAGS.maybe_use_persistence_checkpointing, **common)
    else:
        decode(
            experiment,
            job_log_dir,
            FLAGS.maybe_use_persistence_checkpointing,
            FLAGS.restore_checkpoint_dir,
            FLAGS.restore_checkpoint_step,
            continuous_decode=mode == "decode",
            run_eval=FLAGS.eval_during_decode,
            output_pickle=FLAGS.decode_output_pickle,
            **common,
        )
