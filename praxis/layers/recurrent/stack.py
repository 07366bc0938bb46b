"""Recurrent layers on top of each other, in one direction and in both."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers.checks import check_sizes

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class BaseStack(base_layer.BaseLayer):
    """What stacks in one and in both directions share.

    Attributes:
      frnn_tpl: Config of each layer. The sizes of its cell are filled in. Required.
      num_layers: Number of layers, at least 1.
      num_input_nodes: I, the width of the inputs, at least 1. Required.
      num_output_nodes: M, the width of the outputs of each layer, at least 1. Required.
    """

    frnn_tpl: LayerTpl | None = template_field(None)
    num_layers: int = 1
    num_input_nodes: int = 0
    num_output_nodes: int = 0

    def setup(self) -> None:
        check_sizes(self, "num_layers", "num_input_nodes", "num_output_nodes")
        if self.frnn_tpl is None or self.frnn_tpl.cell_tpl is None:
            missing = "frnn_tpl" if self.frnn_tpl is None else "frnn_tpl.cell_tpl"
            raise ValueError(
                f"{self.path_text}: {missing} is None, expected the config of a recurrent layer "
                "with a cell, e.g. pax_fiddle.Config(frnn.FRnn, cell_tpl=...)."
            )

    def _templates(self, layer_nodes: int, **fields: Any) -> list[Any]:
        """Configs of the layers of one direction, each with `layer_nodes` outputs."""
        templates = []
        frnn_tpl: Any = self.frnn_tpl
        for index in range(self.num_layers):
            template = frnn_tpl.clone().set(**fields)
            template.cell_tpl.num_output_nodes = layer_nodes
            template.cell_tpl.num_input_nodes = (
                self.num_output_nodes if index else self.num_input_nodes
            )
            if index and hasattr(template.cell_tpl, "inputs_arity"):
                template.cell_tpl.inputs_arity = 1
            templates.append(template)
        return templates

    def _check_states(self, name: str, states: Sequence[Any]) -> None:
        if len(states) != self.num_layers:
            raise ValueError(
                f"{self.path_text}: {name} has {len(states)} states, expected one for each of "
                f"num_layers = {self.num_layers} layers."
            )


class StackFrnn(BaseStack):
    """Recurrent layers, each of which reads the outputs of the one below.

    Shapes: I is `num_input_nodes`, M is `num_output_nodes`. A state is a list with the state of
    each layer.

    Attributes:
      frnn_tpl: Config of each layer. The sizes of its cell are filled in. Required.
      num_layers: Number of layers, at least 1.
      num_input_nodes: I, at least 1. Required.
      num_output_nodes: M, at least 1. Required.

    Variables:
      frnn_0, frnn_1, ...: as in `frnn_tpl`

    Raises:
      ValueError: during setup, if a field is missing or below 1; in calls, if there is not one
        state for each layer, and as in `frnn_tpl`.
    """

    def setup(self) -> None:
        super().setup()
        self.create_children("frnn", self._templates(self.num_output_nodes))

    def init_states(self, batch_size: int) -> list[Any]:
        """Returns the states before the first step."""
        return [layer.init_states(batch_size) for layer in self.frnn]

    def get_output(self, state: Sequence[Any]) -> Float[Array, "B M"]:
        """Returns the output [B, M] that belongs to a state: that of the last layer."""
        return self.frnn[-1].get_output(state[-1])

    def __call__(
        self, inputs: NestedMap, state0: Sequence[Any] | None = None
    ) -> tuple[Float[Array, "B T M"], list[Any]]:
        """Runs the layers over whole sequences.

        Args:
          inputs: `act` [B, T, I], `padding` [B, T, 1] and optionally `segment_ids` [B, T, 1], as
            in `FRnn.__call__`.
          state0: State of each layer before the first step; None: that of `init_states`.

        Returns:
          The outputs of the last layer [B, T, M], and the state of each layer after the last step.
        """
        states0 = [None] * self.num_layers if state0 is None else state0
        self._check_states("state0", states0)
        states = []
        outputs: Any = None
        for layer, state in zip(self.frnn, states0, strict=True):
            outputs, state = layer(inputs, state)
            inputs = NestedMap(inputs, act=[outputs])
            states.append(state)
        return outputs, states

    def extend_step(
        self, inputs: NestedMap, state: Sequence[Any]
    ) -> tuple[list[Any], Float[Array, "B M"]]:
        """Takes one step in each layer.

        Args:
          inputs: `act` [B, I] and `padding` [B, 1].
          state: The state of each layer before the step.

        Returns:
          The state of each layer after it, and the output of the last one [B, M].
        """
        self._check_states("state", state)
        states = []
        outputs: Any = None
        for layer, layer_state in zip(self.frnn, state, strict=True):
            layer_state, outputs = layer.extend_step(inputs, layer_state)
            inputs = NestedMap(inputs, act=[outputs])
            states.append(layer_state)
        return states, outputs


class StackBiFrnn(BaseStack):
    """Recurrent layers that read in both directions: half of each output comes from either.

    Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997. Shapes: I is
    `num_input_nodes`, M is `num_output_nodes`.

    Attributes:
      frnn_tpl: Config of each layer in each direction. The sizes of its cell and `reverse` are
        filled in. Required.
      num_layers: Number of layers, at least 1.
      num_input_nodes: I, at least 1. Required.
      num_output_nodes: M, of both directions together; even. Required.

    Variables:
      fwd_frnn_0, fwd_frnn_1, ...: as in `frnn_tpl`
      bwd_frnn_0, bwd_frnn_1, ...: as in `frnn_tpl`

    Raises:
      ValueError: during setup, if a field is missing, below 1 or odd; in calls, if there is not
        one state for each layer, and as in `frnn_tpl`.
    """

    def setup(self) -> None:
        super().setup()
        if self.num_output_nodes % 2:
            raise ValueError(
                f"{self.path_text}: num_output_nodes is {self.num_output_nodes}, expected an even "
                "number: each direction gives half of the outputs."
            )
        half = self.num_output_nodes // 2
        self.create_children("fwd_frnn", self._templates(half, reverse=False))
        self.create_children("bwd_frnn", self._templates(half, reverse=True))

    def fwd_init_states(self, batch_size: int) -> list[Any]:
        """Returns the states of the layers that read forwards, before their first step."""
        return [layer.init_states(batch_size) for layer in self.fwd_frnn]

    def bwd_init_states(self, batch_size: int) -> list[Any]:
        """Returns the states of the layers that read backwards, before their first step."""
        return [layer.init_states(batch_size) for layer in self.bwd_frnn]

    def init_states(self, batch_size: int) -> NestedMap:
        """Returns the states of both directions as `fwd` and `bwd`, lists over layers."""
        return NestedMap(fwd=self.fwd_init_states(batch_size), bwd=self.bwd_init_states(batch_size))

    def __call__(
        self, inputs: NestedMap, state0: Any = None
    ) -> tuple[Float[Array, "B T M"], list[NestedMap]]:
        """Runs the layers over whole sequences.

        Args:
          inputs: `act` [B, T, I], `padding` [B, T, 1] and optionally `segment_ids` [B, T, 1], as
            in `FRnn.__call__`.
          state0: States before the first step of either direction: as from `init_states`, or a
            list like the one that is returned; None: those of `init_states`.

        Returns:
          The outputs of the last layer [B, T, M], forwards then backwards, and for each layer the
          states after its last steps, `fwd` and `bwd`.
        """
        fwd_states, bwd_states = self._by_direction(state0)
        states = []
        outputs: Any = None
        for index in range(self.num_layers):
            forwards, fwd = self.fwd_frnn[index](inputs, fwd_states[index])
            backwards, bwd = self.bwd_frnn[index](inputs, bwd_states[index])
            outputs = jnp.concatenate([forwards, backwards], axis=-1)
            inputs = NestedMap(inputs, act=[outputs])
            states.append(NestedMap(fwd=fwd, bwd=bwd))
        return outputs, states

    def _by_direction(self, state0: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """Takes states apart: those that read forwards, and those that read backwards."""
        if state0 is None:
            nothing = [None] * self.num_layers
            return nothing, nothing
        if isinstance(state0, Mapping):
            fwd, bwd = state0["fwd"], state0["bwd"]
        else:
            fwd = [layer["fwd"] for layer in state0]
            bwd = [layer["bwd"] for layer in state0]
        self._check_states("fwd of state0", fwd)
        self._check_states("bwd of state0", bwd)
        return fwd, bwd
