"""The arithmetic of LSTM cells: gates, the change of the cell, and what keeps an old state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis.layers.normalization.moments import widen


class LstmGates(NamedTuple):
    """What a step does to the cell, each [B, H].

    Attributes:
      candidate: What is written, in (-1, 1).
      input: Share of the candidate that is written.
      forget: Share of the old cell that is kept.
      output: Share of the cell that is shown.
    """

    candidate: Float[Array, "B H"]
    input: Float[Array, "B H"]
    forget: Float[Array, "B H"]
    output: Float[Array, "B H"]


def lstm_gates(logits: Float[Array, "B _"], forget_bias: float) -> LstmGates:
    """Splits [B, 4 H] into candidate, input, forget and output, and applies the nonlinearities."""
    candidate, write, forget, output = jnp.split(logits, 4, axis=-1)
    return LstmGates(
        candidate=jnp.tanh(candidate),
        input=jax.nn.sigmoid(write),
        forget=jax.nn.sigmoid(forget + forget_bias),
        output=jax.nn.sigmoid(output),
    )


def coupled_lstm_gates(logits: Float[Array, "B _"]) -> LstmGates:
    """Splits [B, 3 H] into candidate, forget and output; writes as much as is forgotten."""
    candidate, forget, output = jnp.split(logits, 3, axis=-1)
    forget = jax.nn.sigmoid(forget)
    return LstmGates(
        candidate=jnp.tanh(candidate),
        input=1 - forget,
        forget=forget,
        output=jax.nn.sigmoid(output),
    )


def next_cell(
    cell: Float[Array, "B H"], gates: LstmGates, cap: float | None
) -> Float[Array, "B H"]:
    """`forget * cell + input * candidate`, clipped to [-cap, cap] unless that is None."""
    changed = gates.forget * cell + gates.input * gates.candidate
    return changed if cap is None else jnp.clip(changed, -cap, cap)


def normalize_each_gate(
    logits: Float[Array, "B G"], num_gates: int, epsilon: float
) -> Float[Array, "B G"]:
    """Normalizes the H values of each gate to mean 0 and variance 1.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450. Mean and variance are
    float32 or wider; the result has the dtype of the logits.

    Args:
      logits: [B, num_gates * H].
      num_gates: Number of gates.
      epsilon: Added to the variance.
    """
    x = widen(logits).reshape(logits.shape[0], num_gates, -1)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    x = centered * jax.lax.rsqrt(variance + epsilon)
    return x.reshape(logits.shape).astype(logits.dtype)


def zoneout(
    new: Float[Array, "B H"],
    previous: Float[Array, "B H"],
    padding: Shaped[Array, "B 1"],
    *,
    prob: float = 0.0,
    key: jax.Array | None = None,
) -> Float[Array, "B H"]:
    """Keeps some values of the previous state, and all of them at padded steps.

    Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2016,
    arXiv:1606.01305.

    Args:
      new: The state after the step.
      previous: The state before it.
      padding: 1 where the step is padded.
      prob: Probability of keeping a value.
      key: Random key, in training. Without one the values are averaged, `prob` of them old.
    """
    keep = jnp.broadcast_to(padding > 0, new.shape)
    if prob > 0 and key is not None:
        keep = keep | (jax.random.uniform(key, new.shape) < prob)
    elif prob > 0:
        new = prob * previous + (1 - prob) * new
    return jnp.where(keep, previous, new)
