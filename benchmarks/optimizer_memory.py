"""Memory of optimizer states: bytes for each parameter of a language model.

Shapes alone are computed, so that the model may be larger than the machine. Layers are stacked, as
in training. Prints a Markdown table.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags

from paxml import learners
from praxis import base_layer, optimizers, pax_fiddle, schedules
from praxis.layers import models, transformer_models, transformers
from praxis.py_utils import NestedMap

LAYERS = flags.DEFINE_integer("layers", 24, "Layers.")
WIDTH = flags.DEFINE_integer("width", 2048, "D; F is four times as much.")
HEADS = flags.DEFINE_integer("heads", 16, "N.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 32_000, "V.")

ADAFACTOR = {"decay_method": "adam", "decay_adam": 0.98}
MATRICES = {
    ".*(emb|softmax).*": None,
    ".*/(query|key|value|post)/w": ([0], [1, 2]),
}
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Sgd": (optimizers.Sgd, {}),
    "Sgd, momentum": (optimizers.Sgd, {"momentum": 0.9}),
    "Adam, AdamW": (optimizers.Adam, {}),
    "Adam, moments in bfloat16": (optimizers.Adam, {"moment_dtype": jnp.bfloat16}),
    "Lion": (optimizers.Lion, {}),
    "Adagrad": (optimizers.Adagrad, {}),
    "Lamb": (optimizers.Lamb, {}),
    "Lars": (optimizers.Lars, {}),
    "Adafactor": (optimizers.Adafactor, {}),
    "ShardedAdafactor, no momentum": (optimizers.ShardedAdafactor, ADAFACTOR),
    "ShardedAdafactor, int8": (optimizers.ShardedAdafactor, {**ADAFACTOR, "beta1": 0.9}),
    "ShardedAdafactor, bfloat16": (
        optimizers.ShardedAdafactor,
        {**ADAFACTOR, "beta1": 0.9, "quantized_dtype": "bfloat16"},
    ),
    "Muon": (optimizers.Muon, {"matrices": MATRICES}),
    "Muon, momentum in bfloat16": (
        optimizers.Muon,
        {"matrices": MATRICES, "momentum_dtype": jnp.bfloat16},
    ),
    "ScheduleFree": (optimizers.ScheduleFree, {}),
    "ShardedOptax, optax.sm3": (
        optimizers.ShardedOptax,
        {"make": optax.inject_hyperparams(optax.sm3)},
    ),
    "ShardedStaticAccumulator, Adam": (
        optimizers.ShardedStaticAccumulator,
        {"optimizer_tpl": pax_fiddle.Config(optimizers.Adam), "num_sub_batches": 4},
    ),
    "Adam, average of weights": (optimizers.Adam, {"ema_decay": 0.999}),
}


def variables(dtype: Any) -> Any:
    """Descriptions of the variables of a language model."""
    stack = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1,
        hidden_dims=4 * WIDTH.value,
        num_heads=HEADS.value,
    )
    repeated = pax_fiddle.Config(
        transformers.StackedTransformerRepeated, block=stack, x_times=LAYERS.value
    )
    lm = pax_fiddle.Config(
        transformer_models.TransformerLm,
        model_dims=WIDTH.value,
        vocab_size=VOCABULARY.value,
        stacked_transformer_tpl=repeated,
    )
    model = pax_fiddle.build(
        pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, dtype=dtype)
    )
    ids = jnp.ones([1, 8], jnp.int32)
    batch = NestedMap(ids=ids, labels=ids, weights=jnp.ones([1, 8]), paddings=jnp.zeros([1, 8]))
    return {"params": model.abstract_init_with_metadata(batch)["params"]}


def state_bytes(cls: Any, fields: dict[str, Any], hparams: Any) -> int:
    """Bytes of the state that an optimizer keeps for some variables."""
    schedule = pax_fiddle.Config(schedules.Constant)
    optimizer = pax_fiddle.Config(cls, learning_rate=1e-3, lr_schedule=schedule, **fields)
    learner = pax_fiddle.build(
        pax_fiddle.Config(learners.Learner, name="learner", optimizer=optimizer)
    )
    values = jax.tree.map(
        lambda var: jax.ShapeDtypeStruct(tuple(var.full_shape), var.dtype), hparams
    )
    state = jax.eval_shape(learner.get_grad_tx(hparams).init, values)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def main(argv: Sequence[str]) -> None:
    del argv
    by_dtype = {"float32": variables(jnp.float32), "bfloat16": variables(jnp.bfloat16)}
    leaves = jax.tree.leaves(
        by_dtype["float32"], is_leaf=lambda leaf: isinstance(leaf, base_layer.WeightHParams)
    )
    parameters = sum(math.prod(leaf.full_shape) for leaf in leaves)
    print(f"State of optimizers for a language model of {parameters / 1e9:.2f} billion parameters")
    print()
    print("| optimizer | bytes a parameter, weights in float32 | in bfloat16 | GiB, in float32 |")
    print("| :--- | ---: | ---: | ---: |")
    for name, (cls, fields) in OPTIMIZERS.items():
        wide, narrow = (state_bytes(cls, fields, hparams) for hparams in by_dtype.values())
        cells = f"{wide / parameters:.3f} | {narrow / parameters:.3f} | {wide / 2**30:.2f}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    app.run(main)
