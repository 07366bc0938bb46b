"""One diagonal recurrence that all channels share, as a parallel scan and step by step (S5).

Smith et al., "Simplified State Space Layers for Sequence Modeling", 2022, arXiv:2208.04933. With a
state of N complex numbers, `x_k = ab * x_{k-1} + bb u_k` and `y_k = Re(c x_k)`, where `bb` is
[N, D] and `c` is [D, N].
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Num

from praxis.layers.state_space.diagonal import Step

System = tuple[Complex[Array, " N"], Complex[Array, "N D"], Complex[Array, "D N"]]


def s5_discretize(
    a: Complex[Array, " N"], b: Num[Array, "N D"], step: Step
) -> tuple[Complex[Array, " N"], Complex[Array, "N D"]]:
    """Factors of state and input in a step, with inputs that are held (zero-order hold).

    Args:
      a: [N], poles.
      b: [N, D], input matrix.
      step: Length of a step.

    Returns:
      `e^{step a}` and `(e^{step a} - 1) / a b`.
    """
    return jnp.exp(step * a), (jnp.expm1(step * a) / a)[:, jnp.newaxis] * b


def s5_step(
    ab: Complex[Array, " N"],
    bb: Complex[Array, "N D"],
    cb: Complex[Array, "D N"],
    u_k: Float[Array, "B D"],
    x_k_1: Complex[Array, "B N"],
) -> tuple[Complex[Array, "B N"], Float[Array, "B D"]]:
    """One step of the recurrence.

    Args:
      ab: [N], factor of the state.
      bb: [N, D], input matrix.
      cb: [D, N], output matrix.
      u_k: [B, D], inputs.
      x_k_1: [B, N], state before.

    Returns:
      The state, and the outputs [B, D].
    """
    x_k = ab[jnp.newaxis] * x_k_1 + jnp.einsum("nd,bd->bn", bb, u_k)
    return x_k, jnp.einsum("dn,bn->bd", cb, x_k).real


def binary_operator(
    element_i: tuple[Num[Array, "*N"], Num[Array, "*N"]],
    element_j: tuple[Num[Array, "*N"], Num[Array, "*N"]],
) -> tuple[Num[Array, "*N"], Num[Array, "*N"]]:
    """Joins two neighbouring maps `x -> factor * x + addend`, the first of which comes first.

    It is associative, so that a scan can join them in any order (appendix H of the paper).
    """
    factor_i, addend_i = element_i
    factor_j, addend_j = element_j
    return factor_j * factor_i, factor_j * addend_i + addend_j


def s5_parallel_scan(params: System, input_sequence: Float[Array, "L D"]) -> Float[Array, "L D"]:
    """Outputs of the recurrence from the state 0.

    Args:
      params: `ab` [N], `bb` [N, D] and `cb` [D, N], as of `s5_step`.
      input_sequence: [L, D].

    Returns:
      [L, D].
    """
    ab, bb, cb = params
    addends = jnp.einsum("nd,ld->ln", bb, input_sequence)
    factors = jnp.broadcast_to(ab[jnp.newaxis], addends.shape)
    _, states = lax.associative_scan(binary_operator, (factors, addends))
    return jnp.einsum("dn,ln->ld", cb, states).real


def s5_final_state(
    a: Complex[Array, " N"], bb: Complex[Array, "N D"], u: Float[Array, "B L D"], step: Step
) -> Complex[Array, "B N"]:
    """The state after L steps from 0, for the poles `a` [N]."""
    steps_after = jnp.arange(u.shape[1] - 1, -1, -1, dtype=jnp.float32)
    powers = jnp.exp(step * a[:, jnp.newaxis] * steps_after[jnp.newaxis])  # [N, L]
    addends = jnp.einsum("nd,bld->bln", bb, u)
    return jnp.einsum("nl,bln->bn", powers, addends, precision=lax.Precision.HIGHEST)
