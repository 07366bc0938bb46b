"""Settings of GPT-3: Brown et al., "Language Models are Few-Shot Learners", 2020, arXiv:2005.14165.

What the paper leaves open is as in the benchmark MLPerf Training: the vocabulary, rounded up to a
multiple of 1024, and the log perplexity to reach.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from paxml.task.single_task import SingleTask
from paxml.tasks.lm.transformer import TransformerSettings
from paxml.trainer.types import RunningMode
from praxis import pax_fiddle
from praxis.layers import activations

LOG_PPLX = "eval_test_C4Validation/metrics/log_pplx"


class Gpt3(TransformerSettings):
    """Learned positions, biases, GELU, no bounds of logits.

    Attributes:
      TARGET_LOG_PPLX: Training ends when the validation gets there, nats a token; None for never.
    """

    MAX_SEQ_LEN: ClassVar[int] = 2048
    NUM_LAYERS: ClassVar[int] = 96
    NUM_HEADS: ClassVar[int | None] = 96
    MODEL_DIMS: ClassVar[int] = 12288
    DIMS_PER_HEAD: ClassVar[int | None] = 128
    VOCAB_SIZE: ClassVar[int] = 51200
    TRAINABLE_POSITIONS: ClassVar[int | None] = 2048

    USE_BIAS: ClassVar[bool] = True
    USE_PER_DIM_SCALE: ClassVar[bool] = False
    ATTEN_LOGIT_CAP: ClassVar[float] = 0.0
    SOFTMAX_CAP_LOGITS: ClassVar[float] = 0.0
    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.GELU
    USE_REPEATED_LAYER: ClassVar[bool] = True

    LEARNING_RATE: ClassVar[float] = 6e-5
    WEIGHT_DECAY: ClassVar[float] = 0.1
    ADAM_BETA2: ClassVar[float] = 0.95
    ADAM_EPSILON: ClassVar[float] = 1e-8
    CLIP_GRADIENT_NORM: ClassVar[float] = 1.0
    COSINE: ClassVar[bool] = True
    WARMUP_STEPS: ClassVar[int] = 265
    DECAY_END: ClassVar[int] = 108_600
    TARGET_LOG_PPLX: ClassVar[float | None] = 2.69

    def task(self) -> pax_fiddle.Config[SingleTask]:
        task = super().task()
        if self.TARGET_LOG_PPLX is not None:
            task.early_stopping_fn = pax_fiddle.Config(
                StopAtTarget, metric=LOG_PPLX, target=self.TARGET_LOG_PPLX
            )
        return task


class StopAtTarget:
    """Ends training when a metric is at most a target."""

    def __init__(self, metric: str, target: float) -> None:
        """Remembers both.

        Args:
          metric: Name of the metric, with the program's.
          target: The value to reach.
        """
        self.metric = metric
        self.target = target

    def __call__(
        self,
        metrics: Mapping[str, float],
        running_mode: RunningMode,
        global_step: int,
        is_last_ckpt: bool,
        model: Any,
    ) -> bool:
        """Whether the metrics of this step reach the target; those of other steps lack it."""
        del running_mode, global_step, is_last_ckpt, model
        return self.metric in metrics and metrics[self.metric] <= self.target
