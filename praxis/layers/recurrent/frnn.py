"""Runs a recurrent cell over sequences, with one loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers.recurrent.inputs import check_sequence, required, tensors
from praxis.layers.sharding import shard_output
from praxis.layers.transformer.stacked_variables import sum_aux_losses

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field

# Flax modules inside a cell keep moving averages in their own collection.
_CARRIED = (base_layer.NON_TRAINABLE, "batch_stats")
_STACKED = (base_layer.AUX_LOSS, base_layer.SUMMARIES, base_layer.HYPER_PARAMS)

# `cell_step(cell, state, inputs of a step) -> the next state`
CellStep = Callable[[Any, Any, NestedMap], Any]


def reset_mask(
    segment_ids: Int[Array, "B T *_"],
    paddings: Shaped[Array, "B T *_"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B T *_"]:
    """Marks with 0 where packed sequences begin.

    Args:
      segment_ids: [B, T] or [B, T, 1], the number of the sequence that a step belongs to, not -1.
      paddings: Of the same shape, 1 where a step is padded: such a step begins nothing.
      dtype: Of the result.

    Returns:
      An array of the same shape: 0 on the first step, and where the number is not that of the step
      before; otherwise 1.
    """
    widths = [(0, 0), (1, 0), *[(0, 0)] * (segment_ids.ndim - 2)]
    before = jnp.pad(segment_ids[:, :-1], widths, constant_values=-1)
    goes_on = segment_ids == before
    if paddings is not None:
        goes_on = goes_on | (paddings > 0)
    return goes_on.astype(dtype)


class FRnn(base_layer.BaseLayer):
    """Applies a cell to one step of a sequence after the other.

    The loop is a `lax.scan`: the time to compile does not grow with T. Variables of the cell that
    are not trained pass from step to step, its auxiliary losses are added up over time, and its
    summaries get a leading axis T. Shapes: M is the width of the cell's output.

    Attributes:
      cell_tpl: Config of the cell. Required.
      reverse: Go from the last step to the first.
      unroll: Steps that are taken in one turn of the loop, at least 1.

    Variables:
      cell: as in `cell_tpl`

    Raises:
      ValueError: during setup, if there is no cell or `unroll` is below 1; in calls, if a field of
        the inputs is missing or has another shape.

    Example:
      >>> from praxis.layers import rnn_cell
      >>> cell = pax_fiddle.Config(rnn_cell.LstmCellSimple, num_input_nodes=3, num_output_nodes=4)
      >>> layer = pax_fiddle.build(pax_fiddle.Config(FRnn, name="rnn", cell_tpl=cell))
      >>> inputs = NestedMap(act=jnp.ones([2, 5, 3]), padding=jnp.zeros([2, 5, 1]))
      >>> variables = layer.init(jax.random.PRNGKey(0), inputs)
      >>> outputs, state = layer.apply(variables, inputs)
      >>> outputs.shape, state.c.shape
      ((2, 5, 4), (2, 4))
    """

    cell_tpl: LayerTpl | None = template_field(None)
    reverse: bool = False
    unroll: int = 1

    def setup(self) -> None:
        if self.cell_tpl is None:
            raise ValueError(
                f"{self.path_text}: cell_tpl is None, set it to the config of a cell, e.g. "
                "pax_fiddle.Config(rnn_cell.LstmCellSimple, ...)."
            )
        if self.unroll < 1:
            raise ValueError(f"{self.path_text}: unroll is {self.unroll}, expected at least 1.")
        self.create_child("cell", self.cell_tpl)

    def init_states(self, batch_size: int) -> Any:
        """Returns the state of the cell before the first step."""
        return self.cell.init_states(batch_size)

    def get_output(self, state: Any) -> Float[Array, "B M"]:
        """Returns the output [B, M] that belongs to a state of the cell."""
        return self.cell.get_output(state)

    def __call__(self, inputs: NestedMap, state0: Any = None) -> tuple[Float[Array, "B T M"], Any]:
        """Runs the cell over whole sequences.

        Args:
          inputs: `act` [B, T, D], or a list of such; `padding` [B, T, 1], 1 marks steps that leave
            the state as it is; and optionally `segment_ids` [B, T, 1] of packed sequences, between
            which a cell with `reset_cell_state` starts anew.
          state0: State before the first step; None: that of `init_states`. With `segment_ids` such
            a cell starts anew on the first step too, and `state0` makes no difference.

        Returns:
          The outputs [B, T, M], and the state after the last step that was taken.
        """
        check_sequence(self, inputs)
        return self._run(NestedMap(inputs, act=tensors(self, inputs)), state0, _call_cell)

    def _run(
        self, inputs: NestedMap, state0: Any, cell_step: CellStep
    ) -> tuple[Float[Array, "B T M"], Any]:
        """Runs `cell_step` over the time axis of all arrays of `inputs`."""
        if self.reverse:
            inputs = jax.tree.map(lambda x: jnp.flip(x, axis=1), inputs)
        inputs = NestedMap(inputs, reset_mask=self._reset_mask(inputs))
        if state0 is None:
            state0 = self.init_states(inputs.padding.shape[0])
        state0 = self._cast_to_fprop_dtype(state0)
        earlier_losses = self.cell.variables.get(base_layer.AUX_LOSS, {})
        if self.is_initializing():
            # A scan cannot create the variables that it shares between its steps.
            cell_step(self.cell, state0, jax.tree.map(lambda x: x[:, 0], inputs))

        def step(cell: Any, state: Any, step_inputs: NestedMap) -> tuple[Any, Any]:
            state = cell_step(cell, state, step_inputs)
            return state, cell.get_output(state)

        scan = nn.scan(
            step,
            variable_broadcast=base_layer.PARAMS,
            variable_carry=list(_CARRIED),
            variable_axes=dict.fromkeys(_STACKED, 0),
            split_rngs={base_layer.PARAMS: False, base_layer.RANDOM: True},
            in_axes=1,
            out_axes=1,
            unroll=self.unroll,
        )
        scan = self._with_summed_losses(scan, earlier_losses)
        final_state, outputs = scan(self.cell, state0, inputs)
        if self.reverse:
            outputs = jnp.flip(outputs, axis=1)
        return shard_output(self, outputs), final_state

    def _reset_mask(self, inputs: NestedMap) -> Float[Array, "B T 1"]:
        if "segment_ids" not in inputs:
            return jnp.ones(inputs.padding.shape, self.fprop_dtype)
        mask = reset_mask(inputs.segment_ids, inputs.padding)
        return self._cast_to_fprop_dtype(mask)

    def _with_summed_losses(self, run: Callable[..., Any], earlier: Any) -> Callable[..., Any]:
        """Wraps a loop that stacks what the cell reports: losses are added up over time."""
        mapped = [
            name
            for name in (base_layer.AUX_LOSS, base_layer.SUMMARIES)
            if self.is_mutable_collection(name)
        ]
        if not mapped:
            return run

        def store(seen: dict[str, Any]) -> dict[str, Any]:
            return {
                name: sum_aux_losses(tree, earlier) if name == base_layer.AUX_LOSS else tree
                for name, tree in seen.items()
            }

        # What the cell reported before has no axis T, so the loop starts without it.
        return nn.map_variables(
            run,
            mapped_collections=mapped,
            trans_in_fn=lambda _: {},
            trans_out_fn=store,
            mutable=True,
        )

    def extend_step(self, inputs: NestedMap, state0: Any) -> tuple[Any, Float[Array, "B M"]]:
        """Takes one step; the state is never reset.

        Args:
          inputs: `act` [B, D], or a list of such, and `padding` [B, 1].
          state0: The state before the step.

        Returns:
          The state after it, and the output [B, M].
        """
        padding = required(self, inputs, "padding")
        step_inputs = NestedMap(
            inputs,
            act=tensors(self, inputs),
            reset_mask=jnp.ones(padding.shape, self.fprop_dtype),
        )
        state = self.cell(self._cast_to_fprop_dtype(state0), step_inputs)
        return state, self.cell.get_output(state)


def _call_cell(cell: Any, state: Any, inputs: NestedMap) -> Any:
    return cell(state, inputs)


class LstmFrnn(FRnn):
    """As `FRnn`, for LSTM cells: the inputs are projected for all steps at once, before the loop.

    The numbers are the same.

    Attributes:
      cell_tpl: Config of the cell, one with the methods `project_input` and
        `fprop_with_projected_inputs`. Required.

    Raises:
      TypeError: during setup, if the cell lacks one of the methods.
      ValueError: as in `FRnn`.
    """

    def setup(self) -> None:
        super().setup()
        for method in ("project_input", "fprop_with_projected_inputs"):
            if not hasattr(type(self.cell), method):
                raise TypeError(
                    f"{self.path_text}: cell_tpl is a config of {type(self.cell).__name__}, which "
                    f"has no method {method}. Use FRnn for this cell."
                )

    def __call__(self, inputs: NestedMap, state0: Any = None) -> tuple[Float[Array, "B T M"], Any]:
        """Runs the cell over whole sequences, see `FRnn.__call__`."""
        check_sequence(self, inputs)
        projected = self.cell.project_input(inputs)  # [B, T, G H]
        inputs = NestedMap(inputs, proj_inputs=projected)
        # The loop does not read it again.
        del inputs.act
        return self._run(inputs, state0, _call_projected)


def _call_projected(cell: Any, state: Any, inputs: NestedMap) -> Any:
    return cell.fprop_with_projected_inputs(state, inputs)
