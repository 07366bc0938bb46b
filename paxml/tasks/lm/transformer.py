"""A transformer language model described by settings in capitals."""

import math
from typing import Any, ClassVar

import jax.numpy as jnp

from paxml.experiment.base import BaseExperiment
from paxml.task.single_task import SingleTask
from praxis import base_layer, pax_fiddle
from praxis.layers import (
    activations,
    attentions,
    embedding_softmax,
    models,
    multi_query_attention,
    normalizations,
    transformer_models,
    transformers,
)

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
AutodiffCheckpointType = transformers.AutodiffCheckpointType


class TransformerSettings(BaseExperiment):
    """Settings of a language model and of its training; subclasses place it and give it data.

    Attributes:
      NUM_LAYERS, MODEL_DIMS, VOCAB_SIZE: Sizes.
      HIDDEN_DIMS: Width of the feed-forward; None for 4 MODEL_DIMS.
      NUM_HEADS, DIMS_PER_HEAD: Their product is MODEL_DIMS; None for what follows from the others.
      NUM_KV_HEADS: Heads of keys and values, which the query heads share; None for all of them.
      USE_BIAS: Whether projections have biases.
      COMBINE_QKV: One projection makes queries, keys and values.
      USE_PER_DIM_SCALE: Queries are scaled by learned factors; not with NUM_KV_HEADS.
      ATTEN_LOGIT_CAP, SOFTMAX_CAP_LOGITS: Soft bounds of logits; 0 for none.
      ACTIVATION_CLS, USE_GATED_ACTIVATION: Nonlinearity of the feed-forward.
      NORM_CLS: Normalization before each sublayer and at the end.
      USE_ROTARY_POSITION_EMB: Attention knows positions; nothing is added to embeddings.
      TRAINABLE_POSITIONS: Length of a learned table of positions; None for fixed waves.
      SEPARATE_EMBEDDING: The table of inputs is not that of the softmax.
      USE_REPEATED_LAYER: Run the layers with a loop, with stacked variables.
      CHECKPOINT_POLICY: What layers keep for the backward pass.
      FPROP_DTYPE: Dtype of activations; weights are float32.
      REPEAT_PREFIX_SEP: Stands between name and shape of stacked optimizer states.
      LEARNING_RATE, WEIGHT_DECAY: Of the optimizer.
      MAX_STEPS: Updates in all; None for the trainer's default.
      CHECKPOINT_EVERY_N_STEPS: Steps between checkpoints.
      CHECKPOINT_MAX_TO_KEEP: How many of them stay.
      SUMMARY_INTERVAL_STEPS, EVAL_INTERVAL_STEPS: Steps between summaries and evaluations.

    Raises:
      ValueError: from `task`, if the widths of heads do not add up to that of the model.
    """

    NUM_LAYERS: ClassVar[int] = 10
    VOCAB_SIZE: ClassVar[int] = 32000
    DIMS_PER_HEAD: ClassVar[int | None] = 128
    NUM_HEADS: ClassVar[int | None] = None
    NUM_KV_HEADS: ClassVar[int | None] = None
    MODEL_DIMS: ClassVar[int] = 2048
    HIDDEN_DIMS: ClassVar[int | None] = None

    USE_BIAS: ClassVar[bool] = False
    COMBINE_QKV: ClassVar[bool] = True
    USE_PER_DIM_SCALE: ClassVar[bool] = True
    ATTEN_LOGIT_CAP: ClassVar[float] = 50.0
    SOFTMAX_CAP_LOGITS: ClassVar[float] = 30.0
    ACTIVATION_CLS: ClassVar[type[activations.BaseActivation]] = activations.ReLU
    USE_GATED_ACTIVATION: ClassVar[bool] = False
    NORM_CLS: ClassVar[type[normalizations.BaseNormalization]] = normalizations.LayerNorm
    USE_ROTARY_POSITION_EMB: ClassVar[bool] = False
    TRAINABLE_POSITIONS: ClassVar[int | None] = None
    SEPARATE_EMBEDDING: ClassVar[bool] = False
    MODEL_TYPE: ClassVar[models.LanguageModelType] = models.LanguageModelType.CAUSAL

    USE_REPEATED_LAYER: ClassVar[bool] = False
    CHECKPOINT_POLICY: ClassVar[AutodiffCheckpointType] = AutodiffCheckpointType.SAVE_NOTHING
    FPROP_DTYPE: ClassVar[Any] = jnp.bfloat16
    REPEAT_PREFIX_SEP: ClassVar[str] = "#"

    LEARNING_RATE: ClassVar[float] = 2.5e-4
    WEIGHT_DECAY: ClassVar[float] = 1e-3
    MAX_STEPS: ClassVar[int | None] = None
    CHECKPOINT_EVERY_N_STEPS: ClassVar[int] = 5000
    CHECKPOINT_MAX_TO_KEEP: ClassVar[int] = 10
    SUMMARY_INTERVAL_STEPS: ClassVar[int] = 100
    EVAL_INTERVAL_STEPS: ClassVar[int] = 100

    def task(self) -> pax_fiddle.Config[SingleTask]:
        lm = self.lm_config()
        task = pax_fiddle.Config(SingleTask, name="xformer_task")
        task.model = self.model_config(lm).set(fprop_dtype=self.FPROP_DTYPE)
        task.train.set(
            save_interval_steps=self.CHECKPOINT_EVERY_N_STEPS,
            save_max_to_keep=self.CHECKPOINT_MAX_TO_KEEP,
            summary_interval_steps=self.SUMMARY_INTERVAL_STEPS,
            eval_interval_steps=self.EVAL_INTERVAL_STEPS,
        )
        if self.MAX_STEPS is not None:
            task.train.num_train_steps = self.MAX_STEPS
        self.set_optimizer(task)
        task.train.learner.repeat_prefix_sep = self.REPEAT_PREFIX_SEP
        self.place(task)
        return task

    def set_optimizer(self, task: pax_fiddle.Config[SingleTask]) -> None:
        """Sets loss and optimizer in the config of the task; subclasses define it."""
        raise NotImplementedError

    def place(self, task: pax_fiddle.Config[SingleTask]) -> None:
        """Sets mesh and sharding in the config of the task; here there is none."""

    # ---- the model ------------------------------------------------------------------------------

    def head_sizes(self) -> tuple[int, int]:
        """Number of heads, and width of each, checked against the width of the model."""
        width = self.DIMS_PER_HEAD or self.MODEL_DIMS // (self.NUM_HEADS or 1)
        num_heads = self.NUM_HEADS or self.MODEL_DIMS // width
        if num_heads * width != self.MODEL_DIMS:
            raise ValueError(
                f"{type(self).__name__}: NUM_HEADS = {num_heads} times DIMS_PER_HEAD = {width} is "
                f"{num_heads * width}, expected MODEL_DIMS = {self.MODEL_DIMS}. Change one of the "
                "three."
            )
        return num_heads, width

    def model_config(self, lm: LayerTpl) -> LayerTpl:
        """Config of what the trainer trains, around the model of tokens."""
        return pax_fiddle.Config(
            models.LanguageModel, name="xformer_lm", lm_tpl=lm, model_type=self.MODEL_TYPE
        )

    def lm_config(self) -> LayerTpl:
        """Config of the model of tokens."""
        init = base_layer.WeightInit.Gaussian(1.0 / math.sqrt(self.MODEL_DIMS))
        softmax = pax_fiddle.Config(
            embedding_softmax.FullSoftmax
            if self.SEPARATE_EMBEDDING
            else embedding_softmax.SharedEmbeddingSoftmax,
            soft_cap_logits=self.SOFTMAX_CAP_LOGITS,
            params_init=init,
        )
        embedding = None
        if self.SEPARATE_EMBEDDING:
            softmax.feed_forward_tpl.has_bias = False
            embedding = pax_fiddle.Config(embedding_softmax.Embedding, params_init=init)
        else:
            softmax.scale_sqrt_depth = True
        lm = pax_fiddle.Config(
            transformer_models.TransformerLm,
            packed_input=True,
            model_dims=self.MODEL_DIMS,
            vocab_size=self.VOCAB_SIZE,
            model_type=self.MODEL_TYPE,
            stacked_transformer_tpl=self.stack_config(),
            softmax_tpl=softmax,
            separate_embedding_tpl=embedding,
            final_ln_tpl=pax_fiddle.Config(self.NORM_CLS),
        )
        if self.USE_ROTARY_POSITION_EMB:
            lm.position_emb_tpl = None
        elif self.TRAINABLE_POSITIONS is not None:
            lm.position_emb_tpl = pax_fiddle.Config(
                embedding_softmax.TrainablePositionalEmbedding,
                max_seq_length=self.TRAINABLE_POSITIONS,
            )
        return lm

    def stack_config(self) -> LayerTpl:
        """Config of all layers."""
        return self.layers_config(self.NUM_LAYERS)

    def layers_config(self, num_layers: int) -> LayerTpl:
        """Config of so many layers, with a loop over them or one after the other."""
        if not self.USE_REPEATED_LAYER:
            stack = self.block_config().set(num_layers=num_layers, remat=True)
            return stack.set(checkpoint_policy=self.CHECKPOINT_POLICY)
        return pax_fiddle.Config(
            transformers.StackedTransformerRepeated,
            block=self.block_config(),
            x_times=num_layers,
            checkpoint_policy=self.CHECKPOINT_POLICY,
        )

    def block_config(self) -> LayerTpl:
        """Config of a stack of one layer."""
        num_heads, dim_per_head = self.head_sizes()
        block = pax_fiddle.Config(
            transformers.StackedTransformer,
            num_layers=1,
            model_dims=self.MODEL_DIMS,
            hidden_dims=self.HIDDEN_DIMS or 4 * self.MODEL_DIMS,
            num_heads=num_heads,
            dim_per_head=dim_per_head,
        )
        layer = block.transformer_layer_params_tpl
        norm = pax_fiddle.Config(self.NORM_CLS)
        layer.set(norm_policy="pre", ln_tpl=norm, tr_atten_tpl=self.attention_config())
        layer.tr_fflayer_tpl.set(
            has_bias=self.USE_BIAS,
            activation_tpl=pax_fiddle.Config(self.ACTIVATION_CLS),
            use_gated_activation=self.USE_GATED_ACTIVATION,
            ln_tpl=norm.clone(),
        )
        return block

    def attention_config(self) -> LayerTpl:
        """Config of the self-attention."""
        fields = {
            "use_bias": self.USE_BIAS,
            "atten_logit_cap": self.ATTEN_LOGIT_CAP,
            "use_rotary_position_emb": self.USE_ROTARY_POSITION_EMB,
        }
        if self.NUM_KV_HEADS is not None:
            return pax_fiddle.Config(
                multi_query_attention.MultiQueryDotProductAttention,
                num_kv_heads=self.NUM_KV_HEADS,
                **fields,
            )
        return pax_fiddle.Config(
            attentions.DotProductAttention,
            combine_qkv=self.COMBINE_QKV,
            internal_enable_per_dim_scale=self.USE_PER_DIM_SCALE,
            **fields,
        )
