"""Repeats a layer with a loop, so that the time to compile does not grow with the depth."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import DenyList
from jax.ad_checkpoint import checkpoint_name

from praxis import base_layer, pax_fiddle
from praxis.layers.checks import check_sizes
from praxis.layers.transformer import stacked_variables
from praxis.layers.transformer.remat import AutodiffCheckpointType, custom_policy
from praxis.utils.flax_summaries import maybe_unpack_summary

AUX_LOSS = base_layer.AUX_LOSS
DECODE_CACHE = base_layer.DECODE_CACHE
INTERMEDIATES = base_layer.INTERMEDIATES
NON_TRAINABLE = base_layer.NON_TRAINABLE
PARAMS = base_layer.PARAMS
PREFIX_DECODE_CACHE = base_layer.PREFIX_DECODE_CACHE
RANDOM = base_layer.RANDOM
SUMMARIES = base_layer.SUMMARIES

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping
DecodeStateTransformFn = base_layer.DecodeStateTransformFn

# Flax modules inside a layer keep moving averages in their own collection.
WEIGHTS = (PARAMS, NON_TRAINABLE, "batch_stats")
CACHES = (DECODE_CACHE, PREFIX_DECODE_CACHE)
# What a single step of decoding does not report.
REPORTS = (AUX_LOSS, SUMMARIES, INTERMEDIATES, base_layer.HYPER_PARAMS)


class Repeat(base_layer.BaseLayer):
    """Applies a layer `x_times` times, each time with other variables, with a loop.

    Every variable of the layer gets a leading axis of length `x_times`. The outputs of one layer
    are the inputs of the next one, so they must have the same structure, shapes and dtypes.
    Auxiliary losses are summed over layers.

    Attributes:
      sub_tpl: Config of the layer. Required.
      x_times: Number of layers, at least 1. Required.
      sublayer_name: Name of the layer among the variables.
      unpack_summaries: Report each summary as a list with one value for each layer, not as an array
        with a leading axis.
      checkpoint_policy: What is kept for the backward pass, besides the inputs of each layer.
      positional_args_as_scan_carry: The layer returns all of its positional arguments, not only the
        first, and passes them to the next one.
      return_intermediate_outputs: Return the outputs of all layers, stacked, not those of the last.
      collect_intermediate_outputs: Store them as `repeat_intermediates` in "intermediates".
      unroll_in_decode: Store decoding caches layer by layer, and decode without a loop.
      optimizer_dims_mapping: Sharding of the leading axis for states of the optimizer: one entry.
      nd_prefix_shape: Store variables with leading axes of this shape, whose product is `x_times`.
        Not with a sharding of the leading axis.

    Variables:
      {sublayer_name}: as in the layer, with a leading axis

    Raises:
      ValueError: during setup, if a field is missing or options contradict each other; in calls, if
        the outputs of the layer have another structure than its inputs.
    """

    sub_tpl: LayerTpl | None = template_field(None)
    x_times: int = 0
    unpack_summaries: bool = False
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_NOTHING
    unroll_in_decode: bool = False
    sublayer_name: str = "sub"
    optimizer_dims_mapping: SplitDimsMapping = None
    collect_intermediate_outputs: bool = False
    return_intermediate_outputs: bool = False
    positional_args_as_scan_carry: bool = False
    nd_prefix_shape: Sequence[int] | None = None

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          sub: Of the leading axis: one entry.
        """

        sub: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "x_times")
        if self.sub_tpl is None:
            raise ValueError(f"{self.path_text}: sub_tpl is None, set it to the config of a layer.")
        if self.nd_prefix_shape is not None:
            self._check_prefix(self.nd_prefix_shape)
        self.create_child(self.sublayer_name, self.sub_tpl)

    def _check_prefix(self, prefix: Sequence[int]) -> None:
        if math.prod(prefix) != self.x_times:
            raise ValueError(
                f"{self.path_text}: nd_prefix_shape = {tuple(prefix)} has {math.prod(prefix)} "
                f"layers, but x_times = {self.x_times}."
            )
        for name, mapping in (
            ("weight_split_dims_mapping.sub", self.weight_split_dims_mapping.sub),
            ("optimizer_dims_mapping", self.optimizer_dims_mapping),
        ):
            if mapping is not None:
                raise ValueError(
                    f"{self.path_text}: nd_prefix_shape = {tuple(prefix)} and {name} = {mapping} "
                    "contradict each other: that sharding is for one leading axis. Unset one."
                )

    @property
    def _layer(self) -> base_layer.BaseLayer:
        return getattr(self, self.sublayer_name)

    def __call__(
        self,
        inputs: Any,
        *args: Any,
        method_name: str | None = None,
        per_layer_kwargs: dict[str, Any] | None = None,
        reversed_per_layer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Applies the layers.

        Args:
          inputs: What the first layer gets: an array or a tree.
          *args: What all layers get; or, with `positional_args_as_scan_carry`, the first.
          method_name: Method of the layer to call; None calls the layer.
          per_layer_kwargs: Trees with a leading axis, of which layer i gets entry i.
          reversed_per_layer_kwargs: Trees of which layer i gets entry x_times - 1 - i.
          **kwargs: What all layers get.

        Returns:
          The outputs of the last layer; with `return_intermediate_outputs`, of all, stacked.
        """
        return self.call_with_custom_method(
            inputs,
            *args,
            method_factory=lambda layer: getattr(layer, method_name or "__call__"),
            per_layer_kwargs=per_layer_kwargs,
            reversed_per_layer_kwargs=reversed_per_layer_kwargs,
            **kwargs,
        )

    def call_with_custom_method(
        self,
        inputs: Any,
        *args: Any,
        method_factory: Callable[[Any], Callable[..., Any]],
        per_layer_kwargs: dict[str, Any] | None = None,
        reversed_per_layer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `__call__`, with a function that returns what to call, given the layer."""
        per_layer = dict(per_layer_kwargs or {})
        for name, stacked in (reversed_per_layer_kwargs or {}).items():
            per_layer[name] = jax.tree.map(lambda x: jnp.flip(x, axis=0), stacked)
        keep_all = self.return_intermediate_outputs or self.collect_intermediate_outputs

        def body(layer: base_layer.BaseLayer, carry: Any, own: dict[str, Any]) -> tuple[Any, Any]:
            carry = jax.tree.map(lambda x: checkpoint_name(x, "iteration_input"), carry)
            method = method_factory(layer)
            if self.positional_args_as_scan_carry:
                outputs = method(*carry, **kwargs, **own)
            else:
                outputs = method(carry, *args, **kwargs, **own)
            self._check_structure(carry, outputs)
            return outputs, outputs if keep_all else None

        body = nn.remat(body, prevent_cse=False, policy=custom_policy(self.checkpoint_policy))
        carry = (inputs, *args) if self.positional_args_as_scan_carry else inputs
        outputs, all_outputs = self._with_stored_layout(self._scan(body))(
            self._layer, carry, per_layer
        )
        if self.collect_intermediate_outputs:
            self.sow(INTERMEDIATES, "repeat_intermediates", all_outputs)
        return all_outputs if self.return_intermediate_outputs else outputs

    def _check_structure(self, inputs: Any, outputs: Any) -> None:
        before, after = jax.tree.structure(inputs), jax.tree.structure(outputs)
        if before != after:
            raise ValueError(
                f"{self.path_text}: the layer {self.sublayer_name!r} returns the structure "
                f"{after}, expected that of its inputs, {before}, so that it can be repeated."
            )

    def _scan(self, body: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """A loop over the layers, of `body(layer, carry, own) -> (carry, result)`."""
        # Flax's check for constancy stays on: first weights depend on how often it draws keys.
        return nn.scan(
            body,
            variable_axes=dict.fromkeys((*WEIGHTS, *CACHES, *REPORTS), 0),
            split_rngs={PARAMS: self.is_initializing(), RANDOM: True},
            length=self.x_times,
            metadata_params={
                "is_initializing": self.is_initializing(),
                "x_times": self.x_times,
                "sub_weight_split_dims_mapping": self.weight_split_dims_mapping.sub,
                "optimizer_dims_mapping": self.optimizer_dims_mapping,
            },
        )

    def _with_stored_layout(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a loop, which sees stacked variables, for variables as they are stored."""
        caches = CACHES if self.unroll_in_decode else ()
        mapped = [name for name in (AUX_LOSS, SUMMARIES) if self.is_mutable_collection(name)]
        mapped += [
            name
            for name in caches
            if self.is_mutable_collection(name) or name in self._layer.variables
        ]
        mapped += WEIGHTS if self.nd_prefix_shape is not None else ()
        if not mapped:
            return run
        earlier_losses = self._layer.variables.get(AUX_LOSS, {})

        def load(stored: dict[str, Any]) -> dict[str, Any]:
            # A pass over a whole sequence makes its losses, summaries and caches anew.
            return {
                name: stacked_variables.merge_prefix(tree, self.nd_prefix_shape or ())
                for name, tree in stored.items()
                if name in WEIGHTS
            }

        def store(seen: dict[str, Any]) -> dict[str, Any]:
            return {name: store_collection(name, tree) for name, tree in seen.items()}

        def store_collection(name: str, tree: Any) -> Any:
            if name == AUX_LOSS:
                return stacked_variables.sum_aux_losses(tree, earlier_losses)
            if name == SUMMARIES:
                return maybe_unpack_summary(tree, self.unpack_summaries, self.x_times)
            if name in CACHES:
                return stacked_variables.unstack_layers(tree, self.x_times)
            return stacked_variables.split_prefix(tree, self.nd_prefix_shape or ())

        return nn.map_variables(
            run, mapped_collections=mapped, trans_in_fn=load, trans_out_fn=store, mutable=True
        )

    # ---- decoding -------------------------------------------------------------------------------

    def init_states(self, *args: Any, **kwargs: Any) -> None:
        """Caches are made by a call over the prompt; this always raises."""
        raise NotImplementedError(
            f"{self.path_text}: init_states: call the layer on inputs of the full length with the "
            f"collection {DECODE_CACHE!r} mutable instead; that creates the caches."
        )

    def extend_step(self, step_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies `extend_step` of each layer to one decoding step.

        Args:
          step_inputs: What the first layer gets.
          *args: What all layers get.
          **kwargs: What all layers get.

        Returns:
          The outputs of the last layer.
        """

        def step(layer: Any, carry: Any) -> Any:
            outputs = layer.extend_step(carry, *args, **kwargs)
            self._check_structure(carry, outputs)
            return outputs

        return self._decode(step, step_inputs)

    def decoding_sequence_length(self) -> int:
        """The number of time steps that the caches have room for."""
        lengths = []

        def ask(layer: Any, carry: Any) -> Any:
            lengths.append(layer.decoding_sequence_length())
            return carry

        self._decode(ask, ())
        return lengths[0]

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the caches by `transform_fn(array, batch_dim, time_dim)`."""
        self._change_caches(lambda layer: layer.transform_decode_state(transform_fn))

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the caches as prefixes that samples share, and starts new ones for suffixes."""
        self._change_caches(
            lambda layer: layer.lazy_broadcast_prefix(num_suffix_samples, suffix_length)
        )

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the caches, and aligns the results."""
        self._change_caches(
            lambda layer: layer.right_align_decode_state_with_prefix(
                max_prefix_size, right_align_fn
            )
        )

    def _change_caches(self, change: Callable[[Any], None]) -> None:
        def step(layer: Any, carry: Any) -> Any:
            change(layer)
            return carry

        self._decode(step, ())

    def _decode(self, step: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Runs `step(layer, carry) -> carry` over the layers, with their caches."""
        if not self.unroll_in_decode:
            run = self._with_stored_layout(
                self._scan(lambda layer, carry, _: (step(layer, carry), None))
            )
            return run(self._layer, carry, {})[0]
        for index in range(self.x_times):
            carry = self._on_layer(index, lambda layer, carry=carry: step(layer, carry))
        return carry

    def _on_layer(self, index: int, function: Callable[[Any], Any]) -> Any:
        """Runs `function(layer)` on one layer, which sees its variables alone."""
        run = nn.map_variables(
            function,
            mapped_collections=[*WEIGHTS, *CACHES],
            trans_in_fn=functools.partial(self._load_layer, index),
            trans_out_fn=functools.partial(_store_layer, index),
            mutable=True,
            variables=DenyList([*WEIGHTS, *CACHES, *REPORTS]),
        )
        return run(self._layer)

    def _load_layer(self, index: int, stored: dict[str, Any]) -> dict[str, Any]:
        """The variables of one layer, without a leading axis."""
        loaded = {}
        for name, tree in stored.items():
            if name in CACHES:
                loaded[name] = tree.get(stacked_variables.layer_name(index), {})
                continue
            if self.nd_prefix_shape is not None:
                tree = stacked_variables.merge_prefix(tree, self.nd_prefix_shape)
            loaded[name] = stacked_variables.take_layer(tree, index)
        return loaded

    # ---- quantization ---------------------------------------------------------------------------

    def quantize_weight(self) -> Any:
        """The weights as the layer gives them, with leading axes."""
        run = self._with_stored_layout(
            self._scan(lambda layer, carry, _: (carry, layer.quantize_weight()))
        )
        _, weights = run(self._layer, (), {})
        if self.nd_prefix_shape is not None:
            weights = stacked_variables.split_prefix(weights, self.nd_prefix_shape)
        return {name: {self.sublayer_name: tree} for name, tree in weights.items()}

    def quantized_partition_specs(self) -> Any:
        """As of the layer, with leading axes that are not sharded."""
        leading = [None] * len(self.nd_prefix_shape or (self.x_times,))

        def prepend(spec: base_layer.BoxedPartitionSpec) -> base_layer.BoxedPartitionSpec:
            return base_layer.BoxedPartitionSpec(
                meta=jax.sharding.PartitionSpec(*leading, *spec.meta)
            )

        specs = jax.tree.map(
            prepend,
            self._on_layer(0, lambda layer: layer.quantized_partition_specs()),
            is_leaf=lambda node: isinstance(node, base_layer.BoxedPartitionSpec),
        )
        return {name: {self.sublayer_name: tree} for name, tree in specs.items()}


def _store_layer(index: int, seen: dict[str, Any]) -> dict[str, Any]:
    """The caches of one layer, as they are stored; its weights do not change in decoding."""
    return {
        name: {stacked_variables.layer_name(index): tree} if tree else {}
        for name, tree in seen.items()
        if name in CACHES
    }
