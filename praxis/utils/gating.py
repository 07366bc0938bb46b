"""Routing of tokens to experts, as dense tensors under the public names."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from praxis.utils import routing

SECOND_EXPERT_POLICIES = ("all", "sampling", "random")

# Loss, combine and dispatch tensors, and statistics.
Gating = tuple[Float[Array, ""], Float[Array, "..."], Float[Array, "..."], tuple[Any, ...]]
Paddings = Shaped[Array, "G S"] | None


def route_top2(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    *,
    capacity: int,
    key: Array | None = None,
    policy: str = "all",
    threshold: float = 0.0,
    normalize_first: bool = True,
    logit_cap: float = 0.0,
) -> tuple[Float[Array, ""], routing.Routing]:
    """Two experts a token, with limited capacity.

    Lepikhin et al., "GShard", 2020, arXiv:2006.16668, algorithm 1.

    Args:
      paddings: [G, S], 1 marks padding.
      logits: [G, S, E].
      capacity: C.
      key: Random key; needed unless the policy is "all".
      policy: Which second expert: "all", the second most likely one; "sampling", one sampled by
        its probability; "random", the second most likely one, with probability weight / threshold.
      threshold: Weight from which on "random" always takes a second expert.
      normalize_first: Make the two weights sum to 1 before tokens are dropped (True); or make those
        of the experts that a token has a place in sum to 1 (False).
      logit_cap: Bound of the logits, by a tanh; 0: none.

    Returns:
      The load-balance loss, and the routing.

    Raises:
      ValueError: if the policy is not known or the key is missing.
    """
    if policy not in SECOND_EXPERT_POLICIES:
        raise ValueError(
            f"second_expert_policy is {policy!r}, expected one of {list(SECOND_EXPERT_POLICIES)}."
        )
    if policy != "all" and key is None:
        raise ValueError(f"second_expert_policy = {policy!r} needs a random key; prng_key is None.")
    logits = routing.cap_logits(logits, logit_cap)
    experts, weights, wanted = routing.choose_experts(
        logits, paddings, num_choices=2, normalized=False
    )
    probs = routing.gate_probs(logits, paddings)
    if policy == "sampling" and logits.shape[-1] > 1:
        assert key is not None
        second = routing.second_by_sampling(logits, experts[..., 0], key)
        experts = jnp.stack([experts[..., 0], second], axis=-1)
        weights = jnp.take_along_axis(probs, experts, axis=-1)
    if policy == "random":
        assert key is not None
        shares = routing.normalize(weights) / max(threshold, 1e-9)
        draws = jax.random.uniform(key, shares.shape)
        wanted &= (draws < shares).at[..., 0].set(True)
    loss = routing.load_balance_loss(probs, experts[..., 0], wanted[..., 0])
    if normalize_first:
        weights = routing.normalize(weights)
    routed = routing.give_places(
        experts, weights, wanted, num_experts=logits.shape[-1], capacity=capacity
    )
    if not normalize_first:
        routed = routed._replace(weights=routing.normalize(routed.weights))
    return loss, routed


def route_top_k(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    *,
    capacity: int,
    num_choices: int,
    normalized: bool = True,
    logit_cap: float = 0.0,
) -> tuple[Float[Array, ""], routing.Routing]:
    """The K most likely experts of each token, with limited capacity.

    Args:
      paddings: [G, S], 1 marks padding.
      logits: [G, S, E].
      capacity: C.
      num_choices: K.
      normalized: Whether the K weights sum to 1 (before tokens are dropped); otherwise they are
        probabilities among all experts.
      logit_cap: Bound of the logits, by a tanh; 0: none.

    Returns:
      The load-balance loss of the first choices, and the routing.
    """
    logits = routing.cap_logits(logits, logit_cap)
    experts, weights, wanted = routing.choose_experts(
        logits, paddings, num_choices=num_choices, normalized=normalized
    )
    probs = routing.gate_probs(logits, paddings)
    loss = routing.load_balance_loss(probs, experts[..., 0], wanted[..., 0])
    return loss, routing.give_places(
        experts, weights, wanted, num_experts=logits.shape[-1], capacity=capacity
    )


def over_capacity_ratios(routed: routing.Routing) -> list[Float[Array, ""]]:
    """For each choice, the share of tokens that found no place, of those that wanted one."""
    wanted = jnp.sum(routed.wanted, axis=(0, 1))
    dropped = wanted - jnp.sum(routed.kept, axis=(0, 1))
    return list(dropped / jnp.maximum(wanted, 1))


def counts_by_experts(routed: routing.Routing) -> list[Shaped[Array, ""]]:
    """How many tokens got a place in 0, 1, .. K experts; padding is not counted."""
    kept = jnp.sum(routed.kept, axis=-1)
    is_token = routed.wanted[..., 0]
    numbers = range(routed.kept.shape[-1] + 1)
    return [jnp.sum(is_token & (kept == number)) for number in numbers]


def top2_gating_on_logits(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    experts_dim: int,
    expert_capacity_dim: int,
    fprop_dtype: DTypeLike,
    prng_key: Array | None = None,
    second_expert_policy: str = "all",
    second_expert_threshold: float = 0.0,
    legacy_mtf_behavior: bool = True,
    capacity_factor: float | None = None,
    importance: Float[Array, "G S"] | None = None,
    mask_dtype: DTypeLike = jnp.int32,
    gating_logit_cap: float = 0.0,
) -> Gating:
    """Two experts a token, see `route_top2`.

    Args:
      paddings: [G, S], 1 marks padding; None: there is none.
      logits: [G, S, E].
      experts_dim: E.
      expert_capacity_dim: C, if the factor does not ask for more.
      fprop_dtype: Dtype of the results.
      prng_key: Random key; needed unless the policy is "all".
      second_expert_policy: "all", "sampling" or "random".
      second_expert_threshold: Weight from which on "random" always takes a second expert.
      legacy_mtf_behavior: Normalise the two weights before tokens are dropped.
      capacity_factor: Asks for C = factor * S / E, rounded up to a multiple of 4.
      importance: Not supported.
      mask_dtype: Dtype of the counts.
      gating_logit_cap: Bound of the logits, by a tanh; 0: none.

    Returns:
      The loss; combine and dispatch tensors [G, S, E, C]; and the shares of tokens that found no
      place in their first and second expert, and the numbers of tokens with 0, 1 and 2 experts.

    Raises:
      ValueError: if the sizes or the options are wrong.
      NotImplementedError: if `importance` is given.
    """
    if importance is not None:
        raise NotImplementedError(
            "top2_gating_on_logits: importance is not supported; mark tokens that go nowhere in "
            "paddings."
        )
    loss, routed = route_top2(
        paddings,
        logits,
        capacity=_capacity(logits, experts_dim, expert_capacity_dim, capacity_factor),
        key=prng_key,
        policy=second_expert_policy,
        threshold=second_expert_threshold,
        normalize_first=legacy_mtf_behavior,
        logit_cap=gating_logit_cap,
    )
    counts = [count.astype(mask_dtype) for count in counts_by_experts(routed)]
    return _as_tensors(loss, routed, (*over_capacity_ratios(routed), *counts), fprop_dtype)


def topk_gating_on_logits(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    experts_dim: int,
    expert_capacity_dim: int,
    fprop_dtype: DTypeLike,
    capacity_factor: float | None = None,
    mask_dtype: DTypeLike = jnp.int32,
    k: int = 2,
    gating_logit_cap: float = 0.0,
) -> Gating:
    """`k` experts a token, see `route_top_k`; arguments as in `top2_gating_on_logits`.

    Returns:
      The loss; combine and dispatch tensors [G, S, E, C]; and for each of the k choices the share
      of tokens that found no place.
    """
    del mask_dtype  # there are no counts
    loss, routed = route_top_k(
        paddings,
        logits,
        capacity=_capacity(logits, experts_dim, expert_capacity_dim, capacity_factor),
        num_choices=k,
        logit_cap=gating_logit_cap,
    )
    return _as_tensors(loss, routed, tuple(over_capacity_ratios(routed)), fprop_dtype)


def expert_choice_gating_on_logits(
    logits: Float[Array, "G S E"],
    experts_dim: int,
    expert_capacity_dim: int,
    fprop_dtype: DTypeLike,
    capacity_factor: float | None = None,
    mask_dtype: DTypeLike = jnp.int32,
) -> Gating:
    """Each expert takes the tokens that prefer it most, see `routing.choose_tokens`.

    Arguments as in `top2_gating_on_logits`; there is no padding here.

    Returns:
      The loss, 0; combine [G, E, C] and dispatch [G, E, C, S] tensors; no statistics.
    """
    del mask_dtype  # there are no counts
    _check_experts(logits, experts_dim)
    chosen = routing.choose_tokens(
        logits,
        None,
        capacity=tokens_per_expert(
            logits.shape[1], experts_dim, expert_capacity_dim, capacity_factor
        ),
    )
    dispatch = jax.nn.one_hot(chosen.tokens, logits.shape[1], dtype=fprop_dtype)
    return jnp.zeros([]), chosen.weights.astype(fprop_dtype), dispatch, ()


def expert_choice_gating_on_logits_v2(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    experts_dim: int,
    expert_capacity_dim: int,
    fprop_dtype: DTypeLike,
    capacity_factor: float | None = None,
    mask_dtype: DTypeLike = jnp.int32,
    gating_logit_cap: float = 0.0,
) -> Gating:
    """Each expert takes the tokens that prefer it most; padding goes nowhere.

    Arguments as in `top2_gating_on_logits`, with C limited to S.

    Returns:
      The loss, 0; combine and dispatch tensors [G, S, E, C]; no statistics.
    """
    del mask_dtype  # there are no counts
    capacity = _capacity(logits, experts_dim, expert_capacity_dim, capacity_factor)
    logits = routing.cap_logits(logits, gating_logit_cap)
    chosen = routing.choose_tokens(logits, paddings, capacity=capacity)
    # A token whose probability has underflowed to 0 is dropped with the padding: nothing is lost.
    kept = (chosen.weights > 0.0)[..., jnp.newaxis]
    tokens = jnp.where(kept, jax.nn.one_hot(chosen.tokens, logits.shape[1]), 0.0)
    dispatch = jnp.moveaxis(tokens, -1, 1)  # [G, S, E, C]
    combine = dispatch * chosen.weights[:, jnp.newaxis]
    return jnp.zeros([]), combine.astype(fprop_dtype), dispatch.astype(fprop_dtype), ()


def dense_top2_gating(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    fprop_dtype: DTypeLike,
    gating_logit_cap: float = 0.0,
) -> Gating:
    """Weights of all experts, of which two are not 0, for experts that see all tokens.

    Returns:
      The loss, 0; combine and dispatch tensors [G, S, E]; no statistics.
    """
    weights = dense_weights(
        paddings, routing.cap_logits(logits, gating_logit_cap), num_choices=2, normalized=True
    )
    return jnp.zeros([]), weights.astype(fprop_dtype), (weights > 0).astype(fprop_dtype), ()


def dense_weights(
    paddings: Paddings, logits: Float[Array, "G S E"], *, num_choices: int, normalized: bool
) -> Float[Array, "G S E"]:
    """Weights of all experts, 0 but for the K most likely ones of each token; float32."""
    experts, weights, _ = routing.choose_experts(
        logits, paddings, num_choices=num_choices, normalized=normalized
    )
    return jnp.einsum("gske,gsk->gse", jax.nn.one_hot(experts, logits.shape[-1]), weights)


def compute_gating(
    paddings: Paddings,
    logits: Float[Array, "G S E"],
    experts_dim: int,
    expert_capacity_dim: int,
    fprop_dtype: DTypeLike,
    gating_func: str = "top2",
    prng_key: Array | None = None,
    second_expert_policy: str = "all",
    second_expert_threshold: float = 0.0,
    legacy_mtf_behavior: bool = True,
    capacity_factor: float | None = None,
    mask_dtype: DTypeLike = jnp.int32,
    gating_logit_cap: float = 0.0,
) -> Gating:
    """Routes by the function of a name; the other arguments are those of the functions.

    Args:
      paddings: [G, S], 1 marks padding; None: there is none.
      logits: [G, S, E].
      experts_dim: E.
      expert_capacity_dim: C, if the factor does not ask for more.
      fprop_dtype: Dtype of the results.
      gating_func: "top2", "expert_choice", "expert_choice_v2" or "dense_top2".
      prng_key: For "top2".
      second_expert_policy: For "top2".
      second_expert_threshold: For "top2".
      legacy_mtf_behavior: For "top2".
      capacity_factor: Asks for C = factor * S / E.
      mask_dtype: Dtype of counts.
      gating_logit_cap: Bound of the logits, by a tanh; 0: none.

    Returns:
      The load-balance loss, combine and dispatch tensors, and statistics; see the functions.

    Raises:
      ValueError: if no function has this name; or as the functions.
    """
    capacity = {"capacity_factor": capacity_factor, "mask_dtype": mask_dtype}
    sizes = (experts_dim, expert_capacity_dim, fprop_dtype)
    if gating_func == "top2":
        return top2_gating_on_logits(
            paddings,
            logits,
            *sizes,
            prng_key=prng_key,
            second_expert_policy=second_expert_policy,
            second_expert_threshold=second_expert_threshold,
            legacy_mtf_behavior=legacy_mtf_behavior,
            gating_logit_cap=gating_logit_cap,
            **capacity,
        )
    if gating_func == "expert_choice":
        return expert_choice_gating_on_logits(logits, *sizes, **capacity)
    if gating_func == "expert_choice_v2":
        return expert_choice_gating_on_logits_v2(
            paddings, logits, *sizes, gating_logit_cap=gating_logit_cap, **capacity
        )
    if gating_func == "dense_top2":
        _check_experts(logits, experts_dim)
        return dense_top2_gating(paddings, logits, fprop_dtype, gating_logit_cap)
    raise ValueError(
        f"compute_gating: gating_func is {gating_func!r}, expected 'top2', 'expert_choice', "
        "'expert_choice_v2' or 'dense_top2'."
    )


def tokens_per_expert(group_size: int, num_experts: int, minimum: int, factor: float | None) -> int:
    """How many tokens an expert chooses: `S // E * factor`, or `minimum` without a factor.

    The result is from 1 to S.
    """
    asked = int(group_size // num_experts * factor) if factor else minimum
    return min(max(asked, 1), group_size)


def _check_experts(logits: Float[Array, "G S E"], experts_dim: int) -> None:
    if logits.shape[-1] != experts_dim:
        raise ValueError(
            f"gating: logits have shape {logits.shape}, expected [G, S, E] with E = experts_dim = "
            f"{experts_dim}."
        )


def _capacity(
    logits: Float[Array, "G S E"], experts_dim: int, minimum: int, factor: float | None
) -> int:
    """C, checked."""
    _check_experts(logits, experts_dim)
    capacity = routing.expert_capacity(logits.shape[1], experts_dim, minimum, factor)
    if capacity < 1:
        raise ValueError(
            f"gating: expert_capacity_dim = {minimum} and capacity_factor = {factor} leave no "
            f"place for the {logits.shape[1]} tokens of a group in {experts_dim} experts. Give one "
            "of them."
        )
    return capacity


def _as_tensors(
    loss: Float[Array, ""],
    routed: routing.Routing,
    statistics: tuple[Any, ...],
    fprop_dtype: DTypeLike,
) -> Gating:
    dispatch, combine = routing.dispatch_and_combine(routed)
    return loss, combine.astype(fprop_dtype), dispatch.astype(fprop_dtype), statistics
