"""Language models on a mesh of replicas, data and model."""

from collections.abc import Sequence
from typing import Any, ClassVar

from paxml.task.single_task import SingleTask
from paxml.tasks.lm.optimizer import set_adafactor
from paxml.tasks.lm.transformer import LayerTpl, TransformerSettings
from praxis import pax_fiddle, py_utils
from praxis.layers import transformers

BATCH_AXES = ("replica", "data")


class TransformerLmSpmdAdafactor(TransformerSettings):
    """A language model whose weights are split over data and model axes, trained with Adafactor.

    Attributes:
      ICI_MESH_SHAPE: Sizes of the axes [replica, data, mdl] inside a slice.
      DCN_MESH_SHAPE: Sizes of the axes across slices.
      BATCH_AXES: Axes that split the batch.
      TRAINING_OPTIMIZED_SHARDING: Whether `mdl` also splits the width of activations between
        layers.
    """

    MESH_AXIS_NAMES: ClassVar[Sequence[str]] = (*BATCH_AXES, "mdl")
    BATCH_AXES: ClassVar[Sequence[str]] = BATCH_AXES
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = None
    DCN_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 1, 1)
    TRAINING_OPTIMIZED_SHARDING: ClassVar[bool] = True

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        set_adafactor(task, self.LEARNING_RATE, self.WEIGHT_DECAY)

    def place(self, task: pax_fiddle.Config[SingleTask]) -> None:
        """Splits model and inputs over the mesh.

        Raises:
          ValueError: without a mesh.
        """
        if self.ICI_MESH_SHAPE is None:
            raise ValueError(
                f"{type(self).__name__}: ICI_MESH_SHAPE is None. Set it to the sizes of the axes "
                f"{list(self.MESH_AXIS_NAMES)}, whose product is the number of devices."
            )
        mesh = {
            "ici_mesh_shape": list(self.ICI_MESH_SHAPE),
            "dcn_mesh_shape": None if self.DCN_MESH_SHAPE is None else list(self.DCN_MESH_SHAPE),
            "mesh_axis_names": list(self.MESH_AXIS_NAMES),
        }
        task.model.set(**mesh)
        self.shard(task.model.lm_tpl, mesh)
        batch_axes = tuple(self.BATCH_AXES)
        task.train.inputs_split_mapping = py_utils.NestedMap(
            map_1d=(batch_axes,), map_2d=(batch_axes, None)
        )

    def shard(self, lm: LayerTpl, mesh: dict[str, Any]) -> None:
        """Splits weights and activations, in the config of the model of tokens.

        Args:
          lm: The config, which is changed.
          mesh: Shapes and names of the mesh.
        """
        lm.cls.set_sharding_params_v1(
            lm,
            replica_axis="replica",
            data_axis="data",
            mdl_axis="mdl",
            training_optimized=self.TRAINING_OPTIMIZED_SHARDING,
            **mesh,
        )


class Pipelined(TransformerSettings):
    """Settings of a pipeline: the layers are split into stages, each on devices of its own.

    Attributes:
      NUM_STAGES: Stages; None for the size of the first mesh axis, in all slices.
      CIRCULAR_REPEAT: How often a microbatch goes around all stages.
      NUM_MICROBATCHES: Parts of a batch. Or
      MICROBATCH_SIZE: rows in a part. One of both is needed.
      STREAM_IO: Spread inputs and outputs over the stages.
      PIPELINE_BROADCAST_INPUTS: Masks travel with the activations.

    Raises:
      ValueError: from `task`, if layers do not divide over stages, or there is no microbatch.
    """

    NUM_STAGES: ClassVar[int | None] = None
    CIRCULAR_REPEAT: ClassVar[int] = 1
    NUM_MICROBATCHES: ClassVar[int | None] = None
    MICROBATCH_SIZE: ClassVar[int | None] = None
    STREAM_IO: ClassVar[bool] = False
    PIPELINE_BROADCAST_INPUTS: ClassVar[bool] = False

    MESH_AXIS_NAMES: ClassVar[Sequence[str]] = ("stage", *BATCH_AXES, "mdl")
    ICI_MESH_SHAPE: ClassVar[Sequence[int] | None] = None
    DCN_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 1, 1, 1)

    def num_stages(self) -> int:
        """Stages of the pipeline."""
        if self.NUM_STAGES is not None:
            return self.NUM_STAGES
        ici, dcn = self.ICI_MESH_SHAPE or (1,), self.DCN_MESH_SHAPE or (1,)
        return ici[0] * dcn[0]

    def stack_config(self) -> LayerTpl:
        """Config of the pipeline."""
        stages = self.num_stages()
        if self.NUM_LAYERS % (stages * self.CIRCULAR_REPEAT):
            raise ValueError(
                f"{type(self).__name__}: NUM_LAYERS = {self.NUM_LAYERS} is not a multiple of "
                f"{stages} stages times CIRCULAR_REPEAT = {self.CIRCULAR_REPEAT}."
            )
        if self.NUM_MICROBATCHES is None and self.MICROBATCH_SIZE is None:
            raise ValueError(
                f"{type(self).__name__}: NUM_MICROBATCHES and MICROBATCH_SIZE are both None. Set "
                "one of them, so that the batch can be split."
            )
        fields: dict[str, Any] = {
            "num_pipeline_microbatches": self.NUM_MICROBATCHES,
            "pipeline_microbatch_size": self.MICROBATCH_SIZE,
            "stream_io": self.STREAM_IO,
            "pipeline_broadcast_inputs": self.PIPELINE_BROADCAST_INPUTS,
        }
        stack = pax_fiddle.Config(
            transformers.PipelinedTransformer,
            pipeline_stage=self.layers_config(self.NUM_LAYERS // stages // self.CIRCULAR_REPEAT),
            num_pipeline_stages=stages,
            circular_repeat=self.CIRCULAR_REPEAT,
            **fields,
        )
        stack.weight_split_dims_mapping.stages = ("stage",)
        return stack


class TransformerLmSpmdPipelineAdafactor(Pipelined, TransformerLmSpmdAdafactor):
    """A pipelined language model on a mesh of stages, replicas, data and model."""
