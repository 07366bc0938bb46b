"""How to choose the next token from the logits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_hyperparams, pax_fiddle, py_utils

NestedMap = py_utils.NestedMap
PerRow = float | Shaped[Array, "..."] | None

# Keys of examples that are all this number count as not given.
DUMMY_PRNG_KEY = 15753


# ---- noise --------------------------------------------------------------------------------------


def gumbel_noise(keys: Shaped[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "B K"]:
    """Gumbel noise, in float32, since coarser noise would favour some tokens.

    Args:
      keys: One key, or B keys, of which each row of the noise uses its own.
      shape: (B, K).

    Raises:
      ValueError: if there are several keys, but not B.
    """
    one_key_ndim = 0 if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else 1
    if keys.ndim == one_key_ndim:
        return jax.random.gumbel(keys, shape, jnp.float32)
    if keys.ndim != one_key_ndim + 1 or keys.shape[0] != shape[0]:
        raise ValueError(
            f"Keys of shape {keys.shape} for {shape[0]} rows of logits: expected one key, or one "
            "for each row."
        )
    return jax.vmap(lambda key: jax.random.gumbel(key, shape[1:], jnp.float32))(keys)


def _by_row(value: Any) -> Any:
    """A number, or numbers [B] or [B, 1], so that they broadcast with [B, K]."""
    value = jnp.asarray(value, jnp.float32)
    if value.ndim == 0:
        return value
    return value.reshape(value.shape[0], -1)


class BaseLogitsSampler(base_hyperparams.FiddleBaseParameterizable):
    """Draws from logits; subclasses implement `__call__`."""

    def __call__(
        self,
        prng_key: Shaped[Array, "..."],
        logits: Float[Array, "B K"],
        ids: Int[Array, "B K"] | None,
        temperature: PerRow,
        decode_loop_state: NestedMap | None,
    ) -> tuple[Int[Array, " B"], NestedMap]:
        """Draws an index for each row.

        Args:
          prng_key: A key, or one for each row.
          logits: [B, K], of candidates.
          ids: [B, K], the tokens of the candidates; None: K is V, and the tokens are the indices.
          temperature: Of all rows, or [B] or [B, 1].
          decode_loop_state: The state of the loop, if there is one.

        Returns:
          Indices into K, [B], and new values for entries of the state of the loop.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.__call__ is not implemented: return indices [B], NestedMap."
        )


class DefaultCategoricalLogitsSampler(BaseLogitsSampler):
    """Draws an index with probability softmax(logits / temperature), by the Gumbel-max trick."""

    def __call__(
        self,
        prng_key: Shaped[Array, "..."],
        logits: Float[Array, "B K"],
        ids: Int[Array, "B K"] | None,
        temperature: PerRow,
        decode_loop_state: NestedMap | None,
    ) -> tuple[Int[Array, " B"], NestedMap]:
        """Draws an index for each row, see `BaseLogitsSampler`."""
        del ids, decode_loop_state
        noise = gumbel_noise(prng_key, logits.shape)
        scale = _by_row(0.0 if temperature is None else temperature)
        noisy = logits.astype(jnp.float32) + noise * jnp.broadcast_to(scale, noise.shape)
        return jnp.argmax(noisy, axis=-1).astype(jnp.int32), NestedMap()


# ---- candidates ---------------------------------------------------------------------------------


def epsilon_mask_logits(logits: Float[Array, "B V"], epsilon: float) -> Float[Array, "B V"]:
    """Hides tokens of probability below `epsilon`; all stay if it is not positive."""
    if epsilon <= 0.0:
        return logits
    probs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.where(probs < epsilon, py_utils.get_large_negative_number(logits.dtype), logits)


def top_p_mask_logits(
    logits: Float[Array, "B K"],
    p: PerRow,
    logits_sorted_in_descending_order: bool = False,
    logits_sum: Float[Array, "B 1"] | None = None,
) -> Float[Array, "B K"]:
    """Keeps the most likely tokens that together have more than probability `p`.

    Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751. The
    token that crosses `p` is kept, and so are tokens as likely as it.

    Args:
      logits: [B, K].
      p: Probability, of all rows, or [B] or [B, 1]. None, or a Python number of at least 1, keeps
        all.
      logits_sorted_in_descending_order: The caller sorted them.
      logits_sum: [B, 1], logsumexp over all tokens, if K are only some of them and probabilities
        are to be among all. None: among the K.

    Returns:
      [B, K], with a large negative number for what is not kept.
    """
    if p is None or (isinstance(p, int | float) and p >= 1.0):
        return logits
    falling = logits if logits_sorted_in_descending_order else -jnp.sort(-logits, axis=-1)
    wide = falling.astype(jnp.float32)
    normalizer = (
        jax.nn.logsumexp(wide, axis=-1, keepdims=True) if logits_sum is None else logits_sum
    )
    cumulative = jnp.cumsum(jnp.exp(wide - normalizer.astype(jnp.float32)), axis=-1)
    kept_before = cumulative <= jnp.broadcast_to(_by_row(p), cumulative.shape)
    crossing = jnp.sum(kept_before, axis=-1, keepdims=True)  # [B, 1]
    crossing = jnp.minimum(crossing, logits.shape[-1] - 1)
    smallest = jnp.take_along_axis(falling, crossing, axis=-1)  # [B, 1]
    return jnp.where(logits < smallest, py_utils.get_large_negative_number(logits.dtype), logits)


