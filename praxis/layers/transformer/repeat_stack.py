"""A stack of transformer layers in a loop, with stacked variables."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_sizes
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat import Repeat
from praxis.layers.transformer.stack import StackedTransformer

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping
DecodeStateTransformFn = base_layer.DecodeStateTransformFn


class StackedTransformerRepeated(base_layer.BaseLayer):
    """Applies a block of transformer layers `x_times` times, with a loop.

    It computes what a `StackedTransformer` of `x_times` times as many layers does, and compiles in
    the time of one block. Shapes: D is the width of the block.

    Attributes:
      block: Config of the `StackedTransformer` to repeat.
      x_times: Number of blocks, at least 1. Required.
      repeat_layer_name: Name of the `Repeat` among the variables.
      sublayer_name: Name of the block in it.
      checkpoint_policy: What is kept for the backward pass, besides the inputs of each block.
      unroll_in_decode: Store decoding caches block by block, and decode without a loop.
      return_intermediate_outputs: Return the outputs of all blocks, stacked, not those of the last.
      collect_intermediate_outputs: Store them as `repeat_intermediates` in "intermediates".
      repeat_optimizer_dims_mapping: Sharding of the leading axis for states of the optimizer.
      nd_prefix_shape: Store variables with leading axes of this shape, see `Repeat`.

    Variables:
      {repeat_layer_name}/{sublayer_name}/x_layers_0 ..: as in `Transformer`, with a leading axis

    Raises:
      ValueError: during setup, if `x_times` is missing.
    """

    block: LayerTpl = template_field(StackedTransformer)
    x_times: int = 0
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_NOTHING
    unroll_in_decode: bool = True
    repeat_layer_name: str = "repeat"
    sublayer_name: str = "sub"
    repeat_optimizer_dims_mapping: SplitDimsMapping = None
    nd_prefix_shape: Sequence[int] | None = None
    collect_intermediate_outputs: bool = False
    return_intermediate_outputs: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          block: Of the leading axis: one entry.
        """

        block: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "x_times")
        repeat = pax_fiddle.Config(
            Repeat,
            sub_tpl=self.block.clone(),
            x_times=self.x_times,
            unpack_summaries=True,
            checkpoint_policy=self.checkpoint_policy,
            unroll_in_decode=self.unroll_in_decode,
            sublayer_name=self.sublayer_name,
            optimizer_dims_mapping=self.repeat_optimizer_dims_mapping,
            nd_prefix_shape=self.nd_prefix_shape,
            collect_intermediate_outputs=self.collect_intermediate_outputs,
            return_intermediate_outputs=self.return_intermediate_outputs,
        )
        repeat.weight_split_dims_mapping.sub = self.weight_split_dims_mapping.block
        self.create_child(self.repeat_layer_name, repeat)

    @property
    def _loop(self) -> Repeat:
        return getattr(self, self.repeat_layer_name)

    @property
    def takes_lazy_masks(self) -> bool:
        """Whether calls take an `AttentionMask` in place of an array, as the block says."""
        return hasattr(self.block.cls, "takes_lazy_masks")

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        segment_mask: Mask | None = None,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_paddings: Shaped[Array, "B S"] | None = None,
        cross_segment_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
    ) -> Float[Array, "... B T D"]:
        """Applies the blocks; the arguments are those of `StackedTransformer`.

        Returns:
          [B, T, D]; with `return_intermediate_outputs`, [x_times, B, T, D].
        """
        return self._loop(
            inputs,
            paddings,
            segment_mask,
            cross_inputs,
            cross_paddings,
            cross_segment_mask,
            segment_pos,
        )

    def init_states(self, *args: Any, **kwargs: Any) -> None:
        """Caches are made by a call over the prompt; this always raises."""
        self._loop.init_states(*args, **kwargs)

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        atten_mask: Shaped[Array, "..."] | None = None,
        cross_paddings: Shaped[Array, "b S"] | None = None,
        cross_segment_mask: Shaped[Array, "_ 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the blocks to one decoding step; the arguments are those of the block."""
        return self._loop.extend_step(
            inputs,
            time_step=time_step,
            segment_pos=segment_pos,
            atten_mask=atten_mask,
            cross_paddings=cross_paddings,
            cross_segment_mask=cross_segment_mask,
        )

    def decoding_sequence_length(self) -> int:
        """The number of time steps that the caches have room for."""
        return self._loop.decoding_sequence_length()

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the caches by `transform_fn(array, batch_dim, time_dim)`."""
        self._loop.transform_decode_state(transform_fn)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the caches as prefixes that samples share, and starts new ones for suffixes."""
        self._loop.lazy_broadcast_prefix(num_suffix_samples, suffix_length)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the caches, and aligns the results."""
        self._loop.right_align_decode_state_with_prefix(max_prefix_size, right_align_fn)
