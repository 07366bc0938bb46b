"""Moving tokens to experts and back by sorting and gathering, without one-hot tensors.

Letters: G groups, S tokens in a group, E experts, C places in an expert, K experts of a token, D
model width.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import base_layer
from praxis.utils.routing import ExpertChoices, Routing


def count_groups(
    layer: base_layer.BaseLayer, num_tokens: int, num_groups: int, min_group_size: int | None
) -> int:
    """G: `num_groups`, or fewer where groups would be smaller than `min_group_size`.

    Raises:
      ValueError: naming the layer, if the tokens do not divide into the groups.
    """
    if min_group_size is not None and num_tokens < num_groups * min_group_size:
        num_groups = math.ceil(num_tokens / min_group_size)
    if num_tokens % num_groups:
        raise ValueError(
            f"{layer.path_text}: {num_tokens} tokens do not divide into {num_groups} groups. "
            f"Change num_groups or min_group_size = {min_group_size}, or the size of the batch."
        )
    return num_groups


def segment_means(
    inputs: Float[Array, "B T D"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """The mean over the segment of each token, in float32; 0 for segment 0, which is padding."""
    ids = segment_ids
    same = (ids[:, :, jnp.newaxis] == ids[:, jnp.newaxis, :]) & (ids[:, :, jnp.newaxis] != 0)
    shares = same / jnp.maximum(jnp.sum(same, axis=-1, keepdims=True), 1)
    return jnp.einsum("bts,bsd->btd", shares, inputs.astype(jnp.float32))


def tokens_in_places(
    tokens: Float[Array, "G S D"], places: Int[Array, "G E C"]
) -> Float[Array, "G E C D"]:
    """The token of each place; zeros where the number of the token is S, out of range."""
    flat = places.reshape(places.shape[0], -1, 1)
    found = jnp.take_along_axis(tokens, flat, axis=1, mode="fill", fill_value=0)
    return found.reshape(*places.shape, tokens.shape[-1])


def combine_places(outputs: Float[Array, "G E C D"], routing: Routing) -> Float[Array, "G S D"]:
    """Sums the outputs for each token over the places it has, with their weights."""
    num_groups, _, capacity, model_dims = outputs.shape
    # Clipped where there is no place: the weight is 0 there.
    numbers = routing.experts * capacity + jnp.clip(routing.places, 0, capacity - 1)
    flat = outputs.reshape(num_groups, -1, model_dims)
    found = jnp.take_along_axis(flat, numbers.reshape(num_groups, -1, 1), axis=1)
    found = found.reshape(*numbers.shape, model_dims)
    return jnp.einsum("gskd,gsk->gsd", found, routing.weights.astype(outputs.dtype))


def add_to_tokens(
    outputs: Float[Array, "G E C D"], chosen: ExpertChoices, group_size: int
) -> Float[Array, "G S D"]:
    """Adds the outputs of experts to the tokens that they chose, with their weights."""
    num_groups, _, _, model_dims = outputs.shape
    weighted = outputs * chosen.weights[..., jnp.newaxis].astype(outputs.dtype)
    zeros = jnp.zeros([group_size, model_dims], outputs.dtype)
    add = jax.vmap(lambda numbers, rows: zeros.at[numbers].add(rows))
    return add(chosen.tokens.reshape(num_groups, -1), weighted.reshape(num_groups, -1, model_dims))


def apply_by_expert(
    apply: Callable[[Float[Array, "M D"], Int[Array, " E"]], Float[Array, "M D"]],
    tokens: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    num_experts: int,
) -> Float[Array, "N D"]:
    """Sums what the experts of each token make of it, however many tokens an expert gets.

    Gale et al., "MegaBlocks", 2022, arXiv:2211.15841: rows are sorted by expert, and those of one
    expert are multiplied together.

    Args:
      apply: Gets M = N * K rows, sorted by expert, and the number of rows of each expert.
      tokens: [N, D].
      experts: [N, K].
      weights: [N, K].
      num_experts: E.
    """
    num_choices = experts.shape[1]
    flat = experts.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    sizes = jnp.bincount(flat, length=num_experts).astype(jnp.int32)
    outputs = apply(tokens[order // num_choices], sizes)
    outputs = outputs[jnp.argsort(order)].reshape(*experts.shape, -1)
    return jnp.einsum("nkd,nk->nd", outputs, weights.astype(outputs.dtype))


def count_dead_units(hidden: Float[Array, "E G C H"], threshold: float) -> Int[Array, ""]:
    """How many hidden units, of all experts, are at most `threshold` from 0 for all tokens."""
    return jnp.sum(jnp.max(jnp.abs(hidden), axis=(1, 2)) <= threshold)


def load_of_experts(
    experts: Int[Array, "*B K"], counted: Bool[Array, "*B K"], num_experts: int
) -> Float[Array, " E"]:
    """The share of the counted choices that each expert has."""
    chosen = jax.nn.one_hot(experts, num_experts) * counted[..., jnp.newaxis]
    load = jnp.sum(chosen, axis=range(experts.ndim))
    return load / jnp.maximum(jnp.sum(load), 1.0)


def share_of(part: Shaped[Array, "..."], whole: Shaped[Array, "..."]) -> Float[Array, ""]:
    """The sum of one array over that of another; 0 where that is 0."""
    return jnp.sum(part) / jnp.maximum(jnp.sum(whole), 1)