def get_top_k(
    logits: Float[Array, "B V"],
    top_k: int,
    per_example_top_k: Int[Array, " B"] | None,
    top_k_recall_target: float = 1.0,
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The most likely tokens.

    Args:
      logits: [B, V].
      top_k: K; V if that is less.
      per_example_top_k: [B], at most K: the logits of what is less likely are hidden.
      top_k_recall_target: Below 1, the share of the K that an approximate search finds.

    Returns:
      Logits and tokens, [B, K], in falling order.
    """
    top_k = min(top_k, logits.shape[-1])
    if top_k_recall_target < 1.0:
        values, ids = jax.lax.approx_max_k(logits, top_k, recall_target=top_k_recall_target)
    else:
        values, ids = jax.lax.top_k(logits, top_k)
    if per_example_top_k is not None:
        keep = jnp.maximum(per_example_top_k, 1).reshape(-1, 1)
        rank = jnp.arange(top_k)[jnp.newaxis]
        values = jnp.where(rank < keep, values, py_utils.get_large_negative_number(values.dtype))
    return values, ids


# ---- choice -------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """Chosen tokens.

    Attributes:
      ids: [B], the tokens.
      logprobs: [B], log-probabilities among the candidates, float32.
      new_state: New values for entries of the state of the loop.
    """

    ids: Int[Array, " B"]
    logprobs: Float[Array, " B"]
    new_state: NestedMap


def _choose(
    logits: Float[Array, "B K"],
    masked: Float[Array, "B K"],
    ids: Int[Array, "B K"] | None,
    prng_key: Shaped[Array, "..."] | None,
    temperature: PerRow,
    logits_sampler: BaseLogitsSampler | None,
    decode_loop_state: NestedMap | None,
) -> Choice:
    """Draws from `masked` logits of candidates; log-probabilities are those of `logits`."""
    greedy = temperature is None or (isinstance(temperature, int | float) and temperature == 0)
    if greedy or logits.shape[-1] == 1 or prng_key is None:
        indices, new_state = jnp.argmax(masked, axis=-1).astype(jnp.int32), NestedMap()
    else:
        sampler = logits_sampler or DefaultCategoricalLogitsSampler()
        indices, new_state = sampler(prng_key, masked, ids, temperature, decode_loop_state)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    chosen = indices[:, jnp.newaxis]
    tokens = indices if ids is None else jnp.take_along_axis(ids, chosen, axis=-1)[:, 0]
    logprobs = jnp.take_along_axis(log_probs, chosen, axis=-1)[:, 0]
    return Choice(tokens.astype(jnp.int32), logprobs, new_state)


def sample_from_top_p_given_top_k(
    top_k_logits: Float[Array, "B K"],
    top_k_indices: Int[Array, "B K"],
    prng_key: Shaped[Array, "..."],
    temperature: PerRow,
    top_p: PerRow = None,
    topk_is_sorted: bool = True,
    logits_sum: Float[Array, "B 1"] | None = None,
    logits_sampler: BaseLogitsSampler | None = None,
    decode_loop_state: NestedMap | None = None,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Draws tokens from candidates, of which the most likely ones are kept.

    Args:
      top_k_logits: [B, K].
      top_k_indices: [B, K], the tokens of the candidates.
      prng_key: A key, or one for each row.
      temperature: Factor of the noise, after `top_p`; of all rows, or [B] or [B, 1]. 0 or None
        takes the most likely token.
      top_p: As in `top_p_mask_logits`.
      topk_is_sorted: The candidates are in falling order.
      logits_sum: As in `top_p_mask_logits`.
      logits_sampler: What draws; None: `DefaultCategoricalLogitsSampler`.
      decode_loop_state: The state of the loop, for the sampler.

    Returns:
      Tokens [B], and their log-probabilities among the candidates before `top_p`, [B].
    """
    masked = top_p_mask_logits(top_k_logits, top_p, topk_is_sorted, logits_sum)
    choice = _choose(
        top_k_logits,
        masked,
        top_k_indices,
        prng_key,
        temperature,
        logits_sampler,
        decode_loop_state,
    )
    return choice.ids, choice.logprobs


def sample_from_top_k_and_top_p(
    logits: Float[Array, "B V"],
    prng_key: Shaped[Array, "..."] | None,
    temperature: PerRow,
    top_k: int,
    top_p: PerRow = None,
    per_example_top_k: Int[Array, " B"] | None = None,
    global_normalize: bool = False,
    top_k_recall_target: float = 1.0,
    logits_sampler: BaseLogitsSampler | None = None,
    decode_loop_state: NestedMap | None = None,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Draws tokens from the `top_k` most likely ones, and of these from the `top_p` nucleus.

    Args:
      logits: [B, V].
      prng_key: A key, or one for each row.
      temperature: As in `sample_from_top_p_given_top_k`.
      top_k: K. 0: all tokens are candidates; 1: the most likely token.
      top_p: As in `top_p_mask_logits`.
      per_example_top_k: [B], at most K.
      global_normalize: `top_p` refers to probabilities among all tokens, not among the K.
      top_k_recall_target: Below 1, the share of the K that an approximate search finds.
      logits_sampler: What draws; None: `DefaultCategoricalLogitsSampler`.
      decode_loop_state: The state of the loop, for the sampler.

    Returns:
      Tokens [B], and their log-probabilities among the candidates before `top_p`, [B].
    """
    choice = choose_from_top_k_and_top_p(
        logits,
        prng_key,
        temperature,
        top_k=top_k,
        top_p=top_p,
        per_example_top_k=per_example_top_k,
        global_normalize=global_normalize,
        top_k_recall_target=top_k_recall_target,
        logits_sampler=logits_sampler,
        decode_loop_state=decode_loop_state,
    )
    return choice.ids, choice.logprobs


def choose_from_top_k_and_top_p(
    logits: Float[Array, "B V"],
    prng_key: Shaped[Array, "..."] | None,
    temperature: PerRow,
    *,
    top_k: int,
    top_p: PerRow,
    per_example_top_k: Int[Array, " B"] | None,
    global_normalize: bool,
    top_k_recall_target: float,
    logits_sampler: BaseLogitsSampler | None,
    decode_loop_state: NestedMap | None,
) -> Choice:
    """As `sample_from_top_k_and_top_p`, with what the sampler changes in the state of the loop."""
    if top_k == 0:
        masked = top_p_mask_logits(logits, top_p)
        return _choose(
            logits, masked, None, prng_key, temperature, logits_sampler, decode_loop_state
        )
    candidates, ids = get_top_k(logits, top_k, per_example_top_k, top_k_recall_target)
    normalizer = None
    if global_normalize:
        normalizer = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1, keepdims=True)
    masked = top_p_mask_logits(candidates, top_p, True, normalizer)
    return _choose(
        candidates, masked, ids, prng_key, temperature, logits_sampler, decode_loop_state
    )


# ---- samplers -----------------------------------------------------------------------------------


class BaseNextTokenSampler(base_hyperparams.FiddleBaseParameterizable):
    """Chooses the next token of each row; subclasses implement `__call__`.

    A subclass may keep entries of its own in the state of the loop: it adds them in
    `init_decode_loop_state`, and returns new values together with the tokens.
    """

    def init_decode_loop_state(
        self,
        decode_loop_state: NestedMap,
        model: Any = None,
        batch_size: int | None = None,
        eos_id: Any = None,
    ) -> NestedMap:
        """Adds entries to the state of the loop, and returns it.

        Args:
          decode_loop_state: The state.
          model: The model.
          batch_size: N, rows.
          eos_id: Tokens that end a text.
        """
        del model, batch_size, eos_id
        return decode_loop_state

    def __call__(
        self,
        model: Any,
        logits: Float[Array, "B V"],
        temperature: PerRow,
        decode_loop_state: NestedMap,
    ) -> NestedMap:
        """Chooses tokens.

        Args:
          model: The model, for random keys.
          logits: [B, V].
          temperature: Of all rows, or [B] or [B, 1].
          decode_loop_state: The state of the loop.

        Returns:
          `new_ids` [B], `logits` [B, V], and new values for entries of the state.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.__call__ is not implemented: return a NestedMap with new_ids."
        )

    def post_process_decode_loop_state(self, decode_loop_state: NestedMap) -> NestedMap:
        """Changes the state after the loop, and returns it."""
        return decode_loop_state

    @classmethod
    def get_extra_kwargs(cls, inputs: NestedMap, num_samples: int) -> dict[str, Any]:
        """Fields of the sampler that come from the batch.

        Args:
          inputs: The batch.
          num_samples: Continuations of each row.
        """
        del inputs, num_samples
        return {}


class DefaultNextTokenSampler(BaseNextTokenSampler):
    """Draws from the most likely tokens.

    Candidates are chosen by their probability without temperature, then noise of that temperature
    decides among them.

    Attributes:
      top_k: Number of candidates; 0 for all, 1 for the most likely token.
      top_p: The candidates that have this probability together; None for all.
      epsilon_p: Smallest probability of a candidate.
      global_normalize: `top_p` refers to probabilities among all tokens, not among `top_k`.
      top_k_recall_target: Below 1, an approximate and faster top-k on accelerators.
      use_top_k_for_logprobs: Report log-probabilities among the candidates.
      logits_sampler: What draws.
    """

    top_k: int = 40
    top_p: float | jax.Array | None = None
    epsilon_p: float = 0.0
    global_normalize: bool = False
    top_k_recall_target: float = 1.0
    use_top_k_for_logprobs: bool = False
    logits_sampler: BaseLogitsSampler = pax_fiddle.instance_field(
        default_factory=DefaultCategoricalLogitsSampler
    )

    def __call__(
        self,
        model: Any,
        logits: Float[Array, "B V"],
        temperature: PerRow,
        decode_loop_state: NestedMap,
        per_example_top_p: Shaped[Array, " B"] | None = None,
        per_example_top_k: Int[Array, " B"] | None = None,
        gumbel_prng_key: Shaped[Array, "..."] | None = None,
    ) -> NestedMap:
        """Chooses tokens, see `BaseNextTokenSampler`.

        Args:
          model: The model, for random keys.
          logits: [B, V].
          temperature: Of all rows, or [B] or [B, 1]. 0 or None takes the most likely candidate.
          decode_loop_state: The state of the loop.
          per_example_top_p: [B], instead of `top_p`.
          per_example_top_k: [B], at most `top_k`.
          gumbel_prng_key: A seed [B] or a key [B, 2] for each row, instead of the model's keys,
            unless all are `DUMMY_PRNG_KEY`.

        Returns:
          `new_ids` [B]; `logits`, as given; `logprobs_at_new_ids` [B], with
          `use_top_k_for_logprobs`; and what the `logits_sampler` returns.
        """
        if self.top_k < 0:
            raise ValueError(f"{type(self).__name__}: top_k is {self.top_k}, expected at least 0.")
        candidates = epsilon_mask_logits(logits, self.epsilon_p)
        choice = choose_from_top_k_and_top_p(
            candidates,
            self._keys(model, logits.shape[0], temperature, gumbel_prng_key, decode_loop_state),
            temperature,
            top_k=self.top_k,
            top_p=self.top_p if per_example_top_p is None else per_example_top_p,
            per_example_top_k=per_example_top_k,
            global_normalize=self.global_normalize,
            top_k_recall_target=self.top_k_recall_target,
            logits_sampler=self.logits_sampler,
            decode_loop_state=decode_loop_state,
        )
        outputs = NestedMap(new_ids=choice.ids, logits=logits)
        if self.use_top_k_for_logprobs:
            outputs.logprobs_at_new_ids = choice.logprobs
        outputs.update(choice.new_state)
        return outputs

    def _keys(
        self,
        model: Any,
        batch: int,
        temperature: PerRow,
        seeds: Shaped[Array, "..."] | None,
        decode_loop_state: NestedMap,
    ) -> Shaped[Array, "..."] | None:
        """The key, or the keys of the rows; None where nothing is drawn."""
        greedy = temperature is None or (isinstance(temperature, int | float) and temperature == 0)
        if self.top_k == 1 or greedy:
            return None
        if seeds is None:
            return model.next_prng_key()
        # Counted from the first token, so that the noise does not depend on the width of prefixes.
        step = decode_loop_state.step - decode_loop_state.get("start_step", 0)
        keys = jax.vmap(jax.random.PRNGKey)(seeds) if seeds.ndim == 1 else seeds
        keys = jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)
        own = jax.random.split(model.next_prng_key(), batch)
        return jnp.where(jnp.all(seeds == DUMMY_PRNG_KEY), own, keys)
