"""The experiment: a small decoder-only transformer over bytes.

Rotary positions, RMS norm before each sublayer, a gated feed-forward as in Shazeer, "GLU Variants
Improve Transformer", 2020, arXiv:2002.05202, layers run by one scan, embedding and softmax shared.
"""

import math
from typing import Any

import jax.numpy as jnp

from examples.stdlib_lm import data
from paxml import base_experiment, experiment_registry, learners, tasks_lib
from praxis import base_input, optimizers, pax_fiddle, schedules
from praxis.layers import (
    activations,
    checkpoint_policy,
    embedding_softmax,
    models,
    normalizations,
    transformer_models,
    transformers,
)

VOCAB_SIZE = 256  # One class for each byte; 0 stands in front of a file.


class TrainInput(base_input.NumpyInput):
    """Rows of training files, shuffled anew in each pass.

    Attributes:
      row_length: T, bytes in a row.
    """

    row_length: int = 0

    def load(self) -> dict[str, Any]:
        return data.train_rows(data.load()[0], self.row_length)


class EvalInput(base_input.NumpyInput):
    """Windows of the evaluation files, in which each byte counts once.

    Attributes:
      row_length: T, bytes in a window.
    """

    row_length: int = 0

    def load(self) -> dict[str, Any]:
        return data.eval_rows(
            data.load()[1], self.row_length, self.row_length // 2, self.batch_size or 1
        )


class ByteLanguageModel(models.LanguageModel):
    """A language model over bytes that also reports bits per byte."""

    def compute_loss(self, predictions: Any, input_batch: Any) -> tuple[Any, Any]:
        metrics, per_example = super().compute_loss(predictions, input_batch)
        xent, weight = metrics["avg_xent"]  # in nats
        metrics["bits_per_byte"] = (xent / math.log(2), weight)
        return metrics, per_example


def language_model(
    num_layers: int, model_dims: int, hidden_dims: int, num_heads: int
) -> pax_fiddle.Config[transformer_models.TransformerLm]:
    """Returns the config of the transformer."""
    norm = pax_fiddle.Config(normalizations.RmsNorm, direct_scale=True)
    block = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1,
        model_dims=model_dims,
        hidden_dims=hidden_dims,
        num_heads=num_heads,
    )
    layer = block.transformer_layer_params_tpl
    layer.ln_tpl = norm.clone()
    layer.tr_atten_tpl.set(
        use_rotary_position_emb=True, use_bias=False, internal_enable_per_dim_scale=False
    )
    layer.tr_fflayer_tpl.set(
        use_gated_activation=True,
        has_bias=False,
        activation_tpl=pax_fiddle.Config(activations.SiLU),
        ln_tpl=norm.clone(),
    )
    return pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        vocab_size=VOCAB_SIZE,
        model_dims=model_dims,
        packed_input=True,
        position_emb_tpl=None,
        final_ln_tpl=norm.clone(),
        softmax_tpl=pax_fiddle.Config(
            embedding_softmax.SharedEmbeddingSoftmax, scale_sqrt_depth=True, lookup_style="index"
        ),
        stacked_transformer_tpl=pax_fiddle.Config(
            transformers.StackedTransformerRepeated,
            block=block,
            x_times=num_layers,
            # Enough memory, so nothing is computed twice but what costs little.
            checkpoint_policy=checkpoint_policy.AutodiffCheckpointType.SAVE_DOT_ONLY,
        ),
    )


@experiment_registry.register
class StdlibLm(base_experiment.BaseExperiment):
    """A byte-level language model of Python's standard library, about 5 minutes on 2 cores."""

    NUM_STEPS = 1000
    LEARNING_RATE = 4e-3
    WARMUP_STEPS = 50
    BATCH_SIZE = 8
    ROW_LENGTH = 256

    NUM_LAYERS = 3
    MODEL_DIMS = 192
    HIDDEN_DIMS = 512
    NUM_HEADS = 3

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        train = TrainInput.config(
            name="train",
            is_training=True,
            batch_size=self.BATCH_SIZE,
            row_length=self.ROW_LENGTH,
            shuffle=True,
            input_random_seed=7,
        )
        held_out = EvalInput.config(
            name="held_out",
            batch_size=self.BATCH_SIZE,
            row_length=self.ROW_LENGTH,
            reset_for_eval=True,
            eval_loop_num_batches=-1,
        )
        return [train, held_out]

    def task(self) -> pax_fiddle.Config[tasks_lib.SingleTask]:
        model = ByteLanguageModel.config(
            name="model",
            lm_tpl=language_model(
                self.NUM_LAYERS, self.MODEL_DIMS, self.HIDDEN_DIMS, self.NUM_HEADS
            ),
            fprop_dtype=jnp.float32,
        )
        learner = pax_fiddle.Config(
            learners.Learner,
            loss_name="total_loss",
            optimizer=optimizers.Adam.config(
                beta1=0.9,
                beta2=0.98,
                epsilon=1e-9,
                clip_threshold=1.0,
                clip_gradient_norm_to_value=1.0,
                learning_rate=self.LEARNING_RATE,
                lr_schedule=schedules.LinearRampupCosineDecay.config(
                    warmup_steps=self.WARMUP_STEPS,
                    decay_start=self.WARMUP_STEPS,
                    decay_end=max(self.NUM_STEPS, self.WARMUP_STEPS + 1),
                    max=1.0,
                    min_ratio=0.02,
                ),
            ),
        )
        task = tasks_lib.SingleTask.config(name="stdlib_lm", model=model)
        # A short run is evaluated at its end only: it would spend its time on nothing else.
        every = self.NUM_STEPS // 2 if self.NUM_STEPS >= 400 else self.NUM_STEPS
        task.train.set(
            learner=learner,
            num_train_steps=self.NUM_STEPS,
            save_interval_steps=min(100, every),
            save_max_to_keep=2,
            summary_interval_steps=max(1, min(20, self.NUM_STEPS // 10)),
            log_train_output_interval_steps=every,
            eval_interval_steps=every,
            progress_metrics=("bits_per_byte",),
        )
        return task
