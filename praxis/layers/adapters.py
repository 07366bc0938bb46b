"""Adapters: small layers that are added to a trained network, with weights for each task."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, normalizations
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.transformer.feed_forward import TransformerFeedForward

template_field = base_layer.template_field
weight_init = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]

NORMALIZATIONS = (normalizations.LayerNorm, normalizations.BatchNorm, normalizations.GroupNorm)
MODES = ("sequential", "parallel")


class MultitaskResidualAdapter(base_layer.BaseLayer):
    """Computes `x + activation(norm(x) down_w[t] + down_b[t]) up_w[t] + up_b[t]`, for task t.

    Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019, arXiv:1902.00751. There
    `up_w` starts at 0 as here, but `up_b` does not: a new adapter adds a constant. Shapes: D is
    `input_dims`, F is `bottleneck_dims`, K is `num_tasks`.

    Attributes:
      input_dims: D, at least 1. Required.
      bottleneck_dims: F, at least 1. Required.
      num_tasks: K, at least 1.
      norm_tpl: Config of the normalization, a LayerNorm, BatchNorm or GroupNorm; D is filled in.
        None: there is none.
      activation_tpl: Config of the nonlinearity.

    Variables:
      norm
      down_w: [K, D, F], down_b: [K, F]
      up_w: [K, F, D], up_b: [K, D]

    Raises:
      ValueError: during setup, if a size is missing; in `__call__`, if the last axis of the inputs
        is not D, or `tasks` does not fit.
      NotImplementedError: during setup, for another normalization.
    """

    input_dims: int = 0
    bottleneck_dims: int = 0
    num_tasks: int = 1
    norm_tpl: LayerTpl | None = template_field(normalizations.LayerNorm)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(activations.ReLU)

    def setup(self) -> None:
        check_sizes(self, "input_dims", "bottleneck_dims", "num_tasks")
        if self.norm_tpl is not None:
            if not issubclass(self.norm_tpl.cls, NORMALIZATIONS):
                raise NotImplementedError(
                    f"{self.path_text}: norm_tpl is a config of {self.norm_tpl.cls.__name__}, "
                    f"expected one of {', '.join(cls.__name__ for cls in NORMALIZATIONS)}, or None."
                )
            self.create_child("norm", self.norm_tpl.clone().set(dim=self.input_dims))
        self.create_child("activation", self.activation_tpl)
        tasks, dims, hidden = self.num_tasks, self.input_dims, self.bottleneck_dims
        zeros = weight_init.Constant(0.0)
        self.create_variable("down_w", WeightHParams([tasks, dims, hidden]))
        self.create_variable("down_b", WeightHParams([tasks, hidden]))
        self.create_variable("up_w", WeightHParams([tasks, hidden, dims], init=zeros))
        self.create_variable("up_b", WeightHParams([tasks, dims]))

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        paddings: Shaped[Array, "..."] | None = None,
        tasks: Int[Array, "..."] | None = None,
        add_residual: bool = True,
    ) -> Float[Array, "*B D"]:
        """Applies the adapter of each task.

        Args:
          inputs: [B, ..., D].
          paddings: [B, ...], 1 marks padding; for the normalization.
          tasks: From 0 to K - 1, of the shape of the inputs without the last axis, or the last two.
            May be None for K = 1.
          add_residual: Whether to add the inputs.

        Returns:
          [B, ..., D].
        """
        check_last_axis(self, inputs, "input_dims")
        x = inputs
        if self.norm_tpl is not None:
            x = self.norm(x, paddings)
        tasks = self._check_tasks(inputs, tasks)
        theta = self.theta
        # Per example, one product for all its positions; per position, one for each.
        equation = "...d,...df->...f" if tasks.ndim == inputs.ndim - 1 else "...td,...df->...tf"

        def own(weights: Any) -> Any:
            return jnp.take(weights, tasks, axis=0)

        def own_bias(bias: Any) -> Any:
            return own(bias) if tasks.ndim == inputs.ndim - 1 else own(bias)[..., jnp.newaxis, :]

        hidden = jnp.einsum(equation, x, own(theta.down_w)) + own_bias(theta.down_b)
        hidden = self.activation(hidden)
        outputs = jnp.einsum(equation, hidden, own(theta.up_w)) + own_bias(theta.up_b)
        return inputs + outputs if add_residual else outputs

    def _check_tasks(
        self, inputs: Float[Array, "..."], tasks: Int[Array, "..."] | None
    ) -> Int[Array, "..."]:
        if tasks is None:
            if self.num_tasks != 1:
                raise ValueError(
                    f"{self.path_text}: tasks is None, but num_tasks = {self.num_tasks}. Pass the "
                    "task of each example."
                )
            return jnp.zeros(inputs.shape[:-1], jnp.int32)
        missing = inputs.ndim - tasks.ndim
        if missing not in (1, 2) or tasks.shape != inputs.shape[:-missing]:
            raise ValueError(
                f"{self.path_text}: tasks has shape {tasks.shape}, expected that of the inputs, "
                f"{inputs.shape}, without the last axis, or without the last two."
            )
        return tasks


class AdaptedTransformerFeedForward(TransformerFeedForward):
    """A feed-forward with an adapter A: with h what it adds to x, adds h + A(h) or h + A(x).

    He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", 2022,
    arXiv:2110.04366, compares the two. Shapes: D is `input_dims`.

    Attributes:
      adapter_tpl: Config of the adapter, as `MultitaskResidualAdapter`; D is filled in. Required.
      mode: "sequential", A(h), or "parallel", A(x).

    Variables:
      adapters: as in the adapter
      ..: as in `TransformerFeedForward`

    Raises:
      ValueError: during setup, if a field is missing or is none of the choices.
      NotImplementedError: during setup, with `residual_droppath_prob`.
    """

    adapter_tpl: LayerTpl | None = template_field(None)
    mode: str = "sequential"

    def setup(self) -> None:
        super().setup()
        if self.mode not in MODES:
            raise ValueError(f"{self.path_text}: mode is {self.mode!r}, expected one of {MODES}.")
        if self.adapter_tpl is None:
            raise ValueError(
                f"{self.path_text}: adapter_tpl is None, set it to a config, e.g. of "
                "MultitaskResidualAdapter."
            )
        if self.residual_droppath_prob:
            raise NotImplementedError(
                f"{self.path_text}: residual_droppath_prob = {self.residual_droppath_prob}: an "
                "adapted feed-forward cannot drop paths. Set it to 0."
            )
        if not self.add_skip_connection:
            raise ValueError(
                f"{self.path_text}: add_skip_connection = False: the adapter is a part of what is "
                "added to the inputs. Set it to True."
            )
        self.create_child("adapters", self.adapter_tpl.clone().set(input_dims=self.input_dims))

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        paddings: Shaped[Array, "*B"] | None = None,
        segment_ids: Int[Array, "*B"] | None = None,
        tasks: Int[Array, "..."] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layer and the adapter.

        Args:
          inputs: [..., D].
          paddings: [...], 1 marks padding; None: there is none.
          segment_ids: Not read.
          tasks: The task of each position, or of each example, see `MultitaskResidualAdapter`.

        Returns:
          [..., D].
        """
        del segment_ids
        if self.norm_policy == "post_skip":
            # Here the sum is normalised, so that what is added to x is a difference.
            h = (super().__call__(inputs, paddings) - inputs) / self.residual_weight
        else:
            # The same, but for the digits that a sum and a difference lose.
            inputs, h = self._branch(inputs, paddings)
        x = h if self.mode == "sequential" else inputs
        h += self.adapters(x, paddings, tasks=tasks, add_residual=False)
        return inputs + self.residual_weight * h
