"""Group normalization."""

from jax import lax
from jaxtyping import Array, Float, Shaped

from praxis.base_layer import WeightHParamsCollection, WeightInit
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.normalization.base import BaseNormalization, channel_paddings
from praxis.layers.normalization.moments import compute_moments


class GroupNorm(BaseNormalization):
    """Normalizes groups of channels within each example.

    Wu and He, "Group Normalization", 2018, arXiv:1803.08494. Shapes: D is `dim`; inputs are
    [B, T, D], [B, T, F, D] or [B, T, H, W, D]. A group has max(D // num_groups, min_group_size)
    channels.

    Attributes:
      dim: D, at least 1. Required.
      num_groups: Wanted number of groups; D must be a multiple if it is not smaller.
      min_group_size: Smallest number of channels in a group.
      cumulative: Moments at time t cover times up to t, for streaming; otherwise all times.
      input_rank: Rank of the inputs: 3, 4 or 5. Required.
      epsilon: Added to the variance.
      set_padded_output_to_zero: Zero the outputs at padded positions.
      use_scale: Whether to multiply by `1 + gamma`.
      use_bias: Whether to add `beta`.

    Variables:
      beta: [1, ..., 1, D], with `use_bias`; exempt from weight decay
      gamma: [1, ..., 1, D], with `use_scale`; exempt from weight decay

    Raises:
      ValueError: during setup, if a field is missing or D is not a whole number of groups; in
        `__call__`, if the inputs do not have `input_rank` axes, the last of size D, or the paddings
        are not [B, T].
    """

    num_groups: int = 32
    min_group_size: int = 1
    cumulative: bool = False
    input_rank: int | None = None
    epsilon: float = 0.001
    set_padded_output_to_zero: bool = True
    use_scale: bool = True
    use_bias: bool = True

    @property
    def group_size(self) -> int:
        """Number of channels in a group."""
        return max(self.dim // self.num_groups, self.min_group_size)

    def setup(self) -> None:
        check_sizes(self, "dim", "num_groups", "min_group_size")
        if self.input_rank not in (3, 4, 5):
            raise ValueError(
                f"{self.path_text}: input_rank is {self.input_rank}, expected 3, 4 or 5. Set it to "
                "the rank of the inputs, e.g. 3 for [B, T, D]."
            )
        if self.dim >= self.num_groups and self.dim % self.num_groups:
            raise ValueError(
                f"{self.path_text}: dim = {self.dim} is not a multiple of num_groups = "
                f"{self.num_groups}."
            )
        if self.dim % self.group_size:
            raise ValueError(
                f"{self.path_text}: dim = {self.dim} is not a multiple of the group size "
                f"{self.group_size}, which min_group_size = {self.min_group_size} asks for."
            )
        shape = [1] * (self.input_rank - 1) + [self.dim]
        for name, used in (("beta", self.use_bias), ("gamma", self.use_scale)):
            if used:
                self._create_vector(
                    name,
                    WeightInit.Constant(0.0),
                    shape=shape,
                    collections=[WeightHParamsCollection.SKIP_LP_REGULARIZATION],
                )

    def __call__(
        self, inputs: Float[Array, "B T *F D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "B T *F D"]:
        """Normalizes `inputs`.

        Args:
          inputs: [B, T, ..., D].
          paddings: [B, T], 1 marks padding, which stays out of the statistics.

        Returns:
          [B, T, ..., D], in `fprop_dtype`.
        """
        check_last_axis(self, inputs, "dim")
        if inputs.ndim != self.input_rank:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected rank "
                f"input_rank = {self.input_rank}."
            )
        inputs = self._cast_to_fprop_dtype(inputs)
        if paddings is not None:
            paddings = channel_paddings(self, inputs, self._cast_to_fprop_dtype(paddings))
        outputs = self._normalize(inputs, paddings).astype(inputs.dtype)
        if self.use_scale:
            outputs = outputs * (1 + self.theta.gamma)
        if self.use_bias:
            outputs = outputs + self.theta.beta
        if paddings is not None and self.set_padded_output_to_zero:
            outputs = outputs * (1 - paddings)
        return outputs

    def _normalize(
        self, inputs: Float[Array, "B T *F D"], paddings: Shaped[Array, "..."] | None
    ) -> Float[Array, "B T *F D"]:
        """Normalizes without scale and bias."""
        groups = (self.dim // self.group_size, self.group_size)
        grouped = inputs.reshape(*inputs.shape[:-1], *groups)
        inner = range(2 if self.cumulative else 1, inputs.ndim - 1)
        mean, variance = compute_moments(
            grouped,
            None if paddings is None else paddings[..., None],
            [*inner, grouped.ndim - 1],
            cumulative_axis=1 if self.cumulative else None,
            keepdims=True,
            # The moments of an example are no business of the other replicas.
            sync_replicas=False,
        )
        return ((grouped - mean) * lax.rsqrt(variance + self.epsilon)).reshape(inputs.shape)
