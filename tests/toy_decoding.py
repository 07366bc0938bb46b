"""The toy run with something to decode: predictions, their mean, and a random draw."""

import dataclasses
from typing import Any

import jax
import numpy as np
import toy_experiment

from paxml import base_inference_runner
from paxml.partitioning import JitPartitioner
from praxis import base_layer, pax_fiddle, py_utils


@dataclasses.dataclass
class Longest:
    """A metric with the methods that the trainer wants."""

    value: Any

    def merge(self, other):
        return Longest(max(self.value, other.value))

    def compute(self):
        return self.value


class DecodingRegression(toy_experiment.Regression):
    """Decodes the predictions, beside random numbers.

    Attributes:
      unserializable: Whether the results cannot be written as JSON.
    """

    unserializable: bool = False

    def decode(self, input_batch):
        predictions = self.compute_predictions(input_batch)
        self.add_summary("prediction", predictions.mean())
        draw = jax.random.normal(self.next_prng_key(), predictions.shape)
        scalars = py_utils.NestedMap(mean=(predictions.mean(), np.float32(predictions.size)))
        return scalars, py_utils.NestedMap(y=input_batch.y, prediction=predictions, draw=draw), {}

    def process_decode_out(self, input_obj, decode_out):
        pairs = [
            (
                f"{input_obj.name}-{row}",
                {
                    "y": decode_out.y[row],
                    "prediction": decode_out.prediction[row],
                    "draw": decode_out.draw[row],
                    **({"set": {1, 2}} if self.unserializable else {}),
                },
            )
            for row in range(len(decode_out.y))
        ]
        scalars = py_utils.NestedMap(rows=(np.float32(len(pairs)), np.float32(1.0)))
        return scalars, pairs, {"longest": Longest(float(len(pairs)))}


class Runner(base_inference_runner.BaseInferenceRunner):
    """Infers the loss of each example."""

    def infer(self, train_state, prng_key, var_weight_hparams, input_batch):
        del prng_key, var_weight_hparams
        (_, outputs), _ = self.model.apply(
            train_state.mdl_vars, input_batch, mutable=[base_layer.SUMMARIES]
        )
        return {"error": outputs["error"], "x": input_batch.x}


class Decoding(toy_experiment.Toy):
    """Toy that also decodes, on the first DEVICES devices if that is set."""

    MODEL = DecodingRegression
    DECODE: int | None = 5
    DECODE_START = 0
    FOLD = False
    EMA = 0.0
    DECODE_BATCH = 8
    EVAL_INPUTS = (("test", toy_experiment.CountingInput),)
    UNSERIALIZABLE = False
    DEVICES = None
    INFER_WRITER = None

    def datasets(self):
        training = super().datasets()[0]
        return [training] + [
            pax_fiddle.Config(
                cls, name=name, batch_size=self.BATCH, num_batches=2, reset_for_eval=True
            )
            for name, cls in self.EVAL_INPUTS
        ]

    def partitioner(self):
        if self.DEVICES is None:
            return None
        return JitPartitioner(device_mesh=np.array(jax.devices()[: self.DEVICES]))

    def decode_datasets(self):
        return [
            pax_fiddle.Config(
                toy_experiment.CountingInput,
                name="held_out",
                batch_size=self.DECODE_BATCH,
                num_batches=2,
                reset_for_eval=True,
            )
        ]

    def task(self):
        task = super().task()
        task.model.unserializable = self.UNSERIALIZABLE
        task.infer_writer = self.INFER_WRITER
        task.train.decode_interval_steps = self.DECODE
        task.train.decode_start_after_n_steps = self.DECODE_START
        task.decode.prng_key_fold_with_batch_index = self.FOLD
        task.train.learner.optimizer.ema_decay = self.EMA
        return task


def variant(**settings):
    """A Decoding with other settings."""
    return type("Variant", (Decoding,), settings)()
