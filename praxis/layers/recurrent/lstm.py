"""LSTM cells: the plain one, with layer normalization, and with coupled gates."""

from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis import base_layer, py_utils
from praxis.layers.checks import check_sizes
from praxis.layers.convolution.conv import zeros_init
from praxis.layers.recurrent import gates
from praxis.layers.recurrent.cell import BaseRnnCell
from praxis.layers.recurrent.inputs import check_shape, required, tensors
from praxis.layers.sharding import shard_output
from praxis.utils.broadcasting import expand_rank

NestedMap = py_utils.NestedMap
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
SplitDimsMapping = base_layer.SplitDimsMapping


class LstmCellSimple(BaseRnnCell):
    """A long short-term memory: a cell c that gates write, clear and show as m.

    With `[i, g, f, o] = [x, m] @ wm + b`, four blocks of H columns, a step computes
    `c' = sigmoid(f) * c + sigmoid(g) * tanh(i)`, clipped, and `m' = sigmoid(o) * tanh(c')`; m' is
    projected if H is set apart from M. Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997,
    with the projection of Sak, Senior and Beaufays, 2014, arXiv:1402.1128. Shapes: I is
    `num_input_nodes`, M is `num_output_nodes`, H is `num_hidden_nodes` or M, G is 4.

    Attributes:
      inputs_arity: Number of arrays in `act`. They are joined along the last axis.
      num_input_nodes: I, the width of all of them together, at least 1. Required.
      num_output_nodes: M, at least 1. Required.
      num_hidden_nodes: H, the width of the cell, if m is a projection; 0: H is M.
      reset_cell_state: Start from zeros where `reset_mask` is 0.
      cell_value_cap: c is clipped to plus and minus this; None: it is not.
      forget_gate_bias: Added to f.
      output_nonlinearity: Whether m' takes the tanh of c', or c' itself.
      zo_prob: Zoneout: probability that a value of c or m stays as it was; evaluation averages.
      bias_init: Initializer of `b`.

    Variables:
      wm: [I + M, G H], sharded with `weight_split_dims_mapping.wt`
      b: [G H], sharded as the columns of `wm`
      w_proj: [H, M], with `num_hidden_nodes`; sharded with `wt` reversed

    Raises:
      ValueError: during setup, if a size is missing or below 1, or a number is out of range; in
        calls, if the shapes of the state or of the inputs do not fit.
    """

    inputs_arity: int = 1
    num_input_nodes: int = 0
    num_output_nodes: int = 0
    num_hidden_nodes: int = 0
    reset_cell_state: bool = False
    cell_value_cap: float | None = 10.0
    forget_gate_bias: float = 0.0
    output_nonlinearity: bool = True
    zo_prob: float = 0.0
    bias_init: WeightInit = zeros_init()

    NUM_GATES: ClassVar[int] = 4

    def setup(self) -> None:
        check_sizes(self, "num_input_nodes", "num_output_nodes", "inputs_arity")
        self._check_numbers()
        rows = self.num_input_nodes + self.num_output_nodes
        wt = self.weight_split_dims_mapping.wt
        self._create("wm", [rows, self.NUM_GATES * self.hidden_nodes], None, wt)
        self._create_gate_vector("b", self.bias_init)
        if self.num_hidden_nodes:
            shape = [self.num_hidden_nodes, self.num_output_nodes]
            self._create("w_proj", shape, None, None if wt is None else list(wt)[::-1])

    def _check_numbers(self) -> None:
        if self.num_hidden_nodes < 0:
            raise ValueError(
                f"{self.path_text}: num_hidden_nodes is {self.num_hidden_nodes}, expected the "
                "width of the cell, or 0 for a cell as wide as the output."
            )
        if self.cell_value_cap is not None and self.cell_value_cap <= 0:
            raise ValueError(
                f"{self.path_text}: cell_value_cap is {self.cell_value_cap}, expected a positive "
                "number, or None for no cap."
            )
        if not 0.0 <= self.zo_prob <= 1.0:
            raise ValueError(
                f"{self.path_text}: zo_prob is {self.zo_prob}, expected a probability between 0 "
                "and 1."
            )

    def _create(
        self, name: str, shape: list[int], init: WeightInit | None, mapping: SplitDimsMapping
    ) -> None:
        hparams = WeightHParams(
            shape=shape,
            init=init,
            mesh_shape=self.mesh_shape,
            tensor_split_dims_mapping=mapping,
        )
        self.create_variable(name, hparams)

    def _create_gate_vector(self, name: str, init: WeightInit) -> None:
        """Declares a vector with an entry for each column of `wm`."""
        wt = self.weight_split_dims_mapping.wt
        mapping = None if wt is None else list(wt)[1:]
        self._create(name, [self.NUM_GATES * self.hidden_nodes], init, mapping)

    @property
    def hidden_nodes(self) -> int:
        """H, the width of the cell."""
        return self.num_hidden_nodes or self.num_output_nodes

    def init_states(self, batch_size: int) -> NestedMap:
        """Zeros: m [B, M] and c [B, H], in `fprop_dtype`."""
        return NestedMap(
            m=jnp.zeros([batch_size, self.num_output_nodes], self.fprop_dtype),
            c=jnp.zeros([batch_size, self.hidden_nodes], self.fprop_dtype),
        )

    def get_output(self, state: NestedMap) -> Float[Array, "B M"]:
        """Returns m of the state."""
        return state.m

    def __call__(self, state0: NestedMap, inputs: NestedMap) -> NestedMap:
        """Takes one step.

        Args:
          state0: The state before the step: m [B, M] and c [B, H].
          inputs: `act`, arrays [B, D] of I columns together; `padding` [B, 1], 1 where the state
            stays; and optionally `reset_mask` [B, 1], 0 where `reset_cell_state` clears it first.

        Returns:
          The state after the step: m [B, M] and c [B, H].
        """
        joined = self._join(inputs)
        expected = (joined.shape[0], self.num_input_nodes)
        check_shape(self, "act of one step", joined, expected, "[B, I]")

        def project(m: Float[Array, "B M"]) -> Float[Array, "B G"]:
            return jnp.concatenate([joined, m], axis=-1) @ self.theta.wm

        return self._step(state0, inputs, joined.shape[0], project)

    def project_input(self, inputs: NestedMap) -> Float[Array, "... G"]:
        """What the inputs add to the gates: `x @ wm[:I]`, for a step or for a whole sequence.

        Args:
          inputs: `act`, arrays [..., D] of I columns together.

        Returns:
          [..., G H], for `fprop_with_projected_inputs`.
        """
        return self._join(inputs) @ self.theta.wm[: self.num_input_nodes]

    def fprop_with_projected_inputs(self, state0: NestedMap, inputs: NestedMap) -> NestedMap:
        """Takes one step, with what `project_input` returned for it.

        Args:
          state0: As in `__call__`.
          inputs: `proj_inputs` [B, G H] in place of `act`, the rest as in `__call__`.

        Returns:
          The state after the step, as from `__call__`.
        """
        projected = required(self, inputs, "proj_inputs")
        expected = (projected.shape[0], self.NUM_GATES * self.hidden_nodes)
        check_shape(self, "proj_inputs", projected, expected, "[B, G H]")

        def project(m: Float[Array, "B M"]) -> Float[Array, "B G"]:
            return projected + m @ self.theta.wm[self.num_input_nodes :]

        return self._step(state0, inputs, projected.shape[0], project)

    def _join(self, inputs: NestedMap) -> Float[Array, "... I"]:
        arrays = tensors(self, inputs)
        if len(arrays) != self.inputs_arity:
            raise ValueError(
                f"{self.path_text}: act has {len(arrays)} arrays, expected inputs_arity = "
                f"{self.inputs_arity}."
            )
        shapes = [tuple(array.shape) for array in arrays]
        width = sum(shape[-1] for shape in shapes)
        if width != self.num_input_nodes or any(shape[:-1] != shapes[0][:-1] for shape in shapes):
            raise ValueError(
                f"{self.path_text}: act has the shapes {shapes} of {width} columns together, "
                f"expected [..., D] that differ in D alone, with num_input_nodes = "
                f"{self.num_input_nodes} columns."
            )
        return self._cast_to_fprop_dtype(jnp.concatenate(arrays, axis=-1))

    def _step(
        self,
        state0: NestedMap,
        inputs: NestedMap,
        batch: int,
        project: Callable[[Float[Array, "B M"]], Float[Array, "B G"]],
    ) -> NestedMap:
        """Takes one step, given how m and the inputs make the gates."""
        padding = required(self, inputs, "padding")
        check_shape(self, "padding", padding, (batch, 1), "[B, 1]")
        m0, c0 = self._state_before(state0, inputs, batch)
        opened = self._gates(self._add_bias(project(m0)))
        c1 = gates.next_cell(c0, opened, self.cell_value_cap)
        m1 = opened.output * (jnp.tanh(c1) if self.output_nonlinearity else c1)
        if self.num_hidden_nodes:
            m1 = m1 @ self.theta.w_proj
        c1 = self._keep_some(c1, c0, padding)
        m1 = self._keep_some(m1, m0, padding)
        return NestedMap(m=shard_output(self, m1), c=c1)

    def _state_before(
        self, state0: NestedMap, inputs: NestedMap, batch: int
    ) -> tuple[Float[Array, "B M"], Float[Array, "B H"]]:
        """Returns m and c, cleared where a new sequence begins."""
        m, c = (self._cast_to_fprop_dtype(required(self, state0, name)) for name in ("m", "c"))
        check_shape(self, "state m", m, (batch, self.num_output_nodes), "[B, M]")
        check_shape(self, "state c", c, (batch, self.hidden_nodes), "[B, H]")
        if self.reset_cell_state and "reset_mask" in inputs:
            check_shape(self, "reset_mask", inputs.reset_mask, (batch, 1), "[B, 1]")
            mask = inputs.reset_mask.astype(m.dtype)
            m, c = mask * m, mask * c
        return m, c

    def _add_bias(self, projected: Float[Array, "B G"]) -> Float[Array, "B G"]:
        """What is added to the projections before the nonlinearities."""
        return projected + expand_rank(self.theta.b, 2)

    def _gates(self, logits: Float[Array, "B G"]) -> gates.LstmGates:
        return gates.lstm_gates(logits, self.forget_gate_bias)

    def _keep_some(
        self, new: Float[Array, "B H"], previous: Float[Array, "B H"], padding: Array
    ) -> Float[Array, "B H"]:
        draws = self.zo_prob > 0 and not self.do_eval
        key = self.next_prng_key() if draws else None
        return gates.zoneout(new, previous, padding, prob=self.zo_prob, key=key)


