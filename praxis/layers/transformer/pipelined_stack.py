"""Stacks of transformer layers as a pipeline, and the stack that decodes with their variables."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_sizes
from praxis.layers.transformer.circular_pipeline import CircularLayerwiseShardablePipelined
from praxis.layers.transformer.pipeline import LayerwiseShardablePipelined
from praxis.layers.transformer.remat import AutodiffCheckpointType
from praxis.layers.transformer.repeat_stack import StackedTransformerRepeated
from praxis.layers.transformer.stack import StackedTransformer

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


class PipelinedTransformer(base_layer.BaseLayer):
    """Applies a block of transformer layers once for each stage of a pipeline.

    It computes what a stack of as many blocks does, but each stage can lie on devices of its own,
    and works on one part of the batch while the others work on others. For training only: decode
    with a `PipelineCompatibleStackedTransformerRepeated` of as many blocks, on the same variables.
    Shapes: D is the width of the block.

    Attributes:
      pipeline_stage: Config of the block, a `StackedTransformer` or a repeated one.
      num_pipeline_stages: Number of stages S, at least 1. Required.
      num_pipeline_microbatches: Number of parts M of the batch. Example b is in part b % M.
      pipeline_microbatch_size: Examples in a part, in place of M. One of the two is required.
      circular_repeat: How often the parts go around R; there are R S blocks. Above 1, M has to be
        at least S.
      stream_io, pipeline_broadcast_inputs, checkpoint_policy, bf16_accum_in_fp32: As in
        `LayerwiseShardablePipelined`.
      enable_async_circular_transfer: As in `CircularLayerwiseShardablePipelined`.

    Variables:
      pipeline/body/x_layers_0 ..: as in `Transformer`, with leading axes [S], or [R, S] for R > 1

    Raises:
      ValueError: during setup, if a size is missing; in calls, if the batch does not divide.
      NotImplementedError: in calls, for R > 1 with M < S; in `extend_step`.
    """

    pipeline_stage: LayerTpl = template_field(StackedTransformer)
    circular_repeat: int = 1
    num_pipeline_stages: int | None = None
    num_pipeline_microbatches: int | None = None
    pipeline_microbatch_size: int | None = None
    stream_io: bool = False
    pipeline_broadcast_inputs: bool = False
    enable_async_circular_transfer: bool = True
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_ITERATION_INPUT
    bf16_accum_in_fp32: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          stages: Of the axis of stages: one entry.
        """

        stages: SplitDimsMapping = (None,)

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          final_out: Of the outputs, [B, T, D].
        """

        final_out: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "num_pipeline_stages", "circular_repeat")
        if self.num_pipeline_microbatches is None and self.pipeline_microbatch_size is None:
            raise ValueError(
                f"{self.path_text}: num_pipeline_microbatches and pipeline_microbatch_size are "
                "both None. Set one of them, e.g. config.num_pipeline_microbatches = "
                f"{self.num_pipeline_stages}."
            )
        is_circular = self.circular_repeat > 1
        pipeline = pax_fiddle.Config(
            CircularLayerwiseShardablePipelined if is_circular else LayerwiseShardablePipelined,
            num_stages=self.num_pipeline_stages,
            single_stage_body=self.pipeline_stage.clone(),
            num_microbatches=self.num_pipeline_microbatches,
            microbatch_size=self.pipeline_microbatch_size,
            stream_io=self.stream_io,
            pipeline_broadcast_inputs=self.pipeline_broadcast_inputs,
            checkpoint_policy=self.checkpoint_policy,
            bf16_accum_in_fp32=self.bf16_accum_in_fp32,
        )
        if is_circular:
            pipeline.circular_repeat = self.circular_repeat
            pipeline.enable_async_circular_transfer = self.enable_async_circular_transfer
        pipeline.weight_split_dims_mapping.stages = self.weight_split_dims_mapping.stages
        self.create_child("pipeline", pipeline)

    @property
    def takes_lazy_masks(self) -> bool:
        """Whether calls take an `AttentionMask` in place of an array, as the block says."""
        return hasattr(self.pipeline_stage.cls, "takes_lazy_masks")

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        segment_mask: Mask | None = None,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_paddings: Shaped[Array, "B S"] | None = None,
        cross_segment_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Applies the blocks; the arguments are those of `StackedTransformer`.

        Returns:
          [B, T, D].
        """
        bld = None if self.stream_io else _activation_sharding(self.pipeline_stage)
        inputs = self._shard(inputs, bld)
        paddings = self._shard(paddings, bld and bld[:2])
        outputs = self.pipeline(
            inputs,
            paddings,
            segment_mask,
            cross_inputs,
            cross_paddings,
            cross_segment_mask,
            segment_pos,
        )
        outputs = self._shard(outputs, bld)
        return self._shard(outputs, self.activation_split_dims_mapping.final_out)

    def _shard(self, x: Array, mapping: SplitDimsMapping) -> Array:
        return base_layer.maybe_shard(x, mapping, self.mesh_axis_names)

    def init_states(self, *args: Any, **kwargs: Any) -> None:
        """A pipeline does not decode; this always raises."""
        raise NotImplementedError(self._no_decoding("init_states"))

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        cross_paddings: Shaped[Array, "b S"] | None = None,
        cross_segment_mask: Shaped[Array, "_ 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """A pipeline does not decode; this always raises."""
        raise NotImplementedError(self._no_decoding("extend_step"))

    def _no_decoding(self, method: str) -> str:
        stages, repeat = self.num_pipeline_stages, self.circular_repeat
        prefix = "" if repeat == 1 else f" and nd_prefix_shape = ({repeat}, {stages})"
        return (
            f"{self.path_text}: {method}: a pipeline does not decode. The same variables decode in "
            "a PipelineCompatibleStackedTransformerRepeated with block = pipeline_stage, x_times = "
            f"{repeat * (stages or 1)}{prefix}."
        )


class PipelineCompatibleStackedTransformerRepeated(StackedTransformerRepeated):
    """A repeated stack that has the variables of a `PipelinedTransformer`, to decode with them.

    With S stages and R = `circular_repeat`, `x_times` is R S; `nd_prefix_shape` is (R, S) for R
    above 1, and None otherwise.

    Variables:
      pipeline/body/x_layers_0 ..: as in `Transformer`, with a leading axis
    """

    repeat_layer_name: str = "pipeline"
    sublayer_name: str = "body"


def _activation_sharding(stage: LayerTpl) -> SplitDimsMapping:
    """The sharding of the activations, [B, T, D], that the attention of the first layer has."""
    while hasattr(stage, "block"):
        stage = stage.block
    layers = getattr(stage, "transformer_layer_params_tpl", None)
    first = layers[0] if isinstance(layers, Sequence) else layers
    attention = getattr(first, "tr_atten_tpl", None)
    return getattr(getattr(attention, "activation_split_dims_mapping", None), "bld", None)
