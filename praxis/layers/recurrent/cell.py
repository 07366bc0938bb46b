"""What a recurrent cell is."""

from praxis import base_layer, py_utils

NestedMap = py_utils.NestedMap


class BaseRnnCell(base_layer.BaseLayer):
    """Base of recurrent cells: one step of a sequence changes a state.

    A subclass defines the three methods. The inputs of a step are a NestedMap of `act`, a list of
    arrays [B, D], and `padding` [B, 1], 1 where the step is padded and the state stays; and may
    have `reset_mask` [B, 1], 0 where the step begins a new sequence.
    """

    def init_states(self, batch_size: int) -> NestedMap:
        """Returns the state before the first step, arrays [B, ...], given B."""
        raise self._missing("init_states")

    def __call__(self, state0: NestedMap, inputs: NestedMap) -> NestedMap:
        """Returns the state after a step, given the one before it; changes neither argument."""
        raise self._missing("__call__")

    def get_output(self, state: NestedMap) -> py_utils.JTensor:
        """Returns the output [B, M] that belongs to a state."""
        raise self._missing("get_output")

    def _missing(self, method: str) -> NotImplementedError:
        return NotImplementedError(
            f"{self.path_text} does not define {method}; use a subclass such as LstmCellSimple."
        )
