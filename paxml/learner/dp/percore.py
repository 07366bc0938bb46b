"""The private gradient of the former pmap mode."""

from typing import Any

import jax

from paxml.learner.dp.per_example import check_privacy_settings
from paxml.learner.gradient import BaseStochasticGradient, LossFn, ValueAndGrad


class PercoreClippedDpSgdGradient(BaseStochasticGradient):
    """Clipped the mean gradient of each device; kept for old configs.

    One compiled program sees the global batch, so there is no gradient of a device.

    Attributes:
      l2_norm_clip: bound of the norm of the gradient of a device, above 0.
      noise_multiplier: standard deviation of the noise, in units of the bound.
      normalize_gradients: whether the mean is divided by the bound.
      use_loss_weight_scaling: whether the bound is multiplied by the loss weight.
      adaptive_clipping_method: name of a way to choose the bound.

    Raises:
      ValueError: when built, as `DpSgdStochasticGradient`; when used, always.
    """

    l2_norm_clip: float | None = 0.0
    noise_multiplier: float = 0.0
    normalize_gradients: bool = False
    adaptive_clipping_method: str | None = None
    use_loss_weight_scaling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_privacy_settings(self)

    def grad_fn(
        self,
        loss_fn: LossFn,
        mdl_vars_grad: Any,
        mdl_vars_nograd_and_inputs: tuple[Any, Any],
        prng_key: jax.Array,
    ) -> ValueAndGrad:
        """Refuses.

        Raises:
          ValueError: always, naming the replacement.
        """
        raise ValueError(
            f"{type(self).__name__} clips the gradient of each device and works with pmap only, "
            "which is gone. Use MicrobatchDpSgdStochasticGradient with microbatch_size = examples "
            "of a device."
        )
