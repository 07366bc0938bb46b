"""A decoding cache that keeps a window of the last steps, for layers that read no more.

Step p lies in place p mod C of a ring of C places, so that a step is written in place and nothing
is moved. (A buffer that shifts would be copied whole at every step.) Beside the ring there is a
mark for each step of the sequence, whether the ring holds it; the marks are what a change of the
cache (padding, alignment of rows, beams) acts on as well, and tell how long the sequence is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Shaped

from praxis import base_layer
from praxis.layers.attention.cache import SCALE_SUFFIX, TimeStep, decode_state, encode_state
from praxis.layers.attention.cached import CachedAttention

DecodeStateTransformFn = base_layer.DecodeStateTransformFn
Marks = Int8[Array, "B S"]

# Name of the state with the marks.
HELD_STEPS = "held_steps"


def ring_steps(size: int, next_step: TimeStep) -> Int[Array, " C"]:
    """The step that each place of a ring holds when `next_step` is about to be written.

    Args:
      size: C.
      next_step: A scalar.

    Returns:
      [C], `next_step` - C to `next_step` - 1; a step below 0 is one that there is not.
    """
    last = jnp.asarray(next_step, jnp.int32) - 1
    return last - (last - jnp.arange(size, dtype=jnp.int32)) % size


def write_ring(
    ring: Shaped[Array, "B C ..."], steps: Shaped[Array, "B T ..."], time_step: TimeStep
) -> Shaped[Array, "B C ..."]:
    """Writes steps `time_step`, `time_step` + 1, ... into their places; the last C are kept."""
    size, num_steps = ring.shape[1], steps.shape[1]
    skipped = max(num_steps - size, 0)
    places = (time_step + jnp.arange(skipped, num_steps)) % size
    return ring.at[:, places].set(steps[:, skipped:].astype(ring.dtype))


def mark_steps(held: Marks, size: int, time_step: TimeStep, num_steps: int) -> Marks:
    """The marks after `write_ring` of `num_steps` steps into a ring of `size` places."""
    step = jnp.arange(held.shape[1])
    last = time_step + num_steps - 1
    new = (step >= time_step) & (step <= last) & (step > last - size)
    # The place of an old step is taken by the new step in its place, if there is one.
    since_first = (step - time_step) % size
    return jnp.where(new, 1, jnp.where(since_first < num_steps, 0, held)).astype(held.dtype)


def unroll(ring: Shaped[Array, "B C ..."], held: Marks) -> Shaped[Array, "B S ..."]:
    """The whole sequence of states, with zeros for steps that the ring does not hold."""
    states = jnp.take(ring, jnp.arange(held.shape[1]) % ring.shape[1], axis=1)
    marks = held.reshape(*held.shape, *[1] * (states.ndim - 2))
    return jnp.where(marks > 0, states, jnp.zeros([], states.dtype))


class RolledUp(NamedTuple):
    """Which steps a ring holds.

    Attributes:
      steps: [B, C], the step in each place; 0 where there is none.
      held: [B, S], the marks.
    """

    steps: Int[Array, "B C"]
    held: Marks


def last_steps(held: Marks, size: int) -> RolledUp:
    """Chooses, of the steps that are there, the last one for each of `size` places."""
    batch, length = held.shape
    rounds = -(-length // size)
    padded = jnp.pad(held, [(0, 0), (0, rounds * size - length)])
    step = jnp.arange(rounds * size, dtype=jnp.int32).reshape(1, rounds, size)
    there = padded.reshape(batch, rounds, size) > 0
    steps = jnp.max(jnp.where(there, step, -1), axis=1)  # [B, C]
    kept = (step == steps[:, jnp.newaxis]).reshape(batch, -1)[:, :length]
    return RolledUp(jnp.maximum(steps, 0), kept.astype(held.dtype))


def roll_up(states: Shaped[Array, "B S ..."], steps: Int[Array, "B C"]) -> Shaped[Array, "B C ..."]:
    """Puts the steps that `last_steps` chose into a ring."""
    return jax.vmap(lambda row, chosen: row[chosen])(states, steps)


class RingView(NamedTuple):
    """Which steps the keys are that `_extend_ring` gave.

    Attributes:
      steps: [S'], below 0 where there is none.
      held: [B, S'], whether the ring holds the step.
    """

    steps: Int[Array, " _"]
    held: Bool[Array, "B _"]


class WindowCachedAttention(CachedAttention):
    """An attention layer whose cache may keep the last steps alone.

    A call keeps a prompt whole, because it does not know where rows end that are padded. The first
    `transform_decode_state`, which decoding starts with, keeps the window of what it gives, and
    each further one too; `decoding_state_sequence_length` stays that of the whole sequence. From
    then on steps have to be taken one after the other: earlier ones are gone.

    Attributes:
      decode_cache_window_only: Keep the steps in the window alone, and not all.
    """

    decode_cache_window_only: bool = False

    def _window_steps(self) -> int | None:
        """C, how many steps before the current one are read; None for all."""
        raise NotImplementedError(f"{type(self).__name__}._window_steps: to be overridden.")

    @property
    def _keeps_window(self) -> bool:
        return self.decode_cache_window_only and self._window_steps() is not None

    def _has_ring(self) -> bool:
        """Whether the cache has been cut down to the window."""
        states = self._decode_states()
        return HELD_STEPS in states and states["key_state"].shape[1] < states[HELD_STEPS].shape[1]

    def _store_state(self, name: str, value: Float[Array, "..."]) -> None:
        super()._store_state(name, value)
        if self.decode_cache and self._keeps_window:
            self.update_decode_state(HELD_STEPS, jnp.ones(value.shape[:2], jnp.int8))

    def decoding_state_sequence_length(self) -> int:
        """The number of time steps of the sequence, of which the cache may hold the last ones."""
        if self._has_ring():
            return self.get_decode_state(HELD_STEPS).shape[1]
        return super().decoding_state_sequence_length()

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the cache by `transform_fn(array, batch_dim=0, time_dim=1)`.

        Then keeps the last steps, with `decode_cache_window_only`.
        """
        states = dict(self._decode_states())
        if HELD_STEPS not in states:
            super().transform_decode_state(transform_fn)
            return
        has_ring, held = self._has_ring(), states.pop(HELD_STEPS)
        size = self._window_steps()
        assert size is not None  # there are marks
        new_held = transform_fn(held, 0, 1)
        fits = new_held.shape[1] <= size
        rolled = RolledUp(new_held, new_held) if fits else last_steps(new_held, size)
        for name, state in states.items():
            whole = transform_fn(unroll(state, held) if has_ring else state, 0, 1)
            state = whole if fits else roll_up(whole, rolled.steps)
            self.update_decode_state(name, state)
        self.update_decode_state(HELD_STEPS, rolled.held)

    def extend_decode_state(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep, time_dim: int
    ) -> Float[Array, "..."]:
        """Writes one step, or several, into a decode state that is whole; see the base class."""
        state = super().extend_decode_state(name, value, time_step, time_dim)
        if name == "key_state" and HELD_STEPS in self._decode_states():
            held = self.get_decode_state(HELD_STEPS)
            num_steps = value.shape[time_dim] if value.ndim == state.ndim else 1
            marks = mark_steps(held, held.shape[1], time_step, num_steps)
            self.update_decode_state(HELD_STEPS, marks)
        return state

    def _extend_ring(
        self, name: str, value: Float[Array, "..."], time_step: TimeStep
    ) -> Float[Array, "B _ ..."]:
        """Writes one step, or several, into the ring.

        Args:
          name: Of the state.
          value: [B, ..., H], or [B, T, ..., H].
          time_step: The first step.

        Returns:
          What the steps attend to: the ring with the one step in it, or, because several may
          overwrite what the first of them reads, the ring before and the steps after it.
        """
        before = self._read_state(name)
        steps = value[:, jnp.newaxis] if value.ndim < before.ndim else value
        encoded = encode_state(name, steps, self.decode_cache_dtype)
        for key, part in encoded.items():
            ring = write_ring(self.get_decode_state(key), part, time_step)
            self.update_decode_state(key, self._shard_state(ring))
        # As steps come out of the cache, narrower numbers included.
        scale = encoded.get(name + SCALE_SUFFIX)
        steps = decode_state(encoded[name], scale, before.dtype)
        if steps.shape[1] == 1:
            return write_ring(before, steps, time_step)
        return jnp.concatenate([before, steps], axis=1)

    def _ring_view(self, time_step: TimeStep, num_steps: int) -> RingView:
        """The steps of what `_extend_ring` returned; marks them. Once for all states."""
        size, held = self.get_decode_state("key_state").shape[1], self.get_decode_state(HELD_STEPS)
        steps = ring_steps(size, time_step)
        there = (jnp.take(held, jnp.maximum(steps, 0), axis=1) > 0) & (steps >= 0)[jnp.newaxis]
        if num_steps == 1:
            is_new = jnp.arange(size) == time_step % size
            steps, there = jnp.where(is_new, time_step, steps), there | is_new[jnp.newaxis]
        else:
            new = time_step + jnp.arange(num_steps, dtype=steps.dtype)
            steps = jnp.concatenate([steps, new])
            there = jnp.pad(there, [(0, 0), (0, num_steps)], constant_values=True)
        self.update_decode_state(HELD_STEPS, mark_steps(held, size, time_step, num_steps))
        return RingView(steps, there)
