"""Optimizers that tests go through, and variables for them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from praxis import optimizers, pax_fiddle, schedules

_SGD = pax_fiddle.Config(optimizers.ShardedSgd, momentum=0.9)
ADAFACTOR = {"decay_method": "adam", "decay_adam": 0.98, "beta1": 0.9}

# Name: (class, fields). Learning rates are small enough for all to be compared after some steps.
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (optimizers.Sgd, {}),
    "momentum": (optimizers.ShardedSgd, {"momentum": 0.9, "nesterov": True}),
    "adam": (optimizers.Adam, {}),
    "adamw": (optimizers.AdamW, {}),
    "adam_bfloat16": (optimizers.Adam, {"moment_dtype": jnp.bfloat16}),
    "plain_adam": (optimizers.Adam, {"sharded_adam": False}),
    "lion": (optimizers.Lion, {}),
    "adagrad": (optimizers.ShardedAdagrad, {}),
    "lamb": (optimizers.Lamb, {}),
    "lars": (optimizers.Lars, {}),
    "adafactor": (optimizers.Adafactor, {"min_dim_size_to_factor": 2}),
    "sharded_adafactor_int8": (optimizers.ShardedAdafactor, {**ADAFACTOR}),
    "sharded_adafactor_bfloat16": (
        optimizers.ShardedAdafactor,
        {**ADAFACTOR, "quantized_dtype": "bfloat16", "layerwise_adaptation": True},
    ),
    "sharded_adafactor_whole": (
        optimizers.ShardedAdafactor,
        {"decay_method": "pow", "decay_pow": 0.8, "factored": False},
    ),
    "muon": (optimizers.Muon, {}),
    "schedule_free": (optimizers.ScheduleFree, {"weight_decay": 0.1}),
    "any_optax": (optimizers.ShardedOptax, {"make": optax.contrib.adopt}),
    "accumulator": (
        optimizers.ShardedStaticAccumulator,
        {"optimizer_tpl": _SGD, "num_sub_batches": 2},
    ),
    "ema_and_consolidation": (
        optimizers.Sgd,
        {"ema_decay": 0.9, "ewc_regularizer_weight": 0.1, "decoupled_weight_decay": 0.1},
    ),
}


def build(cls: Any, *, learning_rate: float = 0.1, **fields: Any) -> Any:
    """An optimizer with a constant learning rate."""
    schedule = pax_fiddle.Config(schedules.Constant)
    return pax_fiddle.build(
        pax_fiddle.Config(cls, learning_rate=learning_rate, lr_schedule=schedule, **fields)
    )


def trajectory(transform: Any, params: Any, grads: Any) -> Any:
    """The variables after each step."""
    out, state = [], transform.init(params)
    step = jax.jit(transform.update)
    for grad in grads:
        updates, state = step(grad, state, params)
        params = optax.apply_updates(params, updates)
        out.append(params)
    return out
