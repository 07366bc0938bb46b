"""The state of a training run, and where its values came from."""

import dataclasses
from typing import Any, Generic, TypeVar

import flax.struct
import jax

ExtraState = TypeVar("ExtraState")

RANDOM_INIT = "random_init"


class TrainState(flax.struct.PyTreeNode, Generic[ExtraState]):
    """Everything that a train step reads and writes; what a checkpoint holds.

    Attributes:
      step: number of updates made, uint32 scalar.
      mdl_vars: variables by collection.
      opt_states: list of one optimizer state.
      extra_state: anything a user's train step adds.
    """

    step: Any
    mdl_vars: Any
    opt_states: list[Any]
    extra_state: ExtraState = ()  # pyright: ignore[reportAssignmentType]  # the default type

    def new_state(
        self, mdl_vars: Any, opt_states: list[Any], extra_state: Any = ()
    ) -> "TrainState":
        """The state one step later."""
        return self.replace(
            step=self.step + 1, mdl_vars=mdl_vars, opt_states=opt_states, extra_state=extra_state
        )

    def to_eval_state(self) -> "TrainState":
        """The state without what only training needs."""
        return self.replace(opt_states=[], extra_state=())


@dataclasses.dataclass(frozen=True)
class TensorProvenance:
    """Where the first value of an array came from.

    Attributes:
      checkpoint_path: directory of a checkpoint, or "random_init".
      checkpoint_step: its step; None for the latest.
    """

    checkpoint_path: str = RANDOM_INIT
    checkpoint_step: int | None = None

    def __repr__(self) -> str:
        if self.checkpoint_path == RANDOM_INIT:
            return f'"{RANDOM_INIT}"'
        step = "latest" if self.checkpoint_step is None else self.checkpoint_step
        return f'"({self.checkpoint_path}:{step})"'


@dataclasses.dataclass
class TrainStateProvenance:
    """A `TensorProvenance` for every leaf of a `TrainState`.

    Attributes:
      step: of the step.
      mdl_vars: tree like the variables.
      opt_states: tree like the optimizer states.
      extra_state: tree like the extra state.
    """

    step: TensorProvenance
    mdl_vars: Any
    opt_states: Any
    extra_state: Any

    def replace(self, **changes: Any) -> "TrainStateProvenance":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def build_train_state_provenance(
    train_state: TrainState, checkpoint_path: str | None = None, step: int | None = None
) -> TrainStateProvenance:
    """The same provenance for every leaf of a state.

    Args:
      train_state: gives the structure.
      checkpoint_path: directory of the checkpoint all values came from; None for random ones.
      step: its step; None for the latest.
    """
    origin = TensorProvenance(checkpoint_path or RANDOM_INIT, step)
    whole = jax.tree.map(lambda _: origin, train_state)
    return TrainStateProvenance(
        step=whole.step,
        mdl_vars=whole.mdl_vars,
        opt_states=whole.opt_states,
        extra_state=whole.extra_state,
    )
