"""Language models with experts, sharded over data and model axes or with an axis of experts."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.tasks.batch import mesh_size
from paxml.tasks.lm.adam import TransformerLmSpmdAdam
from paxml.tasks.lm.transformer import LayerTpl
from praxis.layers import glam, grok


class ExpertSettings(TransformerLmSpmdAdam):
    """Settings of models with experts.

    Attributes:
      NUM_EXPERTS: Experts of a layer that has some.
      CAPACITY_FACTOR: Places for tokens in an expert, over the number of tokens for each expert.
    """

    PERCORE_BATCH_SIZE: ClassVar[int | float] = 1
    NUM_HEADS: ClassVar[int | None] = 32
    DIMS_PER_HEAD: ClassVar[int | None] = 128
    NUM_EXPERTS: ClassVar[int] = 8
    CAPACITY_FACTOR: ClassVar[float] = 2.0
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16

    def expert_fields(self) -> dict[str, Any]:
        """Arguments that the functions for configs of such models share."""
        return {
            "vocab_size": self.VOCAB_SIZE,
            "model_dim": self.MODEL_DIMS,
            "ff_dim": self.HIDDEN_DIMS or 4 * self.MODEL_DIMS,
            "attention_num_heads": self.NUM_HEADS,
            "attention_key_value_dim": self.DIMS_PER_HEAD,
            "num_transformer_layers": self.NUM_LAYERS,
            "moe": True,
            "e_dim": self.NUM_EXPERTS,
            "capacity_factor": self.CAPACITY_FACTOR,
            "num_groups": mesh_size(self.ICI_MESH_SHAPE) or 1,
            "checkpoint_policy": self.CHECKPOINT_POLICY,
        }


class Glam(ExpertSettings):
    """GLaM: every other layer has experts. Du et al., 2021, arXiv:2112.06905."""

    VOCAB_SIZE: ClassVar[int] = 256_000
    NUM_EXPERTS: ClassVar[int] = 64

    def lm_config(self) -> LayerTpl:
        return glam.GlamUniTransformerLmHParams(**self.expert_fields())


class GlamWithExpertAxis(Glam):
    """GLaM on a mesh that has an axis of experts, [replica, data, data_expert, mdl]."""

    MESH_AXIS_NAMES: ClassVar[Sequence[str]] = ("replica", "data", "data_expert", "mdl")
    BATCH_AXES: ClassVar[Sequence[str]] = ("replica", "data", "data_expert")
    DCN_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 1, 1, 1)

    def shard(self, lm: LayerTpl, mesh: dict[str, Any]) -> None:
        lm.cls.set_sharding_params_with_expert_parallelism(
            lm,
            replica_axis="replica",
            data_axis="data",
            data_expert_axis="data_expert",
            mdl_axis="mdl",
            training_optimized=self.TRAINING_OPTIMIZED_SHARDING,
            **mesh,
        )


class GrokSettings(ExpertSettings):
    """The sizes of Grok-1, as published with its weights: 8 gated experts in all layers.

    Attributes:
      NUM_STAGES: Stages of a pipeline, on the first axis of the mesh; 1 for none.
      NUM_MICROBATCHES: Parts of a batch in the pipeline.
    """

    MAX_SEQ_LEN: ClassVar[int] = 8192
    NUM_LAYERS: ClassVar[int] = 64
    MODEL_DIMS: ClassVar[int] = 6144
    HIDDEN_DIMS: ClassVar[int | None] = 32768
    NUM_HEADS: ClassVar[int | None] = 48
    NUM_KV_HEADS: ClassVar[int | None] = 8
    VOCAB_SIZE: ClassVar[int] = 131_072
    ATTEN_LOGIT_CAP: ClassVar[float] = 30.0
    NUM_STAGES: ClassVar[int] = 1
    NUM_MICROBATCHES: ClassVar[int] = 1

    def lm_config(self) -> LayerTpl:
        lm = grok.GrokUniTransformerLmHParams(
            attention_num_groups=self.NUM_KV_HEADS or 1,
            atten_logit_cap=self.ATTEN_LOGIT_CAP,
            num_pipeline_stages=self.NUM_STAGES,
            num_pipeline_microbatches=self.NUM_MICROBATCHES,
            **self.expert_fields(),
        )
        if self.NUM_STAGES > 1:
            lm.stacked_transformer_tpl.weight_split_dims_mapping.stages = ("stage",)
        return lm


class GrokInStages(GrokSettings):
    """Grok-1 in stages, on a mesh [stage, replica, data, mdl]."""

    MESH_AXIS_NAMES: ClassVar[Sequence[str]] = ("stage", "replica", "data", "mdl")
    DCN_MESH_SHAPE: ClassVar[Sequence[int] | None] = (1, 1, 1, 1)
    NUM_STAGES: ClassVar[int] = 8
    NUM_MICROBATCHES: ClassVar[int] = 8
