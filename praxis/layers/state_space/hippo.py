"""HiPPO matrices, and the diagonal state matrices that state space layers start from.

Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020, arXiv:2008.07669;
Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
arXiv:2206.11893 (S4D). Shapes: N is the size of the state.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Complex64, Float

# Name of each HiPPO matrix by the end of a layer's `hippo_type` that asks for it.
SUFFIXES = {"legs": "LegS", "lagt": "LagT"}


def make_hippo(n: int, hippo_type: str) -> Float[Array, "N N"]:
    """The state matrix of scaled Legendre ("LegS") or Laguerre ("LagT") polynomials, [n, n]."""
    return jnp.asarray(_system(n, hippo_type)[0], jnp.float32)


def make_nplr_hippo(
    n: int, hippo_type: str
) -> tuple[Float[Array, "N N"], Float[Array, " N"], Float[Array, " N"]]:
    """The state matrix as a normal matrix minus one of rank 1.

    Returns:
      The state matrix A [N, N]; P [N], for which A + P P^T is normal; the input vector B [N].
    """
    a, p, b = (jnp.asarray(x, jnp.float32) for x in _system(n, hippo_type))
    return a, p, b


def make_dplr_hippo(
    n: int, hippo_type: str
) -> tuple[Complex[Array, " N"], Complex[Array, " N"], Complex[Array, " N"], Complex[Array, "N N"]]:
    """The same system in the eigenbasis V of its normal matrix.

    The imaginary parts of the poles of "LagT" are stretched by n, because they would crowd near 0.

    Returns:
      The poles [N], which are the eigenvalues, by rising imaginary part; V^H P and V^H B, both [N];
      V [N, N].
    """
    poles, p, b, basis = (jnp.asarray(x, jnp.complex64) for x in _diagonal(n, hippo_type))
    return poles, p, b, basis


def diagonal_poles(n: int, hippo_type: str) -> Complex64[np.ndarray, " N"]:
    """The diagonal state matrix of a layer.

    Args:
      n: Size of the state.
      hippo_type: One that ends in "legs" or "lagt" gives the poles of that HiPPO matrix. Any other
        gives -1/2 + i w with n frequencies w in equal steps of pi (n - 1) / n from -pi (n - 1) / 2,
        as S4D-Lin with both signs.
    """
    for suffix, name in SUFFIXES.items():
        if hippo_type.endswith(suffix):
            return _diagonal(n, name)[0].astype(np.complex64)
    return (-0.5 + 1j * np.pi * (n - 1) * (np.arange(n) / n - 0.5)).astype(np.complex64)


def _system(n: int, hippo_type: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, P and B in float64."""
    index = np.arange(n)
    if hippo_type == "LegS":
        root = np.sqrt(1.0 + 2.0 * index)
        a = np.diag(1.0 * index) - np.tril(np.outer(root, root))
        return a, np.sqrt(index + 0.5), root
    if hippo_type == "LagT":
        return -np.tril(np.ones([n, n])), np.full([n], np.sqrt(0.5)), np.ones([n])
    raise ValueError(
        f"make_hippo: hippo_type is {hippo_type!r}, expected one of {list(SUFFIXES.values())}."
    )


def _diagonal(n: int, hippo_type: str) -> tuple[np.ndarray, ...]:
    """Poles, V^H P, V^H B and V in complex128."""
    a, p, b = _system(n, hippo_type)
    normal = a + np.outer(p, p)
    # Real part a multiple of the identity, the rest skew-symmetric: -i times it is Hermitian.
    frequencies, basis = np.linalg.eigh(-1j * normal)
    if hippo_type == "LagT":
        frequencies = frequencies * n
    poles = np.mean(np.diag(normal)) + 1j * frequencies
    adjoint = basis.conj().T
    return poles, adjoint @ p, adjoint @ b, basis
