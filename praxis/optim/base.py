"""The frame around every optimizer: schedule, regularizers, moving average."""

from typing import Any, Protocol, runtime_checkable

import jax
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from praxis.config.config import PaxConfig
from praxis.config.instantiate import instantiate
from praxis.config.parameterizable import FiddleBaseParameterizable
from praxis.core.nested_map import NestedMap
from praxis.core.weights import var_skip_lp_regularization
from praxis.optim.ema import apply_ema_weights
from praxis.optim.ewc import apply_ewc_regularization
from praxis.optim.regularizers import apply_decoupled_weight_decay, apply_lp_regularizer
from praxis.optim.schedules.base import BaseSchedule
from praxis.optim.specs import NestedWeightHParams
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    LearningRateFn,
    ShardedGradientTransformation,
    sharded_chain,
)


@runtime_checkable
class Optimizer(Protocol):
    """What the trainer asks of an optimizer."""

    @property
    def clip_gradient_norm_to_value(self) -> float:
        """Limit of the norm of all gradients together; 0 for none. The learner clips."""
        ...

    @property
    def clip_gradient_single_norm_to_value(self) -> float:
        """Limit of the norm of each gradient; 0 for none. The learner clips."""
        ...

    @property
    def ema_decay(self) -> float:
        """Decay of the moving average of the weights; 0 for none."""
        ...

    def get_learning_rate(self, step_count: ArrayLike) -> Float[Array, ""]:
        """The learning rate of the update after `step_count` updates."""
        ...

    def get_grad_transformation(
        self, var_weight_hparams: NestedWeightHParams = None, include_ema: bool = True
    ) -> GeneralGradientTransformation:
        """The transformation of gradients to updates, which carry the minus sign."""
        ...


class _Regularized(FiddleBaseParameterizable):
    """What `BaseOptimizer` and `OptaxOptimizer` share.

    Attributes:
      l2_regularizer_weight: w adds (w / 2) |v|^2 to the loss, by its gradient.
      l1_regularizer_weight: w adds w |v|_1 to the loss, by its gradient.
      skip_lp_1d_vectors: leaves variables of rank 0 and 1 out of L1 and L2.
      decoupled_weight_decay: w subtracts learning rate * w * v from every update.
      clip_gradient_norm_to_value: limit of the norm of all gradients together; 0 for none. Stored
        here, applied by the learner before the optimizer.
      clip_gradient_single_norm_to_value: the same for the norm of each gradient.
      learning_rate: factor of the schedule.
      lr_schedule: Config of the schedule. Required.
      ema_decay: limit of the decay of the moving average of the weights, below 1; 0 for none.
      ewc_regularizer_weight: strength of the pull to the first weights; 0 for none.
      ewc_weight_per_var: factors of it, a tree like the variables.

    Raises:
      ValueError: when built, if there is no schedule, or if more than one of L1, L2 and decoupled
        decay is on; in `get_grad_transformation`, if `ema_decay` is 1 or more.
    """

    l2_regularizer_weight: float | None = None
    l1_regularizer_weight: float | None = None
    skip_lp_1d_vectors: bool = False
    decoupled_weight_decay: float | None = None
    clip_gradient_norm_to_value: float = 0.0
    clip_gradient_single_norm_to_value: float = 0.0
    learning_rate: float = 0.0
    lr_schedule: PaxConfig[BaseSchedule] | None = None
    ema_decay: float = 0.0
    ewc_regularizer_weight: float = 0.0
    ewc_weight_per_var: NestedMap | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if self.lr_schedule is None:
            raise ValueError(
                f"{owner}: lr_schedule is None. Set it in the config, e.g. "
                f"config.lr_schedule = pax_fiddle.Config(schedules.Constant)."
            )
        if self.l1_regularizer_weight and self.l2_regularizer_weight:
            raise ValueError(
                f"{owner}: l1_regularizer_weight = {self.l1_regularizer_weight} and "
                f"l2_regularizer_weight = {self.l2_regularizer_weight}; set only one of them."
            )
        if self.decoupled_weight_decay and (
            self.l1_regularizer_weight or self.l2_regularizer_weight
        ):
            raise ValueError(
                f"{owner}: decoupled_weight_decay = {self.decoupled_weight_decay} together with an "
                f"L1 or L2 regularizer; set only one of them."
            )
        self._schedule = instantiate(self.lr_schedule)

    def get_learning_rate(self, step_count: ArrayLike) -> Float[Array, ""]:
        """`learning_rate` times the schedule at `step_count`."""
        return self._schedule.value_at(step_count) * self.learning_rate

    def _members(
        self,
        raw: GeneralGradientTransformation,
        var_weight_hparams: NestedWeightHParams,
        *,
        include_ema: bool,
        use_optax: bool,
    ) -> list[Any]:
        """The transformations in order; their number and order are the format of checkpoints."""
        mask = None
        if var_weight_hparams is not None:
            mask = jax.tree.map(lambda var: not var_skip_lp_regularization(var), var_weight_hparams)
        kind = {"use_optax_gradient_transformations": use_optax}
        skip_1d = self.skip_lp_1d_vectors
        members: list[Any] = [
            apply_lp_regularizer(mask, self.l1_regularizer_weight, 1.0, skip_1d, **kind),
            apply_lp_regularizer(mask, self.l2_regularizer_weight, 2.0, skip_1d, **kind),
            raw,
            apply_decoupled_weight_decay(
                self.get_learning_rate, mask, self.decoupled_weight_decay, **kind
            ),
        ]
        if self.ewc_regularizer_weight > 0.0:
            ewc = apply_ewc_regularization(
                self.get_learning_rate, self.ewc_regularizer_weight, self.ewc_weight_per_var, **kind
            )
            members.append(ewc)
        if self.ema_decay > 0.0 and include_ema:
            if self.ema_decay >= 1.0:
                raise ValueError(
                    f"{type(self).__name__}: ema_decay is {self.ema_decay}, expected below 1."
                )
            members.append(apply_ema_weights(self.ema_decay, **kind))
        return members


