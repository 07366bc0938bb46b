"""Images as sequences of patches, and back."""

from collections.abc import Sequence

import einops
import jax
from jaxtyping import Array, Float, Shaped


def _check_divisible(function: str, shape: Sequence[int], patch_size: int) -> None:
    if len(shape) < 4 or patch_size < 1 or shape[-3] % patch_size or shape[-2] % patch_size:
        raise ValueError(
            f"{function}: the image has shape {tuple(shape)}, expected [..., H, W, C] of rank 4 or "
            f"more with H and W multiples of patch_size = {patch_size}."
        )


def image_to_patch(img: Shaped[Array, "... H W C"], patch_size: int) -> Shaped[Array, "... N P"]:
    """Cuts images into square patches, row by row.

    Args:
      img: [..., H, W, C], rank 4 or more.
      patch_size: p, in pixels.

    Returns:
      [..., H / p * W / p, p * p * C]; a patch is in the order (row, column, channel).

    Raises:
      ValueError: if the rank is below 4, or H or W is no multiple of p.
    """
    _check_divisible("image_to_patch", img.shape, patch_size)
    return einops.rearrange(
        img, "... (h p) (w q) c -> ... (h w) (p q c)", p=patch_size, q=patch_size
    )


def patch_to_image(
    patches: Shaped[Array, "... N P"], img_shape: Sequence[int], patch_size: int
) -> Shaped[Array, "... H W C"]:
    """Inverts `image_to_patch`.

    Args:
      patches: [..., H / p * W / p, p * p * C].
      img_shape: [..., H, W, C], of the image.
      patch_size: p, in pixels.

    Raises:
      ValueError: if the shape is that of no image in such patches, or of another one.
    """
    _check_divisible("patch_to_image", img_shape, patch_size)
    *lead, height, width, channels = img_shape
    rows, columns = height // patch_size, width // patch_size
    expected = (*lead, rows * columns, patch_size * patch_size * channels)
    if patches.shape != expected:
        raise ValueError(
            f"patch_to_image: patches have shape {patches.shape}, expected {expected} for an image "
            f"of shape {tuple(img_shape)}."
        )
    return einops.rearrange(
        patches,
        "... (h w) (p q c) -> ... (h p) (w q) c",
        h=rows,
        p=patch_size,
        q=patch_size,
    )


def interpolate_embedding_2d(
    emb: Float[Array, "1 N D"],
    source_emb_shape: Sequence[int],
    target_emb_shape: Sequence[int],
) -> Float[Array, "1 M D"]:
    """Resizes position embeddings of a grid to another grid, bilinearly.

    Args:
      emb: [1, H1 * W1, D].
      source_emb_shape: (H1, W1).
      target_emb_shape: (H2, W2).

    Returns:
      [1, H2 * W2, D].

    Raises:
      ValueError: if `emb` is not of the first grid.
    """
    (rows, columns), (height, width) = source_emb_shape, target_emb_shape
    if emb.ndim != 3 or emb.shape[:2] != (1, rows * columns):
        raise ValueError(
            f"interpolate_embedding_2d: emb has shape {emb.shape}, expected [1, H * W, D] with "
            f"(H, W) = {tuple(source_emb_shape)}."
        )
    depth = emb.shape[-1]
    grid = emb.reshape(1, rows, columns, depth)
    grid = jax.image.resize(grid, (1, height, width, depth), method="bilinear")
    return grid.reshape(1, height * width, depth)
