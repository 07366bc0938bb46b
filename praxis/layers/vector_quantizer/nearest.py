"""The nearest vector of a codebook, and vectors of length 1."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer


def normalise(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Divides vectors, the last axis, by their length; 0 stays 0."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return x * lax.rsqrt(squares + 1e-12).astype(x.dtype)


def quantize_vector(
    latent: Float[Array, "*B G H"], codebook: Float[Array, "V G H"]
) -> tuple[Float[Array, "*B G H"], Int[Array, "*B G"], Float[Array, "*B G V"]]:
    """Finds the nearest vector of the codebook of each group.

    Distances are of float32, without the reduced precision that accelerators multiply with by
    default, so that codes do not depend on the device.

    Args:
      latent: [..., G, H].
      codebook: [V, G, H].

    Returns:
      These vectors [..., G, H], in the dtype of the codebook; their numbers [..., G], of equally
      near ones the lowest; these as one-hot vectors [..., G, V], float32.
    """
    wide = codebook.astype(jnp.float32)
    products = jnp.einsum(
        "...gh,vgh->...gv", latent.astype(jnp.float32), wide, precision=lax.Precision.HIGHEST
    )
    lengths = jnp.sum(jnp.square(wide), axis=-1).T  # [G, V]
    # The squared length of the latent vector is left out: it is the same for all.
    distances = lengths.reshape((1,) * (products.ndim - 2) + lengths.shape) - 2.0 * products
    codes = jnp.argmin(distances, axis=-1).astype(jnp.int32)
    return look_up(codes, codebook), codes, jax.nn.one_hot(codes, codebook.shape[0])


def look_up(codes: Int[Array, "*B G"], codebook: Float[Array, "V G H"]) -> Float[Array, "*B G H"]:
    """The vectors of a codebook [V, G, H] that codes [..., G] stand for, [..., G, H]."""
    groups = jnp.arange(codebook.shape[1]).reshape((1,) * (codes.ndim - 1) + (-1,))
    return codebook[codes, jnp.broadcast_to(groups, codes.shape)]


def check_groups(layer: base_layer.BaseLayer, field: str) -> None:
    """Refuses a width that cannot be split into `num_groups`.

    Raises:
      ValueError: naming the layer and both fields.
    """
    size, groups = getattr(layer, field), getattr(layer, "num_groups")  # noqa: B009
    if size % groups:
        raise ValueError(
            f"{layer.path_text}: {field} = {size} is not a multiple of num_groups = {groups}."
        )


def check_sequence(
    layer: base_layer.BaseLayer, z: Float[Array, "..."], paddings: Shaped[Array, "..."]
) -> None:
    """Refuses latent vectors that are not [B, T, latent_dim], and paddings that are not [B, T].

    Raises:
      ValueError: naming the layer and the shapes.
    """
    dims = getattr(layer, "latent_dim")  # noqa: B009
    if z.ndim != 3 or z.shape[-1] != dims:
        raise ValueError(
            f"{layer.path_text}: z has shape {z.shape}, expected [B, T, D] with D = latent_dim = "
            f"{dims}."
        )
    if paddings.shape != z.shape[:2]:
        raise ValueError(
            f"{layer.path_text}: paddings have shape {paddings.shape}, expected [B, T] as of z, of "
            f"shape {z.shape}."
        )
