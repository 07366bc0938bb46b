"""How often, how long, how random: the settings of training, evaluation and decoding.

Steps count updates of the weights. Intervals are in steps.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

from paxml.learner.learner import Learner
from paxml.task.rules import CheckpointLoadingRules
from praxis import base_layer, pax_fiddle

NON_PAX = base_layer.NON_PAX_VAR_COLLECTION
EVAL_DEFAULT_MUTABLE_LIST = [base_layer.AUX_LOSS, base_layer.SUMMARIES, base_layer.NON_TRAINABLE]
TRAIN_DEFAULT_MUTABLE_LIST = [*EVAL_DEFAULT_MUTABLE_LIST, *NON_PAX]
DECODE_DEFAULT_MUTABLE_LIST = [base_layer.DECODE_CACHE, base_layer.SUMMARIES]


class TrackDecoderMetricMode(str, enum.Enum):  # noqa: UP042  # a str enum in old configs
    """Whether a tracked decoder metric should be large or small."""

    MAX = "max"
    MIN = "min"


@dataclasses.dataclass(frozen=True)
class VariationalNoise:
    """Gaussian noise added to weights during training.

    Graves, "Practical Variational Inference for Neural Networks", 2011.

    Attributes:
      vn_scale: Standard deviation of the noise; 0 turns it off.
      vn_regex: Which variables get it: matched at the start of names like `params/lm/softmax/w`.
      vn_start_step: First step with noise.
    """

    vn_scale: float = 0.0
    vn_regex: str = ""
    vn_start_step: int = 0


@dataclasses.dataclass(frozen=True)
class Train:
    """Settings of training.

    Attributes:
      learner: Config of the learner: loss, optimizer, gradient clipping.
      num_train_steps: Number of updates, resumed ones included.
      save_interval_steps: Steps between checkpoints; step 0 and the last are always saved.
      save_keep_interval_duration: A checkpoint at least this much later than the last one kept
        for good is kept for good: a number with an optional s, m, h or d. '' is off.
      save_max_to_keep: How many of the newest checkpoints to keep; None keeps all.
      enable_input_checkpointing: False saves the position of the input with each checkpoint when
        the input supports it; True refuses an input that does not.
      max_inflight_steps: Steps sent to the device before the host waits for the oldest.
      stop_after_skipped_steps: Training stops with an error after this many steps in a row that
        were skipped, or whose loss is NaN or infinite; 0 never stops it.
      summary_interval_steps: Steps between summaries of training.
      log_train_output_interval_steps: Steps between log lines of training; None is the summary
        interval.
      summary_accumulate_interval_steps: When set, summaries average over the steps that this
        divides.
      variable_norm_summary: Whether to write the root mean square of each variable.
      async_summary_writing: Whether a thread writes the summaries.
      progress_metrics: Names of metrics shown in the progress line beside the loss.
      compute_steps_per_sec_interval_steps: Steps over which steps per second is measured.
      eval_interval_steps: Steps between evaluations, 0 for none.
      eval_skip_train: Whether to leave out the evaluation of the next training batch.
      eval_use_ema_states: Whether evaluation uses the averaged weights.
      decode_interval_steps: Steps between decoding; None or 0 for none.
      decode_start_after_n_steps: First step that may be decoded.
      decode_use_ema_states: Whether decoding uses the averaged weights.
      random_seed: Seed of the initial weights and of all randomness of training.
      apply_mutable_list: Variable collections that a training step may change.
      always_use_train_for_model_init: Whether variables are always made in training mode.
      enforce_input_specs: Whether the first batch must have the shapes of the input specs.
      inputs_split_mapping: Sharding of input arrays by rank: keys map_1d, map_2d, ...
      gc_interval_steps: Steps between runs of Python's garbage collector, which rests during
        training; 0 for none.
      init_from_checkpoint_rules: `CheckpointLoadingRules` for a fresh run, by the directory of
        checkpoints they load from. Without effect once the run has a checkpoint of its own.
      external_checkpoint_path: Checkpoint to start from when the run has none of its own.
      external_checkpoint_handler: What reads `external_checkpoint_path`: an Orbax handler whose
        `restore(path, item=, partitioner=, transformations=)` returns a train state.
      restore_transformations: Orbax transformations applied when restoring.
      tensorstore_metadata_key: Key of the array metadata in TensorStore.
      profiler_capture_step: Step, counted from the first of this run, at which a profile starts.
      profiler_num_steps: Number of steps in a profile.
      profiler_min_duration_sec: Least length of a profile in seconds.
      profiler_capture_host_profile: Whether the profile includes Python.
      profiler_max_num_hosts: How many processes take a profile.
      report_progress_hook: Kept for old configs; the progress line replaces it.
    """

    learner: pax_fiddle.Config[Learner] = pax_fiddle.template_field(Learner)
    num_train_steps: int | float = 1e7
    save_interval_steps: int = 5000
    save_keep_interval_duration: str | None = "12h"
    save_max_to_keep: int | None = 10
    enable_input_checkpointing: bool | None = False
    max_inflight_steps: int = 2
    stop_after_skipped_steps: int = 100
    summary_interval_steps: int = 100
    log_train_output_interval_steps: int | None = None
    summary_accumulate_interval_steps: int | None = None
    variable_norm_summary: bool = True
    async_summary_writing: bool = True
    progress_metrics: Sequence[str] = ()
    compute_steps_per_sec_interval_steps: int = 10
    eval_interval_steps: int = 100
    eval_skip_train: bool = False
    eval_use_ema_states: bool = False
    decode_interval_steps: int | None = None
    decode_start_after_n_steps: int = 0
    decode_use_ema_states: bool = False
    random_seed: int = 1234
    apply_mutable_list: Sequence[str] = dataclasses.field(
        default_factory=lambda: list(TRAIN_DEFAULT_MUTABLE_LIST)
    )
    always_use_train_for_model_init: bool = True
    enforce_input_specs: bool = True
    inputs_split_mapping: Mapping[str, Any] | None = None
    gc_interval_steps: int = 0
    # The union with a config keeps the configs inside the rules from being built.
    init_from_checkpoint_rules: Mapping[str, CheckpointLoadingRules | pax_fiddle.Config] = (
        dataclasses.field(default_factory=dict)
    )
    external_checkpoint_path: Any = None
    external_checkpoint_handler: Any = None
    restore_transformations: Mapping[str, Any] | None = None
    tensorstore_metadata_key: str | None = None
    profiler_capture_step: int | None = None
    profiler_num_steps: int = 2
    profiler_min_duration_sec: float = 1.0
    profiler_capture_host_profile: bool = False
    profiler_max_num_hosts: int | None = None
    report_progress_hook: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Settings of a separate evaluation job.

    Attributes:
      random_seed: Seed of the randomness of evaluation.
      apply_mutable_list: Variable collections that the step may change; changes are dropped.
    """

    random_seed: int = 1234
    apply_mutable_list: Sequence[str] = dataclasses.field(
        default_factory=lambda: list(EVAL_DEFAULT_MUTABLE_LIST)
    )


