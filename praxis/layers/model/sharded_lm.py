"""The sharding of a language model of transformer layers, set in its config."""

from collections.abc import Sequence

from praxis import base_layer, pax_fiddle
from praxis.layers.model import lm_sharding

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


class ShardedLm(base_layer.BaseLayer):
    """Class methods that shard the parts of a language model in its config."""

    @classmethod
    def set_sharding_params_v1(
        cls,
        lm_p: LayerTpl,
        *,
        replica_axis: str,
        data_axis: str,
        mdl_axis: str,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        batch_axes: Sequence[str] | None = None,
        mesh_axis_names: Sequence[str],
        seq_axis: str | None = None,
        training_optimized: bool,
    ) -> LayerTpl:
        """Shards weights over the data and model axes, and activations over batch and model.

        Args:
          lm_p: Config of the model, which is changed.
          replica_axis: Axis of copies of the weights.
          data_axis: Axis that shards D of the weights.
          mdl_axis: Axis that shards heads, hidden widths and the vocabulary.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          batch_axes: Axes that shard the batch; None takes (`replica_axis`, `data_axis`).
          mesh_axis_names: Names of the mesh axes.
          seq_axis: Axis that shards time, and D of the weights too.
          training_optimized: Whether `mdl_axis` also shards D of the activations between layers.

        Returns:
          `lm_p`.
        """
        shardings = lm_sharding.data_and_model_parallel(
            data_axis=data_axis,
            mdl_axis=mdl_axis,
            batch_axes=(replica_axis, data_axis) if batch_axes is None else batch_axes,
            seq_axis=seq_axis,
            training_optimized=training_optimized,
        )
        return cls.set_custom_sharding_params(
            lm_p,
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
            **vars(shardings),
        )

    @classmethod
    def set_sharding_params_with_expert_parallelism(
        cls,
        lm_p: LayerTpl,
        *,
        replica_axis: str,
        data_axis: str,
        data_expert_axis: str,
        mdl_axis: str,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        batch_axes: Sequence[str] | None = None,
        mesh_axis_names: Sequence[str],
        seq_axis: str | None = None,
        training_optimized: bool,
    ) -> LayerTpl:
        """As `set_sharding_params_v1`, with experts over an axis of their own.

        Args:
          lm_p: Config of the model, which is changed.
          replica_axis: Axis of copies of the weights.
          data_axis: Axis that shards D of the weights.
          data_expert_axis: Axis that shards experts, and elsewhere what the data axis does.
          mdl_axis: Axis that shards heads, hidden widths and the vocabulary.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          batch_axes: Axes that shard the batch; None takes the replica, data and expert axes.
          mesh_axis_names: Names of the mesh axes.
          seq_axis: Axis that shards time, and D of the weights too.
          training_optimized: Whether `mdl_axis` also shards D of the activations between layers.

        Returns:
          `lm_p`.
        """
        everywhere = (replica_axis, data_axis, data_expert_axis)
        shardings = lm_sharding.data_expert_and_model_parallel(
            replica_axis=replica_axis,
            data_axis=data_axis,
            data_expert_axis=data_expert_axis,
            mdl_axis=mdl_axis,
            batch_axes=everywhere if batch_axes is None else batch_axes,
            seq_axis=seq_axis,
            training_optimized=training_optimized,
        )
        return cls.set_custom_sharding_params(
            lm_p,
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
            **vars(shardings),
        )

    @classmethod
    def set_custom_sharding_params(
        cls,
        lm_p: LayerTpl,
        *,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None = None,
        mesh_axis_names: Sequence[str],
        w_df: SplitDimsMapping = None,
        w_dnh: SplitDimsMapping = None,
        w_emh: SplitDimsMapping = None,
        w_vd: SplitDimsMapping = None,
        a_bld: SplitDimsMapping = None,
        a_blf: SplitDimsMapping = None,
        a_blh: SplitDimsMapping = None,
        a_blnh: SplitDimsMapping = None,
        a_blv: SplitDimsMapping = None,
        a_egch: SplitDimsMapping = None,
        a_egcm: SplitDimsMapping = None,
        a_bd: SplitDimsMapping = None,
        a_bf: SplitDimsMapping = None,
        a_bv: SplitDimsMapping = None,
    ) -> LayerTpl:
        """Sets the sharding of all parts by letters, see `lm_sharding.LmShardings`.

        Args:
          lm_p: Config of the model, which is changed.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          mesh_axis_names: Names of the mesh axes.
          w_df: Of the weights of feed-forwards, and of learned positions.
          w_dnh: Of the projections of attentions.
          w_emh: Of the weights of experts.
          w_vd: Of embedding tables and of the softmax, in this order whatever is stored.
          a_bld: Of activations of model width.
          a_blf: Of hidden activations of feed-forwards.
          a_blh: Of keys and values of one head.
          a_blnh: Of queries, keys and values.
          a_blv: Of logits.
          a_egch: Of hidden activations of experts.
          a_egcm: Of inputs and outputs of experts; its axes shard tokens in groups too.
          a_bd: As a_bld, of one decoding step; None takes it from a_bld.
          a_bf: As a_blf, of one decoding step; None takes it from a_blf.
          a_bv: As a_blv, of one decoding step; None takes it from a_blv.

        Returns:
          `lm_p`.

        Raises:
          NotImplementedError: for parts that have no known sharding.
        """
        lm_p.set(
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
        )
        shardings = lm_sharding.LmShardings(
            w_df=w_df,
            w_dnh=w_dnh,
            w_emh=w_emh,
            w_vd=w_vd,
            a_bld=a_bld,
            a_blf=a_blf,
            a_blh=a_blh,
            a_blnh=a_blnh,
            a_blv=a_blv,
            a_egch=a_egch,
            a_egcm=a_egcm,
            a_bd=a_bd,
            a_bf=a_bf,
            a_bv=a_bv,
        )
        lm_sharding.shard_lm(lm_p, shardings)
        return lm_p
