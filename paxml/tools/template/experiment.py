"""MyExperiment: a small network that tells two kinds of points in the plane apart.

Train it, with an evaluation every EVAL_STEPS steps, and look at the loss:

    EXP=paxml.tools.template.experiment.MyExperiment
    pax train --exp=$EXP --job_log_dir=runs/first --eval_on_test
    pax plot runs/first

Change a setting without editing this file:

    pax train --exp=$EXP --job_log_dir=runs/second --set LEARNING_RATE=0.003

Replace, one after the other: the data in `Points`, the network in `Classifier`, the settings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paxml import base_experiment, experiment_registry, learners, tasks_lib
from praxis import base_input, base_layer, base_model, optimizers, pax_fiddle, py_utils, schedules
from praxis.layers import linears


class Points(base_input.NumpyInput):
    """Points on two half circles that reach into each other, with noise.

    `load` returns arrays whose first axis counts the examples; batching, shuffling and splitting
    over machines are done for you. Attributes are fields of the input's config.

    Attributes:
      num_points: Number of examples.
      seed: Of the random numbers; use different seeds for training and evaluation.
    """

    num_points: int = 1000
    seed: int = 0

    def load(self) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        label = rng.integers(0, 2, self.num_points)
        angle = rng.uniform(0, np.pi, self.num_points)
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=-1)
        point = np.where(label[:, None] == 0, upper, lower)
        point = point + rng.normal(scale=0.1, size=point.shape)
        return {"point": point.astype(np.float32), "label": label.astype(np.int32)}


class Classifier(base_model.BaseModel):
    """Two hidden layers and a logit for each class.

    A model says which layers it has in `setup`, what it computes from a batch in
    `compute_predictions`, and what to minimize in `compute_loss`.

    Attributes:
      hidden_dims: Width of the hidden layers.
      num_classes: Number of classes.
      layer_tpl: Config of a layer; the sizes are filled in.
    """

    hidden_dims: int = 32
    num_classes: int = 2
    layer_tpl: pax_fiddle.Config[linears.FeedForward] = base_layer.template_field(
        linears.FeedForward
    )

    def setup(self) -> None:
        layer = self.layer_tpl.clone()
        self.create_child("first", layer.clone().set(input_dims=2, output_dims=self.hidden_dims))
        self.create_child(
            "second",
            layer.clone().set(input_dims=self.hidden_dims, output_dims=self.hidden_dims),
        )
        logits = pax_fiddle.Config(
            linears.Linear, input_dims=self.hidden_dims, output_dims=self.num_classes
        )
        self.create_child("logits", logits)

    def compute_predictions(self, input_batch: Any) -> jax.Array:
        return self.logits(self.second(self.first(input_batch.point)))  # [B, num_classes]

    def compute_loss(self, predictions: Any, input_batch: Any) -> tuple[Any, dict[str, Any]]:
        log_probs = jax.nn.log_softmax(predictions.astype(jnp.float32))
        true_class = jax.nn.one_hot(input_batch.label, self.num_classes)
        loss = -jnp.sum(log_probs * true_class, axis=-1)  # [B]
        is_right = jnp.argmax(predictions, axis=-1) == input_batch.label
        # Each metric is a value and its weight: here the mean over the batch, and its size.
        weight = jnp.float32(loss.shape[0])
        metrics = py_utils.NestedMap(
            loss=(jnp.mean(loss), weight),
            accuracy=(jnp.mean(is_right.astype(jnp.float32)), weight),
        )
        # The second result is kept for each example, e.g. in the output files of evaluations.
        return metrics, {"loss_of_example": loss}


@experiment_registry.register
class MyExperiment(base_experiment.BaseExperiment):
    """What to train, on what data, and how long.

    The capitals are the settings: `--set NAME=VALUE` changes them, and they are recorded with each
    run.
    """

    NUM_STEPS = 500
    EVAL_STEPS = 100
    BATCH_SIZE = 64
    LEARNING_RATE = 0.01
    HIDDEN_DIMS = 32

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        """The inputs: that with `is_training` is trained on, the others are for evaluation."""
        train = pax_fiddle.Config(
            Points,
            name="train",
            is_training=True,
            batch_size=self.BATCH_SIZE,
            shuffle=True,
        )
        test = pax_fiddle.Config(
            Points,
            name="test",
            batch_size=self.BATCH_SIZE,
            num_points=512,
            seed=1,
            # Each evaluation starts at the beginning of the data and takes all of it.
            reset_for_eval=True,
        )
        return [train, test]

    def task(self) -> pax_fiddle.Config[tasks_lib.SingleTask]:
        """The config of model, learner and training loop."""
        task = pax_fiddle.Config(tasks_lib.SingleTask, name="my_experiment")
        task.model = pax_fiddle.Config(Classifier, name="model", hidden_dims=self.HIDDEN_DIMS)
        task.train.learner = pax_fiddle.Config(
            learners.Learner,
            loss_name="loss",  # the metric of `compute_loss` that is minimized
            optimizer=pax_fiddle.Config(
                optimizers.Adam,
                learning_rate=self.LEARNING_RATE,
                lr_schedule=pax_fiddle.Config(schedules.Constant, value=1.0),
                clip_gradient_norm_to_value=1.0,
            ),
        )
        task.train.set(
            num_train_steps=self.NUM_STEPS,
            eval_interval_steps=self.EVAL_STEPS,
            save_interval_steps=100,
            summary_interval_steps=10,
            # A run that is stopped goes on at the very batch where it was.
            enable_input_checkpointing=True,
            # Shown in the progress line beside the loss.
            progress_metrics=("accuracy",),
        )
        return task
