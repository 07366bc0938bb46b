"""Adafactor with momentum in few bits, laid out like the variables."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from praxis.config.config import PaxConfig
from praxis.optim.adafactor_variable import (
    AdafactorSlots,
    AdafactorStep,
    ShardedAdafactorHelper,
    ShardedAdafactorState,
)
from praxis.optim.base import BaseOptimizer
from praxis.optim.specs import NestedWeightHParams
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    count_init_fn,
    count_init_partition_spec_fn,
)
from praxis.utils.trees import path_text


def sharded_adafactor(
    learning_rate_fn: LearningRateFn,
    sharded_adafactor_helper_fn: Callable[..., ShardedAdafactorHelper] = ShardedAdafactorHelper,
    **kwargs: Any,
) -> ShardedGradientTransformation:
    """Adafactor: Shazeer and Stern, "Adafactor", 2018, arXiv:1804.04235, with additions.

    Args:
      learning_rate_fn: count -> learning rate.
      sharded_adafactor_helper_fn: makes what treats one variable: `ShardedAdafactorHelper` or a
        subclass.
      **kwargs: fields of it.

    Raises:
      ValueError: for impossible settings; in `update`, if there are no params; in
        `init_partition_spec`, for variables of stacked layers.
    """
    helper = sharded_adafactor_helper_fn(learning_rate_fn=learning_rate_fn, **kwargs)

    def init(params: Any) -> ShardedAdafactorState:
        return helper.to_state(count_init_fn(params).count, jax.tree.map(helper.init, params))

    def update(
        updates: Any, state: ShardedAdafactorState, params: Any = None
    ) -> tuple[Any, ShardedAdafactorState]:
        if params is None:
            raise ValueError(
                "ShardedAdafactor needs the variables: call update(updates, state, params)."
            )

        def step(path: Any, grad: jax.Array, param: jax.Array, *slots: jax.Array) -> AdafactorStep:
            return helper.compute_var_and_slot_update(
                state.count, grad, AdafactorSlots(*slots), param, path_text(path)
            )

        slots = (getattr(state, field) for field in AdafactorSlots._fields)
        steps = jax.tree_util.tree_map_with_path(step, updates, params, *slots)

        def part(field: str) -> Any:
            return jax.tree.map(
                lambda own: getattr(own, field),
                steps,
                is_leaf=lambda node: isinstance(node, AdafactorStep),
            )

        return part("update"), helper.to_state(state.count + 1, part("slots"))

    def init_partition_spec(var_hparams: NestedWeightHParams) -> ShardedAdafactorState:
        count = count_init_partition_spec_fn(var_hparams).count
        return helper.to_state(count, jax.tree.map(helper.init_partition_spec, var_hparams))

    return ShardedGradientTransformation(init, update, init_partition_spec)


class ShardedAdafactor(BaseOptimizer):
    """Adafactor with a choice of decays, momentum in few bits, and decay of weights by name.

    The second moment of a matrix takes the memory of a row and a column. `HParamsAdamB` is a good
    start. There is no default for `decay_method`.

    Attributes:
      decay_method: how the second moment forgets: "adam" for the running mean of Adam with decay
        `decay_adam`, "pow" for decay 1 - (t + 1)^-`decay_pow`. Required.
      decay_adam: above 0 and below 1 for "adam".
      decay_pow: above 0 for "pow".
      beta1: decay of a mean of updates, learning rate included; 0 for no mean.
      clip_threshold: limit of the RMS of the update of each variable before the learning rate;
        None for none.
      factored: False keeps whole second moments of matrices too.
      epsilon1_grad_sq_reg: added to squared gradients.
      quantized_dtype: type of the mean of updates: "int8", "int16" or a floating one.
      respect_skip_lp_regularization: must be False where there is `weight_decay`, which cannot
        respect it; `decoupled_weight_decay` does.
      exclude_from_layerwise_adaptation: patterns of the paths, from their start, of variables
        without layerwise adaptation.
      per_var_learning_summary: writes what scales the update of each variable.
      sort_factored_second_moment_dims: factors over the two largest dims instead of the last two.
      min_dim_size_to_factor: with sorted dims, the size from which the second largest is factored.
      multiply_by_parameter_scale: scales updates by the RMS of the variable.
      epsilon2_param_scale_reg: least value of this RMS.
      maybe_inf_to_nan: turns infinite gradients into NaN.
      weight_decay: w subtracts learning rate * w * v from updates; or a dict of numbers by pattern
        of the path, from its start, where the last one that matches counts.
      layerwise_adaptation: scales the update to the RMS of its variable, as LAMB does.

    Raises:
      ValueError: when built, for settings that are impossible or do not go together.
    """

    decay_method: Literal["adam", "pow", ""] = ""
    decay_adam: float = 0.0
    decay_pow: float = 0.0
    beta1: float = 0.0
    clip_threshold: float | None = 1.0
    factored: bool = True
    epsilon1_grad_sq_reg: float = 1e-30
    quantized_dtype: str = "int8"
    respect_skip_lp_regularization: bool = False
    exclude_from_layerwise_adaptation: list[str] | None = None
    per_var_learning_summary: bool = False
    sort_factored_second_moment_dims: bool = False
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = False
    epsilon2_param_scale_reg: float = 1e-3
    maybe_inf_to_nan: bool = True
    weight_decay: float | dict[str, float] | None = None
    layerwise_adaptation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._get_raw_grad_transformation(self.get_learning_rate)  # checks the settings

    @classmethod
    def HParamsAdamB(cls) -> PaxConfig["ShardedAdafactor"]:
        """A preset: momentum .9 in int8, second moment with Adam's decay .98."""
        return PaxConfig(
            cls, beta1=0.9, decay_method="adam", decay_adam=0.98, quantized_dtype="int8"
        )

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return sharded_adafactor(
            lr,
            name=self.name,
            decay_method=self.decay_method,
            decay_adam=self.decay_adam,
            decay_pow=self.decay_pow,
            beta1=self.beta1,
            clip_threshold=self.clip_threshold,
            factored=self.factored,
            epsilon1_grad_sq_reg=self.epsilon1_grad_sq_reg,
            quantized_dtype=self.quantized_dtype,
            respect_skip_lp_regularization=self.respect_skip_lp_regularization,
            exclude_from_layerwise_adaptation=self.exclude_from_layerwise_adaptation,
            per_var_learning_summary=self.per_var_learning_summary,
            sort_factored_second_moment_dims=self.sort_factored_second_moment_dims,
            min_dim_size_to_factor=self.min_dim_size_to_factor,
            multiply_by_parameter_scale=self.multiply_by_parameter_scale,
            epsilon2_param_scale_reg=self.epsilon2_param_scale_reg,
            maybe_inf_to_nan=self.maybe_inf_to_nan,
            weight_decay=self.weight_decay,
            layerwise_adaptation=self.layerwise_adaptation,
        )
