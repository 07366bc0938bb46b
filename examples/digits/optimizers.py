"""The optimizers that are compared: settings, and the accuracy that each has to reach."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from praxis import optimizers, pax_fiddle, schedules


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer of the table.

    Attributes:
      cls: its class.
      learning_rate: the largest one; see `schedule`.
      fields: other fields of its config.
      threshold: share of test images that it has to get right.
      decays: whether the learning rate falls after the warm-up.
    """

    cls: Any
    learning_rate: float
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    threshold: float = 0.95
    decays: bool = True


_ADAFACTOR = {"decay_method": "adam", "decay_adam": 0.98, "beta1": 0.9}
_MATRICES = {".*(emb|softmax).*": None, ".*/(query|key|value|post)/w": ([0], [1, 2])}

OPTIMIZERS: dict[str, Entry] = {
    "Sgd": Entry(optimizers.Sgd, 0.3, {"momentum": 0.9}, threshold=0.94),
    "Adam": Entry(optimizers.Adam, 5e-3),
    "Adam, bfloat16 moments": Entry(optimizers.Adam, 5e-3, {"moment_dtype": jnp.bfloat16}),
    "AdamW": Entry(optimizers.AdamW, 5e-3, {"decoupled_weight_decay": 0.05}),
    "Lion": Entry(optimizers.Lion, 1e-3, threshold=0.94),
    "Adagrad": Entry(optimizers.Adagrad, 0.05, threshold=0.93),
    "ShardedAdagrad": Entry(optimizers.ShardedAdagrad, 0.03, threshold=0.93),
    "Lamb": Entry(optimizers.Lamb, 0.02),
    "Lars": Entry(optimizers.Lars, 10.0),
    "Adafactor": Entry(optimizers.Adafactor, 0.05),
    "ShardedAdafactor": Entry(optimizers.ShardedAdafactor, 5e-3, _ADAFACTOR),
    "Muon": Entry(optimizers.Muon, 5e-3, {"matrices": _MATRICES, "consistent_rms": 0.2}),
    "ScheduleFree": Entry(optimizers.ScheduleFree, 0.01, decays=False),
    "ShardedOptax, NAdamW": Entry(optimizers.ShardedOptax, 5e-3, {"make": optax.nadamw}),
    "OptaxOptimizer, Adam": Entry(
        optimizers.OptaxOptimizer, 5e-3, {"grad_tx": optax.adam(5e-3)}, decays=False
    ),
    "ShardedStaticAccumulator": Entry(
        optimizers.ShardedStaticAccumulator,
        5e-3,
        {"optimizer_tpl": pax_fiddle.Config(optimizers.Adam), "num_sub_batches": 2},
    ),
}


def schedule(num_updates: int, *, decays: bool) -> pax_fiddle.Config[schedules.BaseSchedule]:
    """A warm-up over a tenth of the updates, then a cosine to 0 or a constant."""
    warmup = max(num_updates // 10, 1)
    if not decays:
        return pax_fiddle.Config(schedules.Linear, start=(0, 0.0), limit=(warmup, 1.0))
    return pax_fiddle.Config(
        schedules.LinearRampupCosineDecay,
        warmup_steps=warmup,
        decay_start=warmup,
        decay_end=num_updates,
        min_ratio=0.0,
        max=1.0,
    )


def config(entry: Entry, num_steps: int) -> pax_fiddle.Config[Any]:
    """The optimizer's config for a training of so many steps."""
    num_updates = num_steps // entry.fields.get("num_sub_batches", 1)
    return pax_fiddle.Config(
        entry.cls,
        learning_rate=entry.learning_rate,
        lr_schedule=schedule(num_updates, decays=entry.decays),
        **entry.fields,
    )
