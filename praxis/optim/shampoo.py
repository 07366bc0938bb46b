"""Configs of Distributed Shampoo, which cannot be trained with."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, NoReturn

from praxis.config.config import PaxConfig
from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import LearningRateFn


class GraftingType(enum.IntEnum):
    """Whose size of updates is taken, while Shampoo gives the direction."""

    SGD = 1
    ADAGRAD = 2
    RMSPROP = 3
    RMSPROP_NORMALIZED = 4
    SQRT_N = 5
    ADAGRAD_NORMALIZED = 6


class DistributedShampoo(BaseOptimizer):
    """The settings of Distributed Shampoo, so that old configs can be built, read and printed.

    Anil et al., "Scalable Second Order Optimization for Deep Learning", 2020, arXiv:2002.09018. The
    package that did the work is no longer maintained and lacks settings that are here. `Muon` is
    the method of this kind to take: Shampoo without accumulation.

    Attributes:
      block_size: size of the blocks into which preconditioners are cut.
      beta1: decay of the mean of gradients.
      beta2: decay of the statistics.
      diagonal_epsilon: added to diagonal statistics.
      matrix_epsilon: added to matrix statistics.
      weight_decay: times the variable.
      start_preconditioning_step: first step with preconditioners.
      preconditioning_compute_steps: steps between computations of preconditioners.
      statistics_compute_steps: steps between updates of statistics.
      graft_type: whose size of updates is taken.
      batch_axis_name: name of the axis of devices.
      mesh_axis_names: names of the axes of the mesh.
      num_devices_for_pjit: number of devices over which preconditioners are computed.
      nesterov: looks one step ahead.
      exponent_override: exponent of the inverse root; 0 for twice the rank.
      moving_average_for_momentum: weighs the new gradient by 1 - beta1.
      skip_preconditioning_dim_size_gt: size of a dim above which there is no preconditioner.
      skip_preconditioning_rank_lt: rank below which there is none.
      merge_small_dims_block_size: size up to which neighbouring dims are merged.
      clip_by_scaled_gradient_norm: limit of the scaled norm of a gradient; None for none.
      best_effort_shape_interpretation: merges dims of size 1.
      best_effort_memory_usage_reduction: stores statistics in few bits.
      inverse_failure_threshold: error of an inverse root above which the old one is kept.
      lobpcg_topk_precondition: number of leading eigenvalues found beforehand.
      lobpcg_max_iter: iterations of that.
      tensor_split_dims_mapping: sharding of the statistics.
      tensor_split_dims_mapping_for_inverse_pth_root: sharding while roots are computed.
      relative_matrix_epsilon: scales `matrix_epsilon` by the largest eigenvalue.
      summarize_training_metrics: writes errors of the roots.
      cholesky: takes roots over Cholesky factors.
      qr_based_root: takes roots over QR iterations.
      eigh: takes roots over eigenvalues.
      compression_rank: rank of compressed preconditioners; 0 for whole ones.
      frequent_directions: keeps statistics as sketches.
      average_grad: averages gradients before statistics.
      reuse_preconditioner: takes the last preconditioner as the start of the next.
      decoupled_learning_rate_from_momentum: leaves the learning rate out of the momentum.
      decoupled_weight_decay_from_momentum: leaves weight decay out of the momentum.

    Raises:
      NotImplementedError: in `get_grad_transformation`.
    """

    block_size: int = 1024
    beta1: float = 0.9
    beta2: float = 0.999
    diagonal_epsilon: float = 1e-16
    matrix_epsilon: float = 1e-6
    weight_decay: float = 0.0
    start_preconditioning_step: int = 101
    preconditioning_compute_steps: int = 100
    statistics_compute_steps: int = 1
    graft_type: Any = GraftingType.ADAGRAD
    batch_axis_name: str = "batch"
    mesh_axis_names: Sequence[str] | None = None
    num_devices_for_pjit: int | None = None
    nesterov: bool = True
    exponent_override: int = 0
    moving_average_for_momentum: bool = False
    skip_preconditioning_dim_size_gt: int = 4096
    skip_preconditioning_rank_lt: int = 1
    merge_small_dims_block_size: int = 4096
    clip_by_scaled_gradient_norm: float | None = None
    best_effort_shape_interpretation: bool = True
    best_effort_memory_usage_reduction: bool = False
    inverse_failure_threshold: float = 0.1
    lobpcg_topk_precondition: int = 0
    lobpcg_max_iter: int = 0
    tensor_split_dims_mapping: Sequence[int] = dataclasses.field(
        default_factory=lambda: [-1, 1, -1]
    )
    tensor_split_dims_mapping_for_inverse_pth_root: Sequence[int] = dataclasses.field(
        default_factory=lambda: [-1, 1, -1]
    )
    relative_matrix_epsilon: bool = True
    summarize_training_metrics: bool = True
    cholesky: bool = False
    qr_based_root: bool = False
    eigh: bool = False
    compression_rank: int = 0
    frequent_directions: bool = False
    average_grad: bool = False
    reuse_preconditioner: bool = False
    decoupled_learning_rate_from_momentum: bool = False
    decoupled_weight_decay_from_momentum: bool = True

    @classmethod
    def HParamsImageClassification(cls) -> PaxConfig["DistributedShampoo"]:
        """The defaults: nothing trains with them, so nothing is tuned."""
        return PaxConfig(cls)

    @classmethod
    def HParamsLanguageModeling(cls) -> PaxConfig["DistributedShampoo"]:
        """The defaults: nothing trains with them, so nothing is tuned."""
        return PaxConfig(cls)

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__}: a config of it can be built and printed, but not trained "
            f"with: the package behind it is no longer maintained. Use optimizers.Muon, which is "
            f"Shampoo without accumulation, or optimizers.ShardedOptax with a transformation of "
            f"optax or of your own."
        )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> NoReturn:
        del lr
        self._refuse()


class ShardedDistributedShampoo(DistributedShampoo):
    """The settings of Distributed Shampoo over a mesh; see `DistributedShampoo`."""

    @classmethod
    def HParamsLargeLanguageModeling(cls) -> PaxConfig["ShardedDistributedShampoo"]:
        """The defaults: nothing trains with them, so nothing is tuned."""
        return PaxConfig(cls)

    def init_partition_spec_fn(
        self, init_pspec: Any, init_shapes_dtypes: Any, axes_names: Any, params: Any
    ) -> NoReturn:
        """Would describe the state; there is none.

        Raises:
          NotImplementedError: always.
        """
        del init_pspec, init_shapes_dtypes, axes_names, params
        self._refuse()
