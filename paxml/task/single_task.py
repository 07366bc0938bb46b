"""A task with one model, one learner and one loss."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from paxml.checkpoint.kinds import CheckpointType
from paxml.metric.loss import LossAggregator
from paxml.metric.mean import BaseMetrics, MeanMetrics
from paxml.output.formats import OutputFormatType
from paxml.task import settings, state
from paxml.task.base import BaseTask
from paxml.task.exclusion import learner_has_ema
from paxml.task.loading import load_by_rules
from paxml.task.noise import add_variational_noise
from paxml.task.old_names import old_name
from paxml.train_states import TrainState, TrainStateProvenance
from praxis import base_layer, pax_fiddle


@dataclasses.dataclass(frozen=True)
class InferWriter:
    """Settings of an inference job.

    Attributes:
      restore_checkpoint_dir: Directory of the checkpoints to use.
      restore_checkpoint_step: Step to use; None is the latest.
      inference_runner: Config of what turns a batch into outputs.
      output_format: Format of the records.
      output_num_shards: Number of files.
    """

    restore_checkpoint_dir: str = ""
    restore_checkpoint_step: int | None = None
    inference_runner: pax_fiddle.Config | None = None
    output_format: OutputFormatType = OutputFormatType.TFRECORD
    output_num_shards: int = 32


class SingleTask(BaseTask):
    """Trains or evaluates one model.

    Attributes:
      model: Config of the model, or a built one. Required.
      train: Settings of training, the learner among them.
      evaluate: Settings of a separate evaluation job.
      decode: Settings of decoding.
      infer: Settings of inference.
      vn: Noise on the weights during training.
      loss_aggregator: Config of what turns metrics into the loss; None takes the metric that the
        learner's `loss_name` names.
      metrics: Config of what reduces metrics over batches; None is the weighted mean.
      early_stopping_fn: Called after each step; True ends training.
      infer_writer: Settings of an inference job.
      summary_verbosity: Summaries of a higher verbosity are dropped in training and evaluation.

    Raises:
      ValueError: at construction, without a model or with one that is no layer, with several
        learners, without a loss, or with two.

    Example:
      >>> from praxis import pax_fiddle
      >>> config = pax_fiddle.Config(SingleTask, name="my_task")
      >>> config.train.num_train_steps = 100
      >>> config.train.num_train_steps
      100
    """

    Train = settings.Train
    Evaluate = settings.Evaluate
    Decode = settings.Decode
    Infer = settings.Infer
    InferWriter = InferWriter
    VariationalNoise = settings.VariationalNoise
    TrackDecoderMetricMode = settings.TrackDecoderMetricMode
    TrainHParams = old_name("TrainHParams", settings.Train)
    EvaluateHParams = old_name("EvaluateHParams", settings.Evaluate)
    DecodeHParams = old_name("DecodeHParams", settings.Decode)
    InferHParams = old_name("InferHParams", settings.Infer)
    InferWriterHParams = old_name("InferWriterHParams", InferWriter)
    VariationalNoiseHParams = old_name("VariationalNoiseHParams", settings.VariationalNoise)

    model: base_layer.BaseLayer = None  # pyright: ignore[reportAssignmentType]  # required
    train: settings.Train = pax_fiddle.template_field(settings.Train)
    evaluate: settings.Evaluate = pax_fiddle.template_field(settings.Evaluate)
    decode: settings.Decode = pax_fiddle.template_field(settings.Decode)
    infer: settings.Infer = pax_fiddle.template_field(settings.Infer)
    vn: settings.VariationalNoise = pax_fiddle.template_field(settings.VariationalNoise)
    loss_aggregator: pax_fiddle.Config | None = None
    metrics: pax_fiddle.Config | None = None
    early_stopping_fn: Callable[..., bool] | None = None
    infer_writer: InferWriter | None = None
    summary_verbosity: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for section in ("train", "evaluate", "decode", "infer", "vn", "infer_writer"):
            if isinstance(config := getattr(self, section), pax_fiddle.Config):
                setattr(self, section, pax_fiddle.instantiate(config))
        self.model = built_model(self.model, self.name)
        self._learner = built_learner(self.train.learner, self.name)
        self._loss_aggregator = self._build_loss_aggregator()
        self._metrics = pax_fiddle.instantiate(self.metrics or pax_fiddle.Config(MeanMetrics))
        self._inference_runner = self._build_inference_runner()

    @property
    def learners(self) -> Sequence[Any]:
        """The learner, as a sequence of one."""
        return [self._learner]

    @property
    def loss_aggregator_inst(self) -> LossAggregator:
        """What turns the metrics of a step into the loss."""
        return self._loss_aggregator

    @property
    def metrics_aggregator(self) -> BaseMetrics:
        """What reduces metrics over batches."""
        return self._metrics

    @property
    def inference_runner(self) -> Any:
        """What turns a batch into outputs in an inference job."""
        return self._inference_runner

    @property
    def has_ema_decay(self) -> bool:
        """Whether the learner keeps a moving average of the weights."""
        return learner_has_ema(self._learner)

    def maybe_adjust_train_state(
        self, step: jax.Array, mdl_vars: Any, var_weight_hparams: Any, prng_key: jax.Array
    ) -> Any:
        """The variables that the forward and backward pass of a step uses.

        The update is applied to the variables as they were. Override it to train through a
        change of the weights, such as quantization.

        Args:
          step: Number of updates already applied.
          mdl_vars: All variables.
          var_weight_hparams: Their `WeightHParams`.
          prng_key: Key of this step.
        """
        del var_weight_hparams
        if self.vn.vn_scale <= 0:
            return mdl_vars
        return add_variational_noise(self.vn, step=step, mdl_vars=mdl_vars, key=prng_key)

    def apply_init_checkpoint_rules(
        self,
        train_state: TrainState,
        train_state_provenance: TrainStateProvenance,
        train_state_partition_specs: TrainState | None = None,
        global_mesh: jax.sharding.Mesh | None = None,
        checkpoint_type: CheckpointType = CheckpointType.FLAX,
        *,
        unpadded_shapes: TrainState | None = None,
        make_opt_states: Callable[[Any], list[Any]] | None = None,
    ) -> tuple[TrainState, TrainStateProvenance]:
        """Loads what `train.init_from_checkpoint_rules` names into a fresh state.

        Arrays that are replaced are deleted: only the returned state can be used afterwards.

        Args:
          train_state: A fresh state.
          train_state_provenance: Where its values come from.
          train_state_partition_specs: Not needed: each array keeps its sharding.
          global_mesh: Not needed.
          checkpoint_type: Not needed.
          unpadded_shapes: Shapes of the state before padding for a mesh, if there was any.
          make_opt_states: Makes a new optimizer state from the loaded variables; None keeps the
            one of the random ones.

        Returns:
          The new state, and where its values come from.
        """
        del train_state_partition_specs, global_mesh, checkpoint_type
        return load_by_rules(
            train_state,
            train_state_provenance,
            self.train.init_from_checkpoint_rules,
            unpadded_shapes=unpadded_shapes,
            make_opt_states=make_opt_states,
        )

    def create_opt_states(self, mdl_vars: Any, var_weight_hparams: Any) -> list[Any]:
        """Fresh optimizer states."""
        return state.create_opt_states(mdl_vars, var_weight_hparams, self.learners)

    def create_train_state(
        self, mdl_vars: Any, var_weight_hparams: Any, discard_opt_states: bool = False
    ) -> TrainState:
        """The state at step 0 with these variables."""
        return state.create_state(mdl_vars, var_weight_hparams, discard_opt_states, self.learners)

    def create_train_state_unpadded_shapes(
        self, var_weight_hparams: Any, discard_opt_states: bool = False
    ) -> TrainState:
        """Shapes of the state as the model sees it."""
        return state.create_state_unpadded_shapes(
            var_weight_hparams, discard_opt_states, self.learners
        )

    def create_train_state_padded_shapes(
        self, var_weight_hparams: Any, discard_opt_states: bool = False
    ) -> TrainState:
        """Shapes of the state as it is stored on the model's mesh."""
        return state.create_state_padded_shapes(
            var_weight_hparams,
            self.model.mesh_shape,
            self.model.mesh_axis_names,
            discard_opt_states,
            self.learners,
        )

    def create_train_state_partition_specs(
        self, var_weight_hparams: Any, discard_opt_states: bool = False
    ) -> TrainState:
        """Shardings of the state on the model's mesh."""
        return state.create_state_partition_specs(
            var_weight_hparams,
            self.model.mesh_shape,
            self.model.mesh_axis_names,
            discard_opt_states,
            self.learners,
        )

    def _build_loss_aggregator(self) -> LossAggregator:
        loss_name = self._learner.loss_name
        if self.loss_aggregator is not None:
            if loss_name is not None:
                raise ValueError(
                    f"Task {self.name!r}: loss_aggregator is set, and so is the learner's "
                    f"loss_name = {loss_name!r}. Leave loss_name None, or drop loss_aggregator."
                )
            return pax_fiddle.instantiate(self.loss_aggregator)
        if loss_name is None:
            raise ValueError(
                f"Task {self.name!r}: the learner has no loss_name and there is no "
                "loss_aggregator. Set train.learner.loss_name to the model's metric to minimize, "
                "e.g. 'total_loss'."
            )
        return LossAggregator(loss_key=loss_name)

    def _build_inference_runner(self) -> Any:
        if self.infer_writer is None or self.infer_writer.inference_runner is None:
            return None
        return pax_fiddle.instantiate(self.infer_writer.inference_runner, model=self.model)


def built_model(model: Any, task_name: str) -> base_layer.BaseLayer:
    if model is None:
        raise ValueError(
            f"Task {task_name!r} has no model. Set task_config.model to the config of one."
        )
    if isinstance(model, pax_fiddle.Config):
        model = pax_fiddle.instantiate(model)
    if not isinstance(model, base_layer.BaseLayer):
        raise ValueError(
            f"Task {task_name!r}: model is a {type(model).__name__}, expected a layer or the "
            "config of one."
        )
    return model


def built_learner(learner: Any, task_name: str) -> Any:
    if isinstance(learner, list | tuple):
        raise ValueError(
            f"Task {task_name!r}: train.learner is a sequence of {len(learner)}; a task has one "
            "learner. Use MultiOptimizerLearner for several optimizers."
        )
    if isinstance(learner, pax_fiddle.Config):
        learner = pax_fiddle.instantiate(learner, name="learner_0")
    return learner
