"""Mistakes with optimizers, experiments and checkpoints."""

from typing import Any

import jax.numpy as jnp

from docs.situations.examples import Counter
from docs.situations.situation import situation
from paxml import base_metrics, checkpoint_paths, learners, metric_utils, tasks_lib
from paxml.experiment import registry
from praxis import (
    optimizers,
    pax_fiddle,
)

Config = pax_fiddle.Config

TRAINING = "Optimizers and training"


def register(*paths: str) -> Any:
    """Registers experiments of these modules and names, apart from those of the process."""
    experiments = registry.Registry()
    for path in paths:
        module, _, name = path.rpartition(".")
        experiments.add(type(name, (), {"__module__": module}), tags=(), allow_overwrite=False)
    return experiments


@situation(TRAINING, "An optimizer without a schedule")
def _() -> None:
    pax_fiddle.build(Config(optimizers.Sgd))


@situation(TRAINING, "A learner without an optimizer")
def _() -> None:
    learner = pax_fiddle.build(Config(learners.Learner, name="learner", loss_name="loss"))
    learner.get_grad_tx({})


@situation(TRAINING, "A task whose learner has no loss")
def _() -> None:
    model = Config(Counter, name="model")
    pax_fiddle.build(Config(tasks_lib.SingleTask, name="task", model=model))


@situation(TRAINING, "A loss that the model does not give")
def _() -> None:
    base_metrics.LossAggregator(loss_key="total").aggregate({"loss": (jnp.ones([]), 1.0)})


@situation(TRAINING, "Two experiments of one name")
def _() -> None:
    register("models.Small", "models.Small")


@situation(TRAINING, "A short name that several experiments have")
def _() -> None:
    register("vision.Large", "speech.Large").find("Large")


@situation(TRAINING, "A directory that is no checkpoint")
def _() -> None:
    checkpoint_paths.get_step_from_checkpoint_asset("run/final_weights")


@situation(TRAINING, "Checkpoints where there are none")
def _() -> None:
    checkpoint_paths.latest_checkpoint(".")


@situation(TRAINING, "Names of metrics that differ between batches")
def _() -> None:
    metric_utils.merge_clu_metrics({"loss": Metric()}, {"loss": Metric(), "accuracy": Metric()})


class Metric:
    """A metric of which only the methods count."""

    def merge(self, other: Any) -> Any:
        return other

    def compute(self) -> float:
        return 0.0
