"""Trains the same small vision transformer with each optimizer and prints how well they do.

Run by `make digits`. Prints a Markdown table. The exit code is 1 when an accuracy is below the
threshold of its optimizer; thresholds are for the default number of epochs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from examples.digits import data, model, optimizers
from paxml import learners
from praxis import optimizers as praxis_optimizers
from praxis import pax_fiddle
from praxis.py_utils import NestedMap

_BATCH_SIZE = 64


def train(digits: Any, entry: optimizers.Entry, batches: NestedMap) -> Any:
    """The variables after a training with one optimizer, from the same start for all."""
    first = batches.Transform(lambda x: x[0])
    hparams = {"params": digits.abstract_init_with_metadata(first)["params"]}
    start = {"params": jax.jit(digits.init)(jax.random.key(0), first)["params"]}
    optimizer = optimizers.config(entry, len(batches.image))
    learner = pax_fiddle.build(
        pax_fiddle.Config(learners.Learner, name="learner", optimizer=optimizer)
    )
    transform = learner.get_grad_tx(hparams)

    def step(carry: tuple[Any, Any], batch: NestedMap) -> tuple[tuple[Any, Any], jax.Array]:
        variables, state = carry

        def loss(variables: Any) -> jax.Array:
            metrics, _ = digits.apply(variables, batch)
            return metrics.avg_xent[0]

        value, grads = jax.value_and_grad(loss)(variables)
        updates, state = learner.update_states(grads, state, variables, hparams)
        return (learner.apply_gradient(variables, updates, hparams), state), value

    run = jax.jit(lambda carry, batches: lax.scan(step, carry, batches))
    (variables, state), _ = run((start, transform.init(start)), batches)
    if entry.cls is praxis_optimizers.ScheduleFree:
        return praxis_optimizers.schedule_free_eval_params(state, variables)
    return variables


def accuracy(digits: Any, variables: Any, test: NestedMap) -> float:
    """Share of test images whose likeliest class is theirs."""
    logits = jax.jit(lambda variables: digits.apply(variables, test, method="predict").logits)
    right = jnp.argmax(logits(variables), -1) == jnp.argmax(test.label_probs, -1)
    return float(jnp.mean(right))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares the optimizers; returns the exit code."""
    names = list(optimizers.OPTIMIZERS)
    parser = argparse.ArgumentParser(description="Compares optimizers on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    options = parser.parse_args(arguments)

    train_images, test_images = data.load()
    batches = data.epochs(train_images, num_epochs=options.epochs, batch_size=_BATCH_SIZE)
    test_images, batches = (x.Transform(jnp.asarray) for x in (test_images, batches))
    digits = model.build()
    print(f"{len(test_images.image)} test images, {len(batches.image)} steps\n")
    print("| optimizer | accuracy | threshold | seconds |")
    print("| :--- | ---: | ---: | ---: |")
    failed = []
    for name in options.only:
        entry, start = optimizers.OPTIMIZERS[name], time.perf_counter()
        reached = accuracy(digits, train(digits, entry, batches), test_images)
        seconds = time.perf_counter() - start
        print(f"| {name} | {reached:.3f} | {entry.threshold:.3f} | {seconds:.1f} |", flush=True)
        if not reached >= entry.threshold:
            failed.append(name)
    if failed:
        print(f"\nBelow the threshold: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