@dataclasses.dataclass(frozen=True)
class Decode:
    """Settings of decoding.

    Attributes:
      random_seed: Seed of the randomness of a separate decoding job.
      apply_mutable_list: Variable collections that the step may change; changes are dropped.
      metrics_prefix: What stands before the names of metrics in summaries.
      prng_key_fold_with_batch_index: Whether each batch gets its own key. By default every batch
        of one run of a program uses the same.
      profiler_capture_step: Number of the batch at which a profile starts, in the first run of a
        program.
      profiler_num_steps: Number of batches in a profile; 0 for none.
      profiler_min_duration_sec: Least length of a profile in seconds.
      profiler_max_num_hosts: How many processes take a profile.
    """

    random_seed: int = 1234
    apply_mutable_list: Sequence[str] = dataclasses.field(
        default_factory=lambda: list(DECODE_DEFAULT_MUTABLE_LIST)
    )
    metrics_prefix: str = "Metrics/"
    prng_key_fold_with_batch_index: bool = False
    profiler_capture_step: int = 1
    profiler_num_steps: int = 0
    profiler_min_duration_sec: float = 1.0
    profiler_max_num_hosts: int | None = None


@dataclasses.dataclass(frozen=True)
class Infer:
    """Settings of inference.

    Attributes:
      random_seed: Seed of the randomness of inference.
    """

    random_seed: int = 1234
