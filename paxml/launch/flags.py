"""The command-line flags of `python -m paxml.main` and `pax train`."""

from absl import flags
from fiddle import absl_flags as fiddle_flags  # defines --fdl_config, --fdl_set, --fiddler too

from paxml.summary.writer import DEFAULT_WRITERS, writer_kinds

MODES = ("train", "eval", "decode", "decode_once", "infer")

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "exp", None, "Name of the experiment: registered, or module.Class of an importable module."
)
flags.DEFINE_multi_string(
    "set",
    [],
    "Setting of the experiment, PATH=VALUE: a class attribute in capitals, or a field of the "
    "task's config such as train.num_train_steps. Repeatable.",
)
fiddle_flags.DEFINE_fiddle_config(
    "fdl",
    help_string="In place of --exp, a config of an experiment: config:my_module.make_config, then "
    "set:PATH=VALUE and fiddler:FUNCTION as often as needed.",
    allow_imports=True,
)
flags.DEFINE_string("job_log_dir", None, "Directory for everything that a run writes.")
flags.DEFINE_enum("mode", "train", MODES, "What to do.")
flags.DEFINE_bool("eval_on_test", False, "Evaluate on the evaluation inputs while training.")
flags.DEFINE_bool("decode_during_train", False, "Decode while training.")
flags.DEFINE_bool("eval_during_decode", False, "Evaluate too in a decoding job.")
flags.DEFINE_bool("enable_checkpoint_saving", True, "Write checkpoints.")
flags.DEFINE_bool("jax_fully_async_checkpoint", False, "Write checkpoints while training goes on.")
flags.DEFINE_integer("async_timeout_secs", 600, "Kept for old scripts: a save is waited for.")
flags.DEFINE_bool(
    "exit_after_ondemand_checkpoint", False, "Exit with code 1 after a termination signal."
)
flags.DEFINE_bool("tensorstore_use_ocdbt", False, "Not available.")
flags.DEFINE_bool("enforce_restore_shape_check", False, "Always on; kept for old scripts.")
flags.DEFINE_string(
    "checkpoint_todelete_subdir",
    None,
    "Directory that old checkpoints are moved into, not deleted.",
)
flags.DEFINE_string("restore_checkpoint_dir", None, "Directory of checkpoints, to decode.")
flags.DEFINE_multi_integer("restore_checkpoint_step", None, "Steps of checkpoints, to decode.")
flags.DEFINE_bool("decode_output_pickle", True, "Write a pickle beside the JSON lines.")
flags.DEFINE_bool(
    "globally_use_hardware_rng",
    True,
    "Use the `rbg` generator on accelerators. CPUs keep threefry, whose numbers do not depend on "
    "how arrays are split.",
)
flags.DEFINE_bool("enable_summary_writer", True, "Write summaries.")
flags.DEFINE_list(
    "summary_writers",
    list(DEFAULT_WRITERS),
    f"Where summaries go, a list of {', '.join(writer_kinds())}.",
)
flags.DEFINE_string(
    "compilation_cache_dir",
    None,
    "Directory where compiled programs are kept for the next start; by default they are not.",
)
flags.DEFINE_integer("jax_profiler_port", None, "Port of the profiler's server.")
flags.DEFINE_bool(
    "multiprocess_gpu",
    False,
    "Start several processes even if the cluster is not recognised: with the next three flags, "
    "or as JAX finds out.",
)
flags.DEFINE_string("server_addr", None, "Address of the coordinator, host:port.")
flags.DEFINE_integer("num_hosts", 1, "Number of processes.")
flags.DEFINE_integer("host_idx", 0, "Number of this process, from 0.")
flags.DEFINE_bool(
    "detect_cluster", True, "Ask the environment (Slurm, Kubernetes, ...) for the processes."
)
flags.DEFINE_integer(
    "heartbeat_timeout_secs",
    100,
    "A process that has not been heard of for so long is taken for dead, and ends the others.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "startup_random_jitter_max_secs", 60, "Longest random wait at the start of large jobs, seconds."
)
flags.DEFINE_bool("enable_auto_sharding", False, "Not available.")
flags.DEFINE_bool("maybe_use_persistence_checkpointing", False, "Not available.")