class BaseOptimizer(_Regularized):
    """An optimizer with a learning rate, a schedule, regularizers and a moving average.

    Subclasses implement `_get_raw_grad_transformation`. The state is the tuple (L1, L2, subclass,
    decoupled decay[, consolidation][, moving average]); features that are off only count.
    """

    def get_grad_transformation(
        self, var_weight_hparams: NestedWeightHParams = None, include_ema: bool = True
    ) -> ShardedGradientTransformation:
        """The transformation of gradients to updates, which carry the minus sign.

        Args:
          var_weight_hparams: descriptions of the variables; they say which ones are exempt from
            weight decay. None exempts none.
          include_ema: False leaves the moving average out.
        """
        raw = self._get_raw_grad_transformation(self.get_learning_rate)
        return sharded_chain(
            *self._members(raw, var_weight_hparams, include_ema=include_ema, use_optax=False)
        )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> GeneralGradientTransformation:
        """The subclass's own part: gradients to updates, learning rate and sign included."""
        raise NotImplementedError(
            f"{type(self).__name__} does not implement _get_raw_grad_transformation."
        )


class OptaxOptimizer(_Regularized):
    """Any optax transformation in the frame of `BaseOptimizer`.

    `grad_tx` brings its own learning rate: `learning_rate * lr_schedule` drives only decoupled
    weight decay, consolidation and what is reported.

    Attributes:
      grad_tx: the transformation, learning rate and sign included. Required.

    Raises:
      ValueError: in `get_grad_transformation`, if there is no `grad_tx`, and as for the frame.
    """

    grad_tx: optax.GradientTransformation | None = None

    def get_grad_transformation(
        self, var_weight_hparams: NestedWeightHParams = None, include_ema: bool = True
    ) -> optax.GradientTransformationExtraArgs:
        """As `BaseOptimizer.get_grad_transformation`, as a plain optax transformation."""
        if self.grad_tx is None:
            raise ValueError(
                "OptaxOptimizer: grad_tx is None. Set it to an optax transformation, e.g. "
                "config.grad_tx = optax.adamw(learning_rate)."
            )
        return optax.chain(
            *self._members(
                self.grad_tx, var_weight_hparams, include_ema=include_ema, use_optax=True
            )
        )
