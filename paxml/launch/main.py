"""The program behind `python -m paxml.main`."""

import logging as std_logging
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, logging
from fiddle import absl_flags as fiddle_flags

import paxml
import praxis
from paxml.experiment.base import BaseExperiment
from paxml.experiment.from_fiddle import experiment_of
from paxml.experiment.lookup import get_experiment
from paxml.experiment.settings import with_settings
from paxml.launch.flags import FLAGS
from paxml.launch.modes import run_job
from paxml.launch.processes import start_processes
from paxml.launch.train import (
    train_and_evaluate,
    writable_directory,
    write_experiment_class_vars_file,
    write_hparams_file,
)
from paxml.program.lock import exclusive_use
from paxml.summary.writer import using_summary_writers

LARGE_JOB = 128


def main(argv: Sequence[str]) -> None:
    """Runs what the flags say.

    Raises:
      app.UsageError: for positional arguments, or without --exp or --job_log_dir.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Too many arguments: {list(argv[1:])}. Use flags, --name=value.")
    show_own_messages()
    set_up_jax()
    if jax.process_index() != 0 and not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the first process says the same
    experiment_config = create_experiment_config()
    if FLAGS.job_log_dir is None:
        raise app.UsageError("--job_log_dir is missing: give a directory for what the run writes.")
    experiment_config.validate()
    run(
        experiment_config,
        enable_checkpoint_saving=FLAGS.enable_checkpoint_saving,
        startup_random_jitter_max_secs=FLAGS.startup_random_jitter_max_secs,
    )


def create_experiment_config() -> BaseExperiment:
    """The experiment that --exp names, or Fiddle's flags describe, with what --set says.

    Raises:
      app.UsageError: without any of these flags.
      ValueError: if there is no such experiment or setting.
    """
    if FLAGS.exp:
        return with_settings(get_experiment(FLAGS.exp), FLAGS.set)()
    if fiddle_flags.fdl_flags_supplied():
        config = fiddle_flags.create_buildable_from_flags(None, allow_imports=True)
        return experiment_of(config, FLAGS.set)
    if FLAGS.fdl is None:
        raise app.UsageError(
            "--exp is missing: give the name of an experiment, e.g. --exp=my_package.MyExperiment. "
            "`pax list` shows those that are registered. Or give a Fiddle config, as in "
            "--fdl=config:my_package.make_config."
        )
    return experiment_of(FLAGS.fdl, FLAGS.set)


def run(
    experiment_config: BaseExperiment,
    enable_checkpoint_saving: bool = True,
    startup_random_jitter_max_secs: int = 60,
) -> None:
    """Runs an experiment in the mode of the flags.

    Args:
      experiment_config: The experiment.
      enable_checkpoint_saving: Whether checkpoints are written.
      startup_random_jitter_max_secs: Longest random wait at the start of large jobs, seconds.
    """
    if jax.process_count() > LARGE_JOB:
        wait_with_random_jitter(0, startup_random_jitter_max_secs)
    with using_summary_writers(FLAGS.summary_writers):
        run_experiment(
            experiment_config,
            work_unit=None,
            job_log_dir=FLAGS.job_log_dir,
            enable_checkpoint_saving=enable_checkpoint_saving,
        )


def run_experiment(
    experiment_config: BaseExperiment,
    work_unit: Any,
    job_log_dir: Any,
    early_stopping_fn: Callable[..., bool] | None = None,
    enable_checkpoint_saving: bool = True,
) -> None:
    """Writes the config of an experiment and runs it in the mode of the flags.

    Args:
      experiment_config: The experiment.
      work_unit: Not used.
      job_log_dir: Where everything is written.
      early_stopping_fn: Called after each step; True ends training.
      enable_checkpoint_saving: Whether checkpoints are written.

    Raises:
      ValueError: for flags that do not belong to the mode.
    """
    del work_unit
    mode = FLAGS.mode
    given = [
        name for name in ("restore_checkpoint_dir", "restore_checkpoint_step") if FLAGS[name].value
    ]
    if given and not mode.startswith("decode"):
        raise ValueError(
            f"--{given[0]} belongs to the decoding modes, but --mode is {mode!r}. Training always "
            "continues from the newest checkpoint in job_log_dir."
        )
    job_log_dir = writable_directory(job_log_dir)
    if mode != "train":
        run_job(mode, experiment_config, job_log_dir, early_stopping_fn)
        return
    with exclusive_use(job_log_dir):  # these two files are those of the run that trains here
        write_experiment_class_vars_file(type(experiment_config), job_log_dir)
        write_hparams_file(experiment_config, job_log_dir)
    train_and_evaluate(
        experiment_config,
        job_log_dir,
        maybe_use_persistence_checkpointing=FLAGS.maybe_use_persistence_checkpointing,
        eval_on_test=FLAGS.eval_on_test,
        checkpoint_todelete_subdir=FLAGS.checkpoint_todelete_subdir,
        early_stopping_fn=early_stopping_fn,
        run_decode=FLAGS.decode_during_train,
        enable_auto_sharding=FLAGS.enable_auto_sharding,
        enable_async_checkpointing=FLAGS.jax_fully_async_checkpoint,
        enable_checkpoint_saving=enable_checkpoint_saving,
        tensorstore_use_ocdbt=FLAGS.tensorstore_use_ocdbt,
        exit_after_ondemand_checkpoint=FLAGS.exit_after_ondemand_checkpoint,
        enable_summary_writer=FLAGS.enable_summary_writer,
    )


def set_up_jax() -> None:
    """Starts what JAX needs, and sets where it keeps programs and how it draws random numbers."""
    start_processes()
    if FLAGS.jax_profiler_port is not None:
        jax.profiler.start_server(FLAGS.jax_profiler_port)
    if FLAGS.compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", FLAGS.compilation_cache_dir)
    if FLAGS.globally_use_hardware_rng and jax.default_backend() != "cpu":
        jax.config.update("jax_default_prng_impl", "rbg")
    logging.info("Devices: %s", jax.devices())


def wait_with_random_jitter(min_secs: int, max_secs: int) -> None:
    """Sleeps, so that many processes do not ask the same server at once."""
    time.sleep(random.uniform(min_secs, max_secs))


def show_own_messages() -> None:
    """Shows messages of this library from INFO on, and of others from WARNING on."""
    if not FLAGS["verbosity"].present:  # not given on the command line
        logging.set_verbosity(logging.INFO)
        own = tuple(f"{os.path.dirname(str(one.__file__))}{os.sep}" for one in (paxml, praxis))
        # absl's logger and outer handler ignore filters; the handler inside does not.
        logging.get_absl_handler().python_handler.addFilter(_Keep(own))


# Said at each save of several processes: of a step that other kinds of checkpoints need.
_NOISE = "Skipping merge of OCDBT checkpoints"


class _Keep(std_logging.Filter):
    """Drops what comes from elsewhere and is below WARNING, or known to mean nothing."""

    def __init__(self, directories: tuple[str, ...]) -> None:
        super().__init__()
        self._directories = directories

    def filter(self, record: std_logging.LogRecord) -> bool:
        if record.pathname.startswith(self._directories):
            return True
        return record.levelno >= std_logging.WARNING and _NOISE not in record.getMessage()
