"""Adafactor of one variable: its slots in the state, and its update."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis.core.context import JaxContext
from praxis.core.summaries import add_global_summary
from praxis.core.weights import WeightHParams
from praxis.optim.decay_rates import adafactor_decay_rate_adam, adafactor_decay_rate_pow
from praxis.optim.factored import (
    FactoredDims,
    divide_by_factored_root,
    factored_dims,
    running_mean,
    spec_without_dim,
)
from praxis.optim.quantized import is_quantized_dtype, to_float, to_quantized
from praxis.optim.reductions import clip_rms, inf_to_nan, reduce_rms
from praxis.optim.specs import like_variable, replicated
from praxis.optim.transformation import LearningRateFn


class ShardedAdafactorState(NamedTuple):
    """The state: the count of updates, and for each slot a tree like the variables."""

    count: Any
    m: Any
    m_scale: Any
    vr: Any
    vc: Any
    v: Any


class AdafactorSlots(NamedTuple):
    """What the state holds for one variable, or its description; unused slots have one element.

    Attributes:
      m: mean of updates, in the type chosen for it.
      m_scale: where `m` is of integers, the size of their steps: m without its first dim.
      vr: mean of squared gradients over dim r.
      vc: the same over dim c.
      v: mean of squared gradients, where it is not factored.
    """

    m: Any
    m_scale: Any
    vr: Any
    vc: Any
    v: Any


class AdafactorStep(NamedTuple):
    """The update of one variable and its new slots."""

    update: Any
    slots: AdafactorSlots


_UNUSED = jax.ShapeDtypeStruct((1,), jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardedAdafactorHelper:
    """What `sharded_adafactor` does with one variable. Subclasses may change any step.

    Attributes:
      learning_rate_fn: count -> learning rate.
      others: as in `ShardedAdafactor`.

    Raises:
      ValueError: when made, for settings that are impossible or do not go together.
    """

    learning_rate_fn: LearningRateFn
    decay_method: str = ""
    decay_adam: float = 0.0
    decay_pow: float = 0.0
    beta1: float = 0.0
    clip_threshold: float | None = 1.0
    factored: bool = True
    epsilon1_grad_sq_reg: float = 1e-30
    quantized_dtype: str = "int8"
    respect_skip_lp_regularization: bool = False
    exclude_from_layerwise_adaptation: Sequence[str] | None = None
    per_var_learning_summary: bool = False
    sort_factored_second_moment_dims: bool = False
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = False
    epsilon2_param_scale_reg: float = 1e-3
    maybe_inf_to_nan: bool = True
    weight_decay: Any = None
    layerwise_adaptation: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        decays = {"adam": self.decay_adam, "pow": self.decay_pow}
        if self.decay_method not in decays:
            raise ValueError(
                f"ShardedAdafactor: decay_method is {self.decay_method!r}, expected 'adam' or "
                f"'pow'. Set it together with decay_adam or decay_pow, or start from "
                f"ShardedAdafactor.HParamsAdamB()."
            )
        if not decays[self.decay_method] > 0.0:
            field = f"decay_{self.decay_method}"
            raise ValueError(
                f"ShardedAdafactor: {field} is {decays[self.decay_method]}, expected above 0 for "
                f"decay_method = {self.decay_method!r}."
            )
        if self.weight_decay is not None and self.respect_skip_lp_regularization:
            raise ValueError(
                "ShardedAdafactor: weight_decay does not know which variables skip "
                "regularization, as respect_skip_lp_regularization = True demands. Use "
                "decoupled_weight_decay, which does."
            )
        if not self._is_quantized and not jnp.issubdtype(self._momentum_dtype, jnp.floating):
            raise ValueError(
                f"ShardedAdafactor: quantized_dtype is {self.quantized_dtype!r}, expected 'int8', "
                f"'int16' or a floating type, e.g. 'bfloat16'."
            )

    @property
    def _momentum_dtype(self) -> Any:
        return jnp.dtype(self.quantized_dtype)

    @property
    def _is_quantized(self) -> bool:
        return is_quantized_dtype(self._momentum_dtype)

    def _dims(self, shape: Sequence[int]) -> FactoredDims | None:
        return factored_dims(
            shape,
            factored=self.factored,
            sort_dims=self.sort_factored_second_moment_dims,
            min_dim_size_to_factor=self.min_dim_size_to_factor,
        )

    # ---- the state ----------------------------------------------------------------------------

    def init(self, param: jax.Array) -> AdafactorSlots:
        """The slots of a variable before the first update: zeros."""
        spec = self.init_partition_spec(WeightHParams(list(jnp.shape(param))))
        return jax.tree.map(lambda slot: jnp.zeros(tuple(slot.shape), slot.dtype), spec)

    def init_partition_spec(self, var_hparams: WeightHParams) -> AdafactorSlots:
        """Descriptions of the slots of a variable.

        Raises:
          ValueError: for a variable of stacked layers.
        """
        shape = tuple(var_hparams.shape)
        if var_hparams.repeat_prefix:
            raise ValueError(
                f"ShardedAdafactor: a variable of shape {list(shape)} is stacked with "
                f"repeat_prefix = {list(var_hparams.repeat_prefix)}, and would be factored across "
                f"layers. Wrap the transformation with optimizer_prefix_vectorization."
                f"get_transformations_with_vectorized_repeat_prefix, or set "
                f"learner.vectorize_on_repeat_prefix."
            )
        m = m_scale = vr = vc = v = replicated(_UNUSED)
        if self.beta1:
            quantized = self._is_quantized and len(shape) > 0
            scalar = self._is_quantized and not quantized
            m = like_variable(var_hparams, jnp.float32 if scalar else self._momentum_dtype)
            m_scale = spec_without_dim(var_hparams, 0) if quantized else m_scale
        if (dims := self._dims(shape)) is not None:
            vr, vc = (spec_without_dim(var_hparams, dim) for dim in dims)
        else:
            v = like_variable(var_hparams, jnp.float32)
        return AdafactorSlots(m, m_scale, vr, vc, v)

    def to_state(self, count: Any, slots: Any) -> ShardedAdafactorState:
        """The state from the count of updates and a tree of slots."""
        trees = {
            field: jax.tree.map(
                lambda own, field=field: getattr(own, field),
                slots,
                is_leaf=lambda node: isinstance(node, AdafactorSlots),
            )
            for field in AdafactorSlots._fields
        }
        return ShardedAdafactorState(count=count, **trees)

    # ---- the update ---------------------------------------------------------------------------

    def compute_var_and_slot_update(
        self,
        count: jax.Array,
        grad: jax.Array,
        slots: AdafactorSlots,
        param: jax.Array,
        var_name: str = "",
    ) -> AdafactorStep:
        """The update of a variable, in float32.

        Args:
          count: number of updates so far.
          grad: the gradient.
          slots: the variable's slots.
          param: the variable.
          var_name: path of the variable, its parts joined by slashes.
        """
        grad = grad.astype(jnp.float32)
        if self.maybe_inf_to_nan:
            grad = inf_to_nan(grad)
        param = param.astype(jnp.float32)
        learning_rate = jnp.asarray(self.learning_rate_fn(count), jnp.float32)
        scale = learning_rate * self._parameter_scale(param)
        direction, slots = self._precondition(grad, slots, self.decay_rate(count))
        clipped = clip_rms(direction, self.clip_threshold or 0.0)
        if self.per_var_learning_summary:
            self._summarize(count, grad, param, direction, var_name)
        step, slots = self._with_momentum(scale * clipped, slots)
        if (decay := self._weight_decay_of(var_name)) is not None:
            step += decay * learning_rate * param
        if self._is_adapted(var_name):
            step *= self._trust_ratio(step, scale, param)
        return AdafactorStep(-step, slots)

    def decay_rate(self, count: jax.Array) -> Float[Array, ""]:
        """The decay of the second moment: 0 at the first update."""
        if self.decay_method == "adam":
            return adafactor_decay_rate_adam(self.decay_adam, count)
        return adafactor_decay_rate_pow(self.decay_pow, count)

    def _parameter_scale(self, param: jax.Array) -> Float[Array, ""]:
        if not self.multiply_by_parameter_scale:
            return jnp.float32(1.0)
        return jnp.maximum(reduce_rms(param), self.epsilon2_param_scale_reg)

    def _precondition(
        self, grad: jax.Array, slots: AdafactorSlots, decay: jax.Array
    ) -> tuple[jax.Array, AdafactorSlots]:
        """The gradient over the root of its second moment."""
        square = jnp.square(grad) + self.epsilon1_grad_sq_reg
        dims = self._dims(grad.shape)
        if dims is None:
            v = running_mean(slots.v, square, decay)
            return grad * v**-0.5, slots._replace(v=v)
        vr = running_mean(slots.vr, jnp.mean(square, axis=dims[0]), decay)
        vc = running_mean(slots.vc, jnp.mean(square, axis=dims[1]), decay)
        return divide_by_factored_root(grad, vr, vc, dims), slots._replace(vr=vr, vc=vc)

    def _with_momentum(
        self, step: jax.Array, slots: AdafactorSlots
    ) -> tuple[jax.Array, AdafactorSlots]:
        """The running mean of steps. They hold the learning rate, so that the mean does too."""
        if not self.beta1:
            return step, slots
        quantized = self._is_quantized and step.ndim > 0
        old = to_float(slots.m, slots.m_scale) if quantized else slots.m.astype(jnp.float32)
        step = self.beta1 * old + (1.0 - self.beta1) * step
        if self.maybe_inf_to_nan:
            step = inf_to_nan(step)
        if quantized:
            m, m_scale = to_quantized(step, self._momentum_dtype)
            return step, slots._replace(m=m, m_scale=m_scale)
        return step, slots._replace(m=step.astype(slots.m.dtype))

    def _weight_decay_of(self, var_name: str) -> float | None:
        """The last of the patterns that match decides."""
        if not isinstance(self.weight_decay, dict):
            return self.weight_decay
        matching = [w for pattern, w in self.weight_decay.items() if re.match(pattern, var_name)]
        return matching[-1] if matching else None

    def _is_adapted(self, var_name: str) -> bool:
        excluded = self.exclude_from_layerwise_adaptation or ()
        return self.layerwise_adaptation and not any(re.match(p, var_name) for p in excluded)

    def _trust_ratio(self, step: jax.Array, scale: jax.Array, param: jax.Array) -> Float[Array, ""]:
        """RMS of the variable over that of the unscaled step: You et al., arXiv:1904.00962."""
        # Without a learning rate there is no step to scale.
        unscaled = jnp.where(scale > 0.0, reduce_rms(step) / scale, 0.0)
        size = reduce_rms(param)
        return jnp.where(size > 0.0, size / (unscaled + self.epsilon1_grad_sq_reg), 1.0)

    def _summarize(
        self,
        count: jax.Array,
        grad: jax.Array,
        param: jax.Array,
        direction: jax.Array,
        var_name: str,
    ) -> None:
        """Writes what scales the update of a variable; sizes of updates are RMS values."""
        if not JaxContext.has_context():
            return
        parameter_scale = self._parameter_scale(param)
        update_scale = self.learning_rate_fn(count) * parameter_scale
        size = reduce_rms(direction)
        denominator = jnp.maximum(1.0, size / self.clip_threshold) if self.clip_threshold else 1.0
        values = {
            "parameter_scale": parameter_scale,
            "decay_rate": self.decay_rate(count),
            "update_scale": update_scale,
            "learning": update_scale * size,
            "clipping_denom": jnp.asarray(denominator),
            "learning_after_clipping": update_scale * size / denominator,
        }
        prefix = f"{self.name}/" if self.name else ""
        zero_grad = jnp.mean(grad == 0.0, dtype=jnp.float32)
        add_global_summary(f"{prefix}fraction_zero_grad/{var_name}", zero_grad)
        for key, value in values.items():
            add_global_summary(f"{prefix}sharded_adafactor_{key}/{var_name}", value)