class LayerNormalizedLstmCellSimple(LstmCellSimple):
    """An LSTM whose gates are normalized, each over its H values, before the bias is added.

    Ba, Kiros and Hinton, "Layer Normalization", 2016, arXiv:1607.06450.

    Attributes:
      layer_norm_epsilon: Added to the variance of a gate.

    Variables:
      wm, b, w_proj: as in `LstmCellSimple`
      ln_scale: [G H], sharded as `b`
    """

    layer_norm_epsilon: float = 1e-8

    def setup(self) -> None:
        super().setup()
        self._create_gate_vector("ln_scale", WeightInit.Constant(1.0))

    def _add_bias(self, projected: Float[Array, "B G"]) -> Float[Array, "B G"]:
        normalized = gates.normalize_each_gate(projected, self.NUM_GATES, self.layer_norm_epsilon)
        return super()._add_bias(normalized * expand_rank(self.theta.ln_scale, 2))


class CifgLstmCellSimple(LstmCellSimple):
    """An LSTM whose input gate is one minus its forget gate, so that G is 3: i, f and o.

    Greff et al., "LSTM: A Search Space Odyssey", 2015, arXiv:1503.04069.

    Attributes:
      forget_gate_bias: Has to be 0.

    Variables:
      wm, b, w_proj: as in `LstmCellSimple`
    """

    NUM_GATES: ClassVar[int] = 3

    def setup(self) -> None:
        if self.forget_gate_bias != 0:
            raise ValueError(
                f"{self.path_text}: forget_gate_bias is {self.forget_gate_bias}, expected 0: the "
                "forget gate is coupled to the input gate. Set bias_init instead."
            )
        super().setup()

    def _gates(self, logits: Float[Array, "B G"]) -> gates.LstmGates:
        return gates.coupled_lstm_gates(logits)
