"""Which tokens go to which experts, as indices: the choices, and the places in the experts.

Letters: G groups of tokens, S tokens in a group, E experts, C places for tokens in an expert
(its capacity in each group), K experts that a token chooses. Places are given out group by group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


class Routing(NamedTuple):
    """Experts that tokens chose, best first, and their places there.

    Attributes:
      experts: [G, S, K], numbers of experts.
      weights: [G, S, K], factors of the experts' outputs; 0 where not kept. float32.
      wanted: [G, S, K], whether the token asks for a place: not for padding.
      kept: [G, S, K], whether it got one.
      places: [G, S, K], place in the queue of the expert, from 0; meaningless where not wanted.
      slots: [G, E, C], the token that has each place; S where the place is free.
    """

    experts: Int[Array, "G S K"]
    weights: Float[Array, "G S K"]
    wanted: Bool[Array, "G S K"]
    kept: Bool[Array, "G S K"]
    places: Int[Array, "G S K"]
    slots: Int[Array, "G E C"]


class ExpertChoices(NamedTuple):
    """Tokens that experts chose, best first.

    Attributes:
      tokens: [G, E, C], numbers of tokens in their group.
      weights: [G, E, C], factors of the experts' outputs; 0 for padding. float32.
    """

    tokens: Int[Array, "G E C"]
    weights: Float[Array, "G E C"]


def cap_logits(logits: Float[Array, "..."], cap: float) -> Float[Array, "..."]:
    """`cap * tanh(logits / cap)` in float32, or the logits where the cap is 0."""
    logits = logits.astype(jnp.float32)
    return cap * jnp.tanh(logits / cap) if cap > 0.0 else logits


def gate_probs(
    logits: Float[Array, "G S E"], paddings: Shaped[Array, "G S"] | None
) -> Float[Array, "G S E"]:
    """Probabilities of the experts, in float32; 0 for padding (1 marks it)."""
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    return jnp.where(is_token(paddings, logits)[..., jnp.newaxis], probs, 0.0)


def is_token(
    paddings: Shaped[Array, "G S"] | None, logits: Float[Array, "G S E"]
) -> Bool[Array, "G S"]:
    """True where there is no padding."""
    return jnp.ones(logits.shape[:2], jnp.bool) if paddings is None else paddings <= 0


def expert_capacity(group_size: int, num_experts: int, minimum: int, factor: float | None) -> int:
    """Places for tokens in each expert: `minimum`, or what the factor asks for if that is more.

    Args:
      group_size: S.
      num_experts: E.
      minimum: The capacity where the factor asks for less.
      factor: Capacity over S / E; the result is rounded up to a multiple of 4. None or 0: not used.

    Returns:
      C; 0 if neither is given.
    """
    asked = int(group_size * (factor or 0.0) / num_experts)
    return -(-asked // 4) * 4 if asked > minimum else minimum


def load_balance_loss(
    probs: Float[Array, "G S E"], experts: Int[Array, "G S"], wanted: Bool[Array, "G S"]
) -> Float[Array, ""]:
    """E^2 times the mean, over groups and experts, of mean probability times share of tokens.

    It is 1 when experts are chosen evenly. Lepikhin et al., "GShard", 2020, arXiv:2006.16668,
    algorithm 1. Padding adds nothing, and counts as a token in the means.

    Args:
      probs: [G, S, E], 0 for padding.
      experts: [G, S], the first choices.
      wanted: [G, S], False for padding.
    """
    num_experts = probs.shape[-1]
    chosen = jax.nn.one_hot(experts, num_experts) * wanted[..., jnp.newaxis]
    product = jnp.mean(probs, axis=1) * jnp.mean(chosen, axis=1)
    return jnp.mean(product) * num_experts**2


def second_by_sampling(
    logits: Float[Array, "G S E"], first: Int[Array, "G S"], key: Array
) -> Int[Array, "G S"]:
    """Samples a second expert, among the others, with the probabilities of the logits."""
    taken = jax.nn.one_hot(first, logits.shape[-1], dtype=jnp.bool)
    noisy = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    return jnp.argmax(jnp.where(taken, -jnp.inf, noisy), axis=-1)


def normalize(weights: Float[Array, "*B K"]) -> Float[Array, "*B K"]:
    """Weights over their sum; 0 where that is 0."""
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-9)


def give_places(
    experts: Int[Array, "G S K"],
    weights: Float[Array, "G S K"],
    wanted: Bool[Array, "G S K"],
    *,
    num_experts: int,
    capacity: int,
) -> Routing:
    """Queues the choices of a group at their experts and keeps the first C in each queue.

    All first choices come before the second ones, and so on; within these, tokens keep their
    order. One stable sort by expert gives both the places and the tokens in them.

    Args:
      experts: [G, S, K].
      weights: [G, S, K].
      wanted: [G, S, K].
      num_experts: E.
      capacity: C.
    """
    num_groups, group_size, num_choices = experts.shape
    # Choices that want no place queue at an expert of their own, the last.
    queues = jnp.where(wanted, experts, num_experts).swapaxes(1, 2).reshape(num_groups, -1)
    order = jnp.argsort(queues, axis=-1, stable=True)  # [G, K * S]
    sizes = jnp.sum(jax.nn.one_hot(queues, num_experts + 1, dtype=jnp.int32), axis=1)
    starts = jnp.cumsum(sizes, axis=-1) - sizes  # [G, E + 1]
    places = jnp.argsort(order, axis=-1) - jnp.take_along_axis(starts, queues, axis=-1)
    places = places.reshape(num_groups, num_choices, group_size).swapaxes(1, 2)
    kept = wanted & (places < capacity)

    in_queue = jnp.arange(capacity)[jnp.newaxis, jnp.newaxis, :]
    indices = jnp.minimum(starts[:, :-1, jnp.newaxis] + in_queue, order.shape[-1] - 1)
    tokens = jnp.take_along_axis(order, indices.reshape(num_groups, -1), axis=-1) % group_size
    slots = jnp.where(
        in_queue < sizes[:, :-1, jnp.newaxis], tokens.reshape(indices.shape), group_size
    )
    return Routing(experts, jnp.where(kept, weights, 0.0), wanted, kept, places, slots)


def choose_experts(
    logits: Float[Array, "G S E"],
    paddings: Shaped[Array, "G S"] | None,
    *,
    num_choices: int,
    normalized: bool = True,
) -> tuple[Int[Array, "G S K"], Float[Array, "G S K"], Bool[Array, "G S K"]]:
    """The K most likely experts of each token, or all E if there are fewer.

    Args:
      logits: [G, S, E].
      paddings: [G, S], 1 marks padding.
      num_choices: K.
      normalized: Whether the K weights sum to 1, as a softmax over the K largest logits.

    Returns:
      experts, weights in float32 and wanted, as in `Routing`.
    """
    probs = gate_probs(logits, paddings)
    weights, experts = jax.lax.top_k(probs, min(num_choices, logits.shape[-1]))
    wanted = jnp.broadcast_to(is_token(paddings, logits)[..., jnp.newaxis], experts.shape)
    return experts, normalize(weights) if normalized else weights, wanted


def choose_tokens(
    logits: Float[Array, "G S E"], paddings: Shaped[Array, "G S"] | None, *, capacity: int
) -> ExpertChoices:
    """The C tokens of each group that prefer an expert most, for each expert; padding last.

    Zhou et al., "Mixture-of-Experts with Expert Choice Routing", 2022, arXiv:2202.09368.

    Args:
      logits: [G, S, E].
      paddings: [G, S], 1 marks padding.
      capacity: C; S if that is less.
    """
    probs = gate_probs(logits, paddings).swapaxes(1, 2)  # [G, E, S]
    tokens = is_token(paddings, logits)[:, jnp.newaxis, :]
    # Below all probabilities, so that padding comes after tokens whose probability is 0 too.
    weights, chosen = jax.lax.top_k(jnp.where(tokens, probs, -1.0), min(capacity, logits.shape[1]))
    return ExpertChoices(chosen, jnp.maximum(weights, 0.0))


def dispatch_and_combine(routing: Routing) -> tuple[Float[Array, "G S E C"], ...]:
    """Routing as tensors: 1 where a token has a place, and its weight there. float32."""
    num_experts, capacity = routing.slots.shape[1:]
    experts = jax.nn.one_hot(routing.experts, num_experts)
    # A place that is not kept may be in range where it is not wanted.
    places = jnp.where(routing.kept, routing.places, -1)
    places = jax.nn.one_hot(places, capacity)
    dispatch = jnp.einsum("gske,gskc->gsec", experts, places)
    combine = jnp.einsum("gsk,gske,gskc->gsec", routing.weights, experts, places)
    return dispatch, combine
