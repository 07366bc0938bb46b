"""Variables of a pipelined layer: as they are stored, and as one iteration of the loop sees them.

Stored variables have leading axes [S], or [R, S] with several repeats; an iteration sees [S]: of
each stage, the layer of the repeat it is in. Trees here are nested dicts of arrays.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import fp8_ops
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import base_layer
from praxis.layers.transformer.schedule import Schedule

Tree = Any


def align(flags: Bool[Array, " S"], rank: int) -> Bool[Array, "S ..."]:
    """Flags of stages as [S, 1, ..., 1], to be used with arrays of that rank."""
    return flags.reshape(flags.shape + (1,) * (rank - 1))


def only_valid_gradients(tree: Tree, valid: Bool[Array, " S"]) -> Tree:
    """The arrays [S, ...], whose gradients are zero where a stage is in a bubble.

    The choice is made by `where`, not by a product, so that a NaN in a bubble does no harm.
    """

    def stop(x: Shaped[Array, "S ..."]) -> Shaped[Array, "S ..."]:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(align(valid, x.ndim), x, lax.stop_gradient(x))

    return jax.tree.map(stop, tree)


def pollute(tree: Tree, valid: Bool[Array, " S"]) -> Tree:
    """The arrays [S, ...] with NaN where a stage is in a bubble; a test aid."""

    def fill(x: Shaped[Array, "S ..."]) -> Shaped[Array, "S ..."]:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return jnp.where(align(valid, x.ndim), x, jnp.asarray(jnp.nan, x.dtype))

    return jax.tree.map(fill, tree)


def take_repeats(tree: Tree, repeat_ids: Int[Array, " S"]) -> Tree:
    """From arrays [R, S, ...], the layer [S, ...] that each stage applies now."""
    stages = jnp.arange(repeat_ids.shape[0])
    return jax.tree.map(lambda x: x[repeat_ids, stages], tree)


def put_repeats(tree: Tree, repeat_ids: Int[Array, " S"], updated: Tree) -> Tree:
    """The arrays [R, S, ...] with other layers in the place of those of `take_repeats`."""
    stages = jnp.arange(repeat_ids.shape[0])
    return jax.tree.map(lambda x, new: x.at[repeat_ids, stages].set(new), tree, updated)


def keep_valid(updated: Tree, old: Tree, valid: Bool[Array, " S"]) -> Tree:
    """Updates [S, ...], undone where a stage is in a bubble."""
    return jax.tree.map(lambda new, x: jnp.where(align(valid, x.ndim), new, x), updated, old)


def take_valid(tree: Tree, schedule: Schedule) -> Tree:
    """Sorts arrays of all iterations, [R M + S - 1, S, ...], by layer: [R, S, M, ...].

    What bubbles reported is left out.
    """
    iterations = schedule.iterations()  # [R, S, M]
    stages = jnp.arange(schedule.num_stages)[jnp.newaxis, :, jnp.newaxis]
    return jax.tree.map(lambda x: x[iterations, jnp.broadcast_to(stages, iterations.shape)], tree)


def aux_losses(tree: Tree, schedule: Schedule) -> Tree:
    """Losses of all iterations as those of the whole batch: means over microbatches, [R S, ...]."""

    def mean(x: Shaped[Array, "R S M ..."]) -> Float[Array, "L ..."]:
        by_layer = jnp.sum(x, axis=2) / schedule.num_microbatches
        return by_layer.reshape(-1, *by_layer.shape[2:])

    return jax.tree.map(mean, take_valid(tree, schedule))


def summaries(tree: Tree, schedule: Schedule, unpack: bool) -> Tree:
    """Summaries of all iterations as means over microbatches.

    Args:
      tree: Arrays [R M + S - 1, S, ...].
      schedule: The order of work.
      unpack: Give each layer a summary of its own, NAME.stage<j> or, with several repeats,
        NAME.circular_layer<i>.stage<j>; otherwise each has leading axes, [S, ...] or [R, S, ...].
    """
    means = jax.tree.map(
        lambda x: jnp.sum(x, axis=2) / schedule.num_microbatches, take_valid(tree, schedule)
    )
    if not unpack:
        is_circular = schedule.circular_repeat > 1
        return means if is_circular else jax.tree.map(lambda x: x[0], means)
    return _unpack_by_layer(means, schedule)


def _unpack_by_layer(tree: Tree, schedule: Schedule) -> Tree:
    """Replaces an entry of arrays [R, S, ...] by one of each layer, under names of their own."""
    unpacked = {}
    for key, node in tree.items():
        if isinstance(node, dict):
            unpacked[key] = _unpack_by_layer(node, schedule)
            continue
        suffix = base_layer.get_summary_type_suffix(base_layer.get_summary_type_from_key(key))
        name = base_layer.trim_summary_type_from_key(key)
        for i in range(schedule.circular_repeat):
            repeat = f".circular_layer{i}" if schedule.circular_repeat > 1 else ""
            for j in range(schedule.num_stages):
                own = jax.tree.map(lambda x, i=i, j=j: x[i, j], node)
                unpacked[f"{name}{repeat}.stage{j}{suffix}"] = own
    return unpacked


# ---- dtypes of the accumulation of gradients ----------------------------------------------------


def is_bfloat16(tree: Tree) -> Tree:
    """Which arrays of a tree are bfloat16, a tree of bools."""
    return jax.tree.map(lambda x: x.dtype == jnp.bfloat16, tree)


def cast_where(tree: Tree, mask: Tree, dtype: Any) -> Tree:
    """Casts the arrays for which the mask, a tree of bools, is true."""
    return jax.tree.map(lambda x, cast: x.astype(dtype) if cast else x, tree, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _cast_with_gradient(x: Array, dtype: Any, gradient_dtype: Any) -> Array:
    """Casts, and casts the gradient back; JAX cannot transpose casts from `fm32` (as of 0.10)."""
    return lax.convert_element_type(x, dtype)


_cast_with_gradient.defvjp(
    lambda x, dtype, gradient_dtype: (lax.convert_element_type(x, dtype), None),
    lambda dtype, gradient_dtype, _, grad: (lax.convert_element_type(grad, gradient_dtype),),
)


def to_max_accumulating(tree: Tree, mask: Tree) -> Tree:
    """Casts float32 arrays to a dtype whose gradients accumulate by maximum, not by sum.

    The "gradient" of a variable that is overwritten with it, as the largest value that an 8 bit
    float met, is its new value. Over the iterations of a loop, the largest of them is.

    Args:
      tree: Arrays.
      mask: Which ones to cast, a tree of bools.
    """
    return jax.tree.map(
        lambda x, cast: _cast_with_gradient(x, fp8_ops.fm32, jnp.float32) if cast else x, tree, mask
    )


def from_accumulating(tree: Tree, bfloat16_mask: Tree) -> Tree:
    """Casts arrays back: those of `to_max_accumulating`, and those that were bfloat16.

    Args:
      tree: Arrays.
      bfloat16_mask: Which ones were bfloat16, a tree of bools; None: none.
    """

    def cast(x: Array) -> Array:
        is_max = x.dtype == fp8_ops.fm32
        return _cast_with_gradient(x, jnp.float32, fp8_ops.fm32) if is_max else x

    tree = jax.tree.map(cast, tree)
    return tree if bfloat16_mask is None else cast_where(tree, bfloat16_mask, jnp.bfloat16)
