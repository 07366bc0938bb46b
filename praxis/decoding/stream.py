"""Generation that hands out each token as soon as it is known.

A call over the prompts fills caches, and one compiled step, which changes these in place, makes a
token of each text. Widths are rounded up to buckets, so that requests of similar size share the
compiled code, and caches are as long as the request needs, not as the model could.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from praxis import base_layer, py_utils

NestedMap = py_utils.NestedMap

# Collections that the steps change.
CACHES = (base_layer.DECODE_CACHE, base_layer.PREFIX_DECODE_CACHE)


class NewTokens(NamedTuple):
    """What one step generated, on the host. Shapes: B texts.

    Attributes:
      ids: [B], int32, tokens; 0 for texts that had ended before.
      logprobs: [B], float32, their log-probabilities; 1 for texts that had ended before.
      done: [B], bool, whether the text has ended, with this token or before.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    done: np.ndarray


@dataclasses.dataclass(frozen=True)
class StreamFns:
    """How a model generates step by step; both functions are called inside `apply`.

    Attributes:
      prefill: (layer, request) -> the state before the first step; fills the caches.
      step: (layer, request, state) -> the state after a step.
    """

    prefill: Callable[[Any, NestedMap], NestedMap]
    step: Callable[[Any, NestedMap, NestedMap], NestedMap]


def round_up(length: int, bucket: int) -> int:
    """The next multiple of `bucket`."""
    return -(-length // bucket) * bucket


class TokenStreamer:
    """Generates with one layer and one way to decode; keeps the compiled functions."""

    def __init__(self, layer: Any, fns: StreamFns) -> None:
        """For an unbound `layer` with the functions of its model."""
        self.layer = layer
        self._prefill = jax.jit(self._apply_prefill(fns))
        self._step = jax.jit(self._apply_step(fns), donate_argnames=("carried",))

    def _apply_prefill(self, fns: StreamFns) -> Callable[..., Any]:
        def prefill(variables: Any, request: NestedMap, key: jax.Array) -> Any:
            with _evaluation():
                state, caches = self.layer.apply(
                    variables,
                    request,
                    method=fns.prefill,
                    rngs={base_layer.RANDOM: key},
                    mutable=list(CACHES),
                )
            return NestedMap(state=state, caches=dict(caches))

        return prefill

    def _apply_step(self, fns: StreamFns) -> Callable[..., Any]:
        def step(variables: Any, request: NestedMap, carried: NestedMap, key: jax.Array) -> Any:
            number = carried.state.step - carried.state.start_step
            with _evaluation():
                state, caches = self.layer.apply(
                    {**variables, **carried.caches},
                    request,
                    carried.state,
                    method=fns.step,
                    # The keys of the loop of `sample_decode`.
                    rngs={base_layer.RANDOM: jax.random.fold_in(key, number)},
                    mutable=list(CACHES),
                )
            new = NestedMap(
                ids=_column(state.output_ids, state.step),
                logprobs=_column(state.logprobs, state.step),
                done=state.done,
            )
            return NestedMap(state=state, caches=dict(caches)), new

        return step

    def __call__(
        self,
        variables: Any,
        request: NestedMap,
        *,
        max_steps: int,
        prng_key: jax.Array,
        stop_sequences: Sequence[Sequence[int]] = (),
    ) -> Iterator[NewTokens]:
        """Generates until all texts have ended.

        Args:
          variables: Of the layer.
          request: Arrays for the functions of the model.
          max_steps: Most tokens to generate.
          prng_key: For drawing.
          stop_sequences: Sequences of tokens, each of which ends a text.

        Yields:
          The new tokens of each step.
        """
        stops = _StopSequences(stop_sequences)
        carried = self._prefill(variables, request, prng_key)
        pending, stopped = [], False
        for _ in range(max_steps):
            # The next step is under way before this one is read: the device does not wait.
            carried, new = self._step(variables, request, carried, prng_key)
            pending.append(new)
            if len(pending) > 1:
                tokens = stops(pending.pop(0))
                yield tokens
                if stopped := bool(tokens.done.all()):
                    return
        while pending and not stopped:
            tokens = stops(pending.pop(0))
            yield tokens
            stopped = bool(tokens.done.all())


def _evaluation() -> Any:
    """A context in which layers do not train."""
    context = base_layer.JaxContext.top()
    hparams = base_layer.JaxContext.HParams() if context is None else context.hparams.clone()
    hparams.do_eval = True
    return base_layer.JaxContext.new_context(hparams=hparams)


def _column(x: jax.Array, step: Int[Array, ""]) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, step, axis=1, keepdims=False)


class _StopSequences:
    """Ends texts on the host, where their last tokens are one of some sequences."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        if any(not sequence for sequence in sequences):
            raise ValueError(
                f"stop_sequences has an empty sequence: {sequences}. Each needs at least a token."
            )
        self._sequences = [np.asarray(sequence, np.int32) for sequence in sequences]
        self._width = max((len(sequence) for sequence in self._sequences), default=0)
        self._last: np.ndarray | None = None
        self._done: np.ndarray | None = None

    def __call__(self, new: NestedMap) -> NewTokens:
        ids, logprobs, done = (np.asarray(x) for x in (new.ids, new.logprobs, new.done))
        if not self._sequences:
            return NewTokens(ids, logprobs, done)
        if self._last is None or self._done is None:
            self._last = np.full((ids.shape[0], self._width), -1, np.int32)
            self._done = np.zeros(done.shape, bool)
        before = self._done
        ids = np.where(before, 0, ids)
        logprobs = np.where(before, np.float32(1.0), logprobs)
        self._last = np.concatenate([self._last[:, 1:], ids[:, np.newaxis]], axis=1)
        for sequence in self._sequences:
            done = done | (self._last[:, -len(sequence) :] == sequence).all(axis=1)
        done = before | done
        self._done = done
        return NewTokens(ids, logprobs, done)
