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

# A mesh with the last of these has its experts there, and groups of tokens over all three.
REPLICA_AXIS, DATA_AXIS, EXPERT_AXIS = "replica", "data", "data_expert"


@dataclasses.dataclass(frozen=True)
class LmShardings:
    """Mappings by the letters of the dims they shard; None does not annotate.

    Letters: B batch, L time, D model width, F width of the feed-forward, N heads, H width of a
    head, V vocabulary; for experts E experts, M model width, H width of the feed-forward, G groups
    of tokens, C places in an expert.

    Attributes:
      w_df: Of the weights of feed-forwards, and of learned positions.
      w_dnh: Of the projections of attentions.
      w_emh: Of the weights of experts.
      w_vd: Of embedding tables and of the softmax.
      a_bld: Of activations of model width.
      a_blf: Of hidden activations of feed-forwards.
      a_blh: Of keys and values of one head.
      a_blnh: Of queries, keys and values.
      a_blv: Of logits.
      a_egch: Of hidden activations of experts.
      a_egcm: Of inputs and outputs of experts; E and M shard groups and width of the tokens too.
      a_bd: As a_bld, of one decoding step; None takes it from a_bld.
      a_bf: As a_blf, of one decoding step; None takes it from a_blf.
      a_bv: As a_blv, of one decoding step; None takes it from a_blv.
    """

    w_df: SplitDimsMapping = None
    w_dnh: SplitDimsMapping = None
    w_emh: SplitDimsMapping = None
    w_vd: SplitDimsMapping = None
    a_bld: SplitDimsMapping = None
    a_blf: SplitDimsMapping = None
    a_blh: SplitDimsMapping = None
    a_blnh: SplitDimsMapping = None
    a_blv: SplitDimsMapping = None
    a_egch: SplitDimsMapping = None
    a_egcm: SplitDimsMapping = None
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
      NotImplementedError: for a softmax that has no known sharding.
    """
    shard_position_emb(lm.position_emb_tpl, shardings)
    for ngrammer in (lm.ngrammer_tpl, *(lm.post_attention_ngrammer_tpls or ())):
        shard_ngrammer(ngrammer, shardings)
    shard_softmax(lm.softmax_tpl, shardings)
    if lm.separate_embedding_tpl is not None:
        shard_softmax(lm.separate_embedding_tpl, shardings)
    shard_stack(lm.stacked_transformer_tpl, shardings, lm.mesh_axis_names)


def shard_position_emb(position_emb: LayerTpl | None, shardings: LmShardings) -> None:
    """Sets the sharding of a learned table of positions; others have no weights."""
    if position_emb is not None and issubclass(position_emb.cls, TrainablePositionalEmbedding):
        position_emb.weight_split_dims_mapping.wt = shardings.w_df


def shard_ngrammer(ngrammer: LayerTpl | None, shardings: LmShardings) -> None:
    """Sets the sharding of the tables of n-grams."""
    if ngrammer is not None:
        ngrammer.weight_split_dims_mapping.wt = shardings.w_vd


def shard_stack(
    stack: LayerTpl, shardings: LmShardings, mesh_axis_names: Sequence[str] | None = None
) -> None:
    """Sets the sharding of each layer of a stack, in its config."""
    stack = inner_stack(stack)
    if stack.moe_layer_tpl is not None:
        _shard_experts(stack.moe_layer_tpl, shardings, stack.mesh_axis_names or mesh_axis_names)
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


def shard_softmax(softmax: LayerTpl, shardings: LmShardings) -> None:
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


def _shard_experts(
    experts: LayerTpl, shardings: LmShardings, mesh_axis_names: Sequence[str] | None
) -> None:
    """Sets the sharding of a mixture of experts.

    Groups of tokens are sharded as the experts are, so that both change places between devices;
    or, where the mesh has an axis of experts, over all axes of the batch.
    """
    emh, egcm = shardings.w_emh, shardings.a_egcm
    _set_existing(
        experts.weight_split_dims_mapping,
        me=[None, None],
        emh=emh,
        ehm=None if emh is None else [emh[0], emh[2], emh[1]],
    )
    activations = experts.activation_split_dims_mapping
    _set_existing(activations, egch=shardings.a_egch, egcm=egcm, gecm=egcm)
    if egcm is None:
        return
    group, width = egcm[0], egcm[3]
    if EXPERT_AXIS in (mesh_axis_names or ()):
        group = (REPLICA_AXIS, DATA_AXIS, EXPERT_AXIS)
        _set_existing(activations, gecm=[egcm[1], egcm[0], *egcm[2:]])
    _set_existing(
        activations,
        gs=[group, None],
        gsm=[group, None, width],
        gsec=[group, None, None, None],
        gecs=[group, None, None, None],
        gec=[group, None, None],
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
    expert_axis = data_axis
    if seq_axis is not None:
        data_axis = (*_as_tuple(data_axis), *_as_tuple(seq_axis))
    bld = [batch_axes, seq_axis, mdl_axis] if training_optimized else [batch_axes, None, None]
    egch = [expert_axis, None, None, mdl_axis]
    return LmShardings(
        w_df=[data_axis, mdl_axis],
        w_dnh=[data_axis, mdl_axis, None],
        w_emh=[data_axis, None, mdl_axis],
        w_vd=[mdl_axis, data_axis],
        a_bld=bld,
        a_blf=[batch_axes, seq_axis, mdl_axis],
        a_blnh=[batch_axes, seq_axis, mdl_axis, None],
        a_blv=[batch_axes, seq_axis, mdl_axis],
        a_egch=egch,
        a_egcm=egch if training_optimized else [batch_axes, None, None, None],
    )


def data_expert_and_model_parallel(
    *,
    replica_axis: str,
    data_axis: str,
    data_expert_axis: str,
    mdl_axis: str,
    batch_axes: Axes,
    seq_axis: str | None,
    training_optimized: bool,
) -> LmShardings:
    """Mappings for a mesh with an axis of experts, which shards the other weights as data does.

    Args:
      replica_axis: Axis of copies of the weights.
      data_axis: Axis that shards D of the weights.
      data_expert_axis: Axis that shards E, and elsewhere what the data axis does.
      mdl_axis: Axis that shards F, N and V.
      batch_axes: Axes that shard B.
      seq_axis: Axis that shards L, and D of the weights too.
      training_optimized: Whether `mdl_axis` also shards D of the activations between layers.
    """
    shardings = data_and_model_parallel(
        data_axis=(data_axis, data_expert_axis),
        mdl_axis=mdl_axis,
        batch_axes=batch_axes,
        seq_axis=seq_axis,
        training_optimized=training_optimized,
    )
    return dataclasses.replace(
        shardings,
        w_emh=[data_expert_axis, data_axis, mdl_axis],
        a_egch=[data_expert_axis, data_axis, None, mdl_axis],
        a_egcm=[data_expert_axis, (replica_axis, data_axis), None, mdl_axis],
    )


def _as_tuple(axes: Axes) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)
