"""One diagonal recurrence for each channel, as a convolution and step by step (S4D).

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
arXiv:2206.11893. For a channel, with poles a, inputs u and a state of N complex numbers,
`x_k = e^{step a} x_{k-1} + (e^{step a} - 1) / a b u_k` and `y_k = Re sum_n c_n x_k,n`. Shapes: N is
the size of the state, L a length.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, Num

Step = float | Float[Array, ""]


def s4d_discretize(
    a: Complex[Array, "*N"], b: Num[Array, "*N"], step: Step
) -> tuple[Complex[Array, "*N"], Complex[Array, "*N"]]:
    """Factors of state and input in a step, with inputs that are held (zero-order hold).

    Args:
      a: Poles.
      b: Factors of the input, of the same shape.
      step: Length of a step.

    Returns:
      `e^{step a}` and `(e^{step a} - 1) / a b`.
    """
    return jnp.exp(step * a), jnp.expm1(step * a) / a * b


def s4d_step(
    ab: Complex[Array, "N _"],
    bb: Complex[Array, "N _"],
    cb: Complex[Array, "N D"],
    u_k: Float[Array, "B D"],
    x_k_1: Complex[Array, "B N D"],
) -> tuple[Complex[Array, "B N D"], Float[Array, "B D"]]:
    """One step of the recurrence.

    Args:
      ab: [N, D], or [N, 1] for all channels; factor of the state.
      bb: Likewise, of the input.
      cb: [N, D], weights of the output.
      u_k: [B, D], inputs.
      x_k_1: [B, N, D], state before.

    Returns:
      The state, and the outputs [B, D].
    """
    x_k = ab[jnp.newaxis] * x_k_1 + bb[jnp.newaxis] * u_k[:, jnp.newaxis]
    return x_k, jnp.einsum("nd,bnd->bd", cb, x_k).real


def s4d_kernel_zoh(
    c: Complex[Array, "N D"], a: Complex[Array, "N _"], l: int, step: Step
) -> Float[Array, "L D"]:
    """Responses of the channels to an impulse, `Re sum_n c (e^{step a} - 1) / a e^{k step a}`.

    Args:
      c: [N, D], weights of the output.
      a: [N, D], or [N, 1] for all channels; poles.
      l: L, the length.
      step: Length of a step.
    """
    weights = c * (jnp.expm1(step * a) / a)
    times = step * jnp.arange(l, dtype=jnp.float32)
    powers = jnp.exp(a[..., jnp.newaxis] * times[jnp.newaxis, jnp.newaxis])  # [N, _, L]
    if powers.shape[1] == 1:
        # A product of matrices, where all channels share the poles.
        return _real_product("nd,nl->ld", weights, powers[:, 0])
    return _real_product("nd,ndl->ld", weights, powers)


def _real_product(
    equation: str, x: Complex[Array, "..."], y: Complex[Array, "..."]
) -> Float[Array, "..."]:
    """Real part of an einsum, without the products that only the imaginary part needs."""
    highest = lax.Precision.HIGHEST
    real = jnp.einsum(equation, x.real, y.real, precision=highest)
    return real - jnp.einsum(equation, x.imag, y.imag, precision=highest)


def causal_convolution(u: Float[Array, "B L D"], ker: Float[Array, "L D"]) -> Float[Array, "B L D"]:
    """Convolves each channel with its kernel, in float32: output k sees inputs 0 to k.

    Args:
      u: [B, L, D].
      ker: [L, D], `ker[0]` is the factor of the input of the same step.
    """
    length = u.shape[1]
    # Twice the length, so that nothing comes round to the front.
    spectrum = jnp.fft.rfft(u.astype(jnp.float32), 2 * length, axis=1)
    kernel = jnp.fft.rfft(ker.astype(jnp.float32), 2 * length, axis=0)
    return jnp.fft.irfft(spectrum * kernel[jnp.newaxis], 2 * length, axis=1)[:, :length]


def s4d_final_state(
    a: Complex[Array, "N 1"], u: Float[Array, "B L D"], step: Step
) -> Complex[Array, "B N D"]:
    """The state after L steps from 0; b is 1, and all channels share the poles."""
    steps_after = jnp.arange(u.shape[1] - 1, -1, -1, dtype=jnp.float32)
    powers = jnp.expm1(step * a) / a * jnp.exp(step * a * steps_after[jnp.newaxis])  # [N, L]
    return jnp.einsum("nl,bld->bnd", powers, u, precision=lax.Precision.HIGHEST)
