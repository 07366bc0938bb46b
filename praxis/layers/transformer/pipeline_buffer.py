"""Where a pipeline keeps microbatches that wait: for stage 0, or to be handed back.

A buffer is a state, a tree of arrays that goes through the loop, and pure functions of it. In each
iteration stage 0 reads an entry, and then the last stage writes one.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Shaped

from praxis.layers.transformer.schedule import Iteration, Schedule

State = Any
Tree = Any


def shift_in(first: Tree, entries: Tree) -> Tree:
    """Moves entries [S, ...] to the next stage: `first` enters at stage 0, the last one leaves."""

    def shift(new: Shaped[Array, "..."], x: Shaped[Array, "S ..."]) -> Shaped[Array, "S ..."]:
        # Sharded over stages, roll is one exchange between neighbours.
        return jnp.roll(x, 1, axis=0).at[0].set(new)

    return jax.tree.map(shift, first, entries)


def last(entries: Tree) -> Tree:
    """What is in the last stage."""
    return jax.tree.map(lambda x: x[-1], entries)


def select(keep: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """`new` where `keep` is true, else `old`; gradients too come from one of them only."""
    return jax.tree.map(lambda x, y: jnp.where(keep, x, y), new, old)


def read_slot(tree: Tree, index: Any) -> Tree:
    """Entry `index` along the leading axis."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def write_slot(tree: Tree, index: Any, entry: Tree) -> Tree:
    """The arrays with another entry `index` along the leading axis."""
    return jax.tree.map(
        lambda x, new: lax.dynamic_update_index_in_dim(x, new, index, 0), tree, entry
    )


class Buffer(Protocol):
    """What the loop asks of a buffer."""

    def start(self, inputs: Tree) -> State:
        """The state before the first iteration, given all microbatches, [M, ...]."""
        ...

    def read(self, state: State, iteration: Iteration) -> Tree:
        """What stage 0 works on."""
        ...

    def write(self, state: State, iteration: Iteration, entry: Tree) -> State:
        """The state after the last stage gave its outputs."""
        ...

    def finish(self, state: State) -> Tree:
        """All microbatches, [M, ...], after the last iteration."""
        ...


@dataclasses.dataclass(frozen=True)
class WholeBuffer:
    """One array of all microbatches, [M, ...], the same on all stages.

    Microbatch m is in slot m: first the inputs, then the outputs of the last stage. Those of one
    repeat are the inputs of the next one.

    Attributes:
      schedule: The order of work.
    """

    schedule: Schedule

    def start(self, inputs: Tree) -> State:
        """See `Buffer`."""
        return inputs

    def read(self, state: State, iteration: Iteration) -> Tree:
        """See `Buffer`."""
        return read_slot(state, self.schedule.microbatch_ids(iteration)[0])

    def write(self, state: State, iteration: Iteration, entry: Tree) -> State:
        """See `Buffer`."""
        slot = self.schedule.microbatch_ids(iteration)[-1]
        valid = self.schedule.is_valid(iteration)[-1]
        # A bubble must not take the place of inputs that nobody has read yet.
        return write_slot(state, slot, select(valid, entry, read_slot(state, slot)))

    def finish(self, state: State) -> Tree:
        """See `Buffer`."""
        return state


@dataclasses.dataclass(frozen=True)
class StreamBuffer:
    """Microbatches spread over the stages, [S, M / S, ...], M / S on each.

    In iteration t the slot t % (M / S) moves one stage towards stage 0: what leaves there is what
    stage 0 works on, and the outputs of the last stage enter at the other end. So each stage keeps
    a part of the inputs and outputs, and only neighbours exchange data. With repeats, outputs have
    to be back before they come around this way; they also wait in an array [M, ...].

    Attributes:
      schedule: The order of work. M has to be a multiple of S.
    """

    schedule: Schedule

    @property
    def _num_slots(self) -> int:
        return self.schedule.num_microbatches // self.schedule.num_stages

    @property
    def _is_circular(self) -> bool:
        return self.schedule.circular_repeat > 1

    def start(self, inputs: Tree) -> State:
        """See `Buffer`."""

        def spread(x: Shaped[Array, "M ..."]) -> Shaped[Array, "S k ..."]:
            return x.reshape(self.schedule.num_stages, self._num_slots, *x.shape[1:])

        waiting = jax.tree.map(jnp.zeros_like, inputs) if self._is_circular else None
        return jax.tree.map(spread, inputs), waiting

    def read(self, state: State, iteration: Iteration) -> Tree:
        """See `Buffer`."""
        stream, waiting = state
        entry = jax.tree.map(
            lambda x: lax.dynamic_index_in_dim(x[0], iteration % self._num_slots, keepdims=False),
            stream,
        )
        if not self._is_circular:
            return entry
        returned = read_slot(waiting, self.schedule.microbatch_ids(iteration)[0])
        is_first_repeat = jnp.asarray(iteration < self.schedule.num_microbatches)
        return select(is_first_repeat, entry, returned)

    def write(self, state: State, iteration: Iteration, entry: Tree) -> State:
        """See `Buffer`."""
        stream, waiting = state
        slot = iteration % self._num_slots

        def push(
            x: Shaped[Array, "S k ..."], new: Shaped[Array, "..."]
        ) -> Shaped[Array, "S k ..."]:
            column = lax.dynamic_index_in_dim(x, slot, axis=1, keepdims=False)  # [S, ...]
            column = jnp.roll(column, -1, axis=0).at[-1].set(new)
            return lax.dynamic_update_index_in_dim(x, column, slot, 1)

        # What bubbles write here has left at stage 0, unread, when the loop ends.
        stream = jax.tree.map(push, stream, entry)
        if self._is_circular:
            waiting = write_slot(waiting, self.schedule.microbatch_ids(iteration)[-1], entry)
        return stream, waiting

    def finish(self, state: State) -> Tree:
        """See `Buffer`."""
        stream, _ = state
        # The last stage started S - 1 iterations late, so its outputs are as many slots further.
        late = self.schedule.num_stages - 1

        def gather(x: Shaped[Array, "S k ..."]) -> Shaped[Array, "M ..."]:
            return jnp.roll(x, -late, axis=1).reshape(-1, *x.shape[2:])

        return jax.tree.map(gather, stream)
