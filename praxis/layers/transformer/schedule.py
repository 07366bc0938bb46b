"""Which stage of a pipeline works on what, and when.

Stages are vmapped, and all of them work in each iteration of a loop. Stage j starts j iterations
after stage 0, so that the outputs of one stage are the inputs of the next one. Iterations in which
a stage has nothing to do are bubbles: what they compute is thrown away. With several repeats, a
microbatch that leaves the last stage enters stage 0 again, until it went around often enough.

The schedule without repeats is that of Huang et al., "GPipe", 2018, arXiv:1811.06965; the one with
repeats, in which each stage has several layers that are not neighbours and bubbles are shorter, is
that of Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM", 2021, arXiv:2104.04473, section 2.2.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

Iteration = int | Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The order of work of S stages on M microbatches, each of which goes around R times.

    Layer (i, j) is what stage j applies in repeat i; layers are applied in the order (0, 0),
    (0, 1), ..., (R-1, S-1). With R > 1, M has to be at least S, or outputs of the last stage would
    be late for stage 0.

    Attributes:
      num_stages: S.
      num_microbatches: M.
      circular_repeat: R.
    """

    num_stages: int
    num_microbatches: int
    circular_repeat: int = 1

    @property
    def num_valid_iterations(self) -> int:
        """Iterations in which a stage has work: R M."""
        return self.circular_repeat * self.num_microbatches

    @property
    def num_total_iterations(self) -> int:
        """Iterations until the last stage is done: R M + S - 1, of which S - 1 are bubbles."""
        return self.num_valid_iterations + self.num_stages - 1

    def _steps(self, iteration: Iteration) -> Int[Array, " S"]:
        """How many iterations each stage has worked before; negative before its start."""
        return iteration - jnp.arange(self.num_stages)

    def is_valid(self, iteration: Iteration) -> Bool[Array, " S"]:
        """Whether each stage works on a microbatch; otherwise the iteration is a bubble for it."""
        steps = self._steps(iteration)
        return (steps >= 0) & (steps < self.num_valid_iterations)

    def microbatch_ids(self, iteration: Iteration) -> Int[Array, " S"]:
        """The microbatch that each stage works on; some microbatch in a bubble."""
        return self._steps(iteration) % self.num_microbatches

    def repeat_ids(self, iteration: Iteration) -> Int[Array, " S"]:
        """The repeat that each stage is in; the nearest one in a bubble."""
        repeats = self._steps(iteration) // self.num_microbatches
        return jnp.clip(repeats, 0, self.circular_repeat - 1)

    def iterations(self) -> Int[np.ndarray, "R S M"]:
        """The iteration in which layer (i, j) works on microbatch m: i M + j + m."""
        repeats = np.arange(self.circular_repeat)[:, np.newaxis, np.newaxis]
        stages = np.arange(self.num_stages)[:, np.newaxis]
        return repeats * self.num_microbatches + stages + np.arange(self.num_microbatches)
