"""Sharding of the weights and activations of a language model, set in its config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from praxis import base_layer, pax_fiddle
from praxis.layers.embedding.gshard import GShardSharedEmbeddingSoftmax
from praxis.layers.embedding.softmax import FullSoftmax
from praxis.layers.embedding.table import Embedding
from praxis.layers.embedding.trainable_position import TrainablePositionalEmbedding

SplitDimsMapping = base_layer.SplitDimsMapping
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
Axes = str | Sequence[str] | None

# Fields that hold the stack inside a stack: of a repeated and of a pipelined one.
INNER_STACK_FIELDS = ("block", "pipeline_stage")


@dataclasses.dataclass(frozen=True)
class LmShardings:
    """Mappings by the letters of the dims they shard; None does not annotate.

    Letters: B batch, L time, D model width, F width of the feed-forward, N heads, H width of a
    head, V vocabulary.

    Attributes:
      w_df: Of the weights of feed-forwards, and of learned positions.
      w_dnh: Of the projections of attentions.
      w_vd: Of embedding tables and of the softmax.
      a_bld: Of activations of model width.
      a_blf: Of hidden activations of feed-forwards.
      a_blh: Of keys and values of one head.
      a_blnh: Of queries, keys and values.
      a_blv: Of logits.
      a_bd: As a_bld, of one decoding step; None takes it from a_bld.
      a_bf: As a_blf, of one decoding step; None takes it from a_blf.
      a_bv: As a_blv, of one decoding step; None takes it from a_blv.
    """

    w_df: SplitDimsMapping = None
    w_dnh: SplitDimsMapping = None
    w_vd: SplitDimsMapping = None
    a_bld: SplitDimsMapping = None
    a_blf: SplitDimsMapping = None
    a_blh: SplitDimsMapping = None
    a_blnh: SplitDimsMapping = None
    a_blv: SplitDimsMapping = None
    a_bd: SplitDimsMapping = None
    a_bf: SplitDimsMapping = None
    a_bv: SplitDimsMapping = None

    def step(self, name: str) -> SplitDimsMapping:
        """The mapping `a_b?` of one decoding step, from `a_bl?` without time if not given."""
        own, whole = getattr(self, name), getattr(self, f"{name[:3]}l{name[3:]}")
        return own if own is not None or whole is None else [whole[0], whole[2]]


def inner_stack(config: LayerTpl) -> LayerTpl:
    """The config of the StackedTransformer inside a repeated or pipelined one, or itself."""
    for field in INNER_STACK_FIELDS:
        if hasattr(config, field):
            return inner_stack(getattr(config, field))
    return config


def shard_lm(lm: LayerTpl, shardings: LmShardings) -> None:
    """Sets the sharding of a TransformerLm's parts in its config.

    Raises:
      NotImplementedError: for a softmax or a feed-forward that has no known sharding.
    """
    position_emb = lm.position_emb_tpl
    if position_emb is not None and issubclass(position_emb.cls, TrainablePositionalEmbedding):
        position_emb.weight_split_dims_mapping.wt = shardings.w_df
    _shard_softmax(lm.softmax_tpl, shardings)
    if lm.separate_embedding_tpl is not None:
        _shard_softmax(lm.separate_embedding_tpl, shardings)
    shard_stack(lm.stacked_transformer_tpl, shardings)


def shard_stack(stack: LayerTpl, shardings: LmShardings) -> None:
    """Sets the sharding of each layer of a stack, in its config.

    Raises:
      NotImplementedError: for mixtures of experts.
    """
    stack = inner_stack(stack)
    if stack.moe_layer_tpl is not None:
        raise NotImplementedError(
            f"{stack.cls.__name__}.moe_layer_tpl is set, but the sharding of mixtures of experts "
            "is not built yet. Leave it None, or set the mappings of its config by hand."
        )
    layers = stack.transformer_layer_params_tpl
    for layer in layers if isinstance(layers, Sequence) else [layers]:
        for attention in (layer.tr_atten_tpl, layer.cross_atten_tpl):
            if attention is not None:
                _shard_attention(attention, shardings)
        _shard_feed_forward(layer.tr_fflayer_tpl, shardings)


def _reversed(mapping: SplitDimsMapping) -> SplitDimsMapping:
    return None if mapping is None else list(reversed(mapping))


def _set_existing(mappings: Any, **values: SplitDimsMapping) -> None:
    """Sets those of the mappings that the layer has."""
    for name, value in values.items():
        if hasattr(mappings, name):
            setattr(mappings, name, value)


def _shard_softmax(softmax: LayerTpl, shardings: LmShardings) -> None:
    """Sets the sharding of an output layer or an embedding table."""
    stored_by_rows = issubclass(softmax.cls, Embedding | GShardSharedEmbeddingSoftmax)
    if not stored_by_rows and not issubclass(softmax.cls, FullSoftmax):
        raise NotImplementedError(
            f"The sharding of {softmax.cls.__name__} is not known. Expected a subclass of "
            "FullSoftmax, GShardSharedEmbeddingSoftmax or Embedding; or set the mappings of its "
            "config by hand."
        )
    wt = shardings.w_vd if stored_by_rows else _reversed(shardings.w_vd)
    softmax.weight_split_dims_mapping.wt = wt
    _set_existing(
        softmax.activation_split_dims_mapping,
        out=shardings.a_blv,
        emb_out_split_dims_mapping=shardings.a_bld,
        extend_step_out=shardings.step("a_bv"),
    )


def _shard_attention(attention: LayerTpl, shardings: LmShardings) -> None:
    dnh = shardings.w_dnh
    _set_existing(
        attention.weight_split_dims_mapping,
        proj=dnh,
        dconv=None if dnh is None else [dnh[1], None],
        proj_headless=None if dnh is None else [dnh[0], dnh[2]],
    )
    _set_existing(
        attention.activation_split_dims_mapping,
        blnh=shardings.a_blnh,
        bld=shardings.a_bld,
        blh=shardings.a_blh,
        bd=shardings.step("a_bd"),
    )


def _shard_feed_forward(feed_forward: LayerTpl, shardings: LmShardings) -> None:
    feed_forward.weight_split_dims_mapping.set(ffn0=shardings.w_df, ffn1=_reversed(shardings.w_df))
    feed_forward.activation_split_dims_mapping.set(
        ffn0=shardings.a_blf,
        ffn1=shardings.a_bld,
        ffn0_extend_step=shardings.step("a_bf"),
        ffn1_extend_step=shardings.step("a_bd"),
    )


def data_and_model_parallel(
    *,
    data_axis: Axes,
    mdl_axis: Axes,
    batch_axes: Axes,
    seq_axis: Axes,
    training_optimized: bool,
) -> LmShardings:
    """Mappings for weights sharded over data and model axes.

    Args:
      data_axis: Axis that shards D of the weights, besides the batch.
      mdl_axis: Axis that shards F, N and V.
      batch_axes: Axes that shard B.
      seq_axis: Axis that shards L, and D of the weights too.
      training_optimized: Whether `mdl_axis` also shards D of the activations between layers.
    """
    if seq_axis is not None:
        data_axis = (*_as_tuple(data_axis), *_as_tuple(seq_axis))
    bld = [batch_axes, seq_axis, mdl_axis] if training_optimized else [batch_axes, None, None]
    return LmShardings(
        w_df=[data_axis, mdl_axis],
        w_dnh=[data_axis, mdl_axis, None],
        w_vd=[mdl_axis, data_axis],
        a_bld=bld,
        a_blf=[batch_axes, seq_axis, mdl_axis],
        a_blnh=[batch_axes, seq_axis, mdl_axis, None],
        a_blv=[batch_axes, seq_axis, mdl_axis],
    )


def _as_tuple(axes: Axes) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)
