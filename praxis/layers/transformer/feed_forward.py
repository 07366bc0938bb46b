"""The feed-forward half of a transformer layer."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations, linears, normalizations, stochastics
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.transformer.norms import NORM_POLICIES, check_norm_policy

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


def rms(x: Float[Array, "..."]) -> Float[Array, ""]:
    """Root of the mean square, in float32."""
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))


def relative_cosine(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, ""]:
    """Mean cosine of the angle between corresponding vectors of the last axis, in float32."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    norms = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return jnp.mean(jnp.sum(x * y, axis=-1) / jnp.maximum(norms, 1e-8))


class TransformerFeedForward(base_layer.BaseLayer):
    """Computes `x + dropout(activation(norm(x) w1 + b1) w2 + b2)`, or a gated form of it.

    The gated form, `activation(norm(x) w_gate) * (norm(x) w1)` in the middle, is of Shazeer, "GLU
    Variants Improve Transformer", 2020, arXiv:2002.05202. Shapes: D is `input_dims`, F is
    `hidden_dims`.

    Attributes:
      input_dims: D, at least 1. Required.
      hidden_dims: F, at least 1. Required.
      output_dims: Width of the outputs; 0 takes D.
      has_bias: Whether the projections have biases.
      fflayer_tpl: Config of each projection. Sizes, bias, nonlinearity and sharding are filled in.
      activation_tpl: Config of the nonlinearity.
      use_gated_activation: Multiply by a gate, which then has the nonlinearity.
      norm_policy: "pre" normalises x; "post" normalises what is added to x; "primer_hybrid" both;
        "post_skip" normalises the sum.
      ln_tpl: Config of the normalization. D is filled in.
      add_skip_connection: Whether to add x.
      residual_weight: Factor of what is added to x; not used with `residual_droppath_prob`.
      apply_padding_first: Make padded inputs 0 too.
      relu_dropout_tpl: Config of the dropout after the nonlinearity.
      relu_dropout_prob: Probability of dropping there.
      residual_dropout_tpl: Config of the dropout of what is added to x.
      residual_dropout_prob: Probability of dropping there.
      residual_droppath_prob: Probability of adding nothing to an example's x.
      internal_gshard_variance_scaling_fan_in_init: Start the projections uniformly between
        -sqrt(3 / fan_in) and sqrt(3 / fan_in).

    Variables:
      layer_norm, or pre_layer_norm and post_layer_norm for "primer_hybrid"
      ffn_layer1/linear/w: [D, F], ffn_layer1/bias/b: [F]
      ffn_layer1_gate: as ffn_layer1, with `use_gated_activation`
      ffn_layer2/linear/w: [F, D], ffn_layer2/bias/b: [D]

    Raises:
      ValueError: during setup, if a size is missing or options contradict each other; in
        `__call__`, if the last axis of the inputs is not D.
    """

    input_dims: int = 0
    output_dims: int = 0
    hidden_dims: int = 0
    has_bias: bool = True
    apply_padding_first: bool = False
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(activations.ReLU)
    use_gated_activation: bool = False
    fflayer_tpl: LayerTpl = template_field(linears.FeedForward)
    ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    residual_dropout_prob: float = 0.0
    relu_dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    relu_dropout_prob: float = 0.0
    residual_dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    add_skip_connection: bool = True
    residual_weight: float = 1.0
    residual_droppath_prob: float = 0.0
    norm_policy: str = "pre"
    internal_gshard_variance_scaling_fan_in_init: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          ffn0: Of ffn_layer1 and its gate, [D, F].
          ffn1: Of ffn_layer2, [F, D].
        """

        ffn0: SplitDimsMapping = None
        ffn1: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          ffn0: Of the hidden activations, [B, T, F].
          ffn0_extend_step: Of those of a decoding step, [B, F].
          ffn1: Of the outputs, [B, T, D].
          ffn1_extend_step: Of those of a decoding step, [B, D].
        """

        ffn0: SplitDimsMapping = None
        ffn0_extend_step: SplitDimsMapping = None
        ffn1: SplitDimsMapping = None
        ffn1_extend_step: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "input_dims", "hidden_dims")
        check_norm_policy(self)
        output_dims = self.output_dims or self.input_dims
        if self.add_skip_connection and output_dims != self.input_dims:
            raise ValueError(
                f"{self.path_text}: add_skip_connection = True needs outputs as wide as the "
                f"inputs, but input_dims = {self.input_dims} and output_dims = "
                f"{self.output_dims}. Set add_skip_connection to False or output_dims to 0."
            )
        norm_names = NORM_POLICIES[self.norm_policy].names("layer_norm")
        for name in norm_names:
            self.create_child(name, self.ln_tpl.clone().set(dim=self.input_dims))
        self._create_projections(output_dims)
        self.create_child(
            "relu_dropout",
            self.relu_dropout_tpl.clone().set(keep_prob=1.0 - self.relu_dropout_prob),
        )
        self.create_child(
            "residual_dropout",
            self.residual_dropout_tpl.clone().set(keep_prob=1.0 - self.residual_dropout_prob),
        )
        if self.residual_droppath_prob > 0.0:
            self.create_child(
                "residual_droppath",
                pax_fiddle.Config(
                    stochastics.StochasticResidual,
                    survival_prob=1.0 - self.residual_droppath_prob,
                ),
            )

    def _create_projections(self, output_dims: int) -> None:
        weights, acts = self.weight_split_dims_mapping, self.activation_split_dims_mapping
        identity = pax_fiddle.Config(activations.Identity)
        first = self.fflayer_tpl.clone().set(
            input_dims=self.input_dims, output_dims=self.hidden_dims, has_bias=self.has_bias
        )
        if self.internal_gshard_variance_scaling_fan_in_init:
            first.weight_init = WeightInit.Uniform(math.sqrt(3.0 / self.input_dims))
        first.weight_split_dims_mapping.wt = weights.ffn0
        first.activation_split_dims_mapping.out = acts.ffn0
        first.activation_split_dims_mapping.extend_step_out = acts.ffn0_extend_step
        up = first.clone().set(checkpoint_str="ffn1")
        up.activation_tpl = identity if self.use_gated_activation else self.activation_tpl.clone()
        self.create_child("ffn_layer1", up)
        if self.use_gated_activation:
            gate = first.clone().set(checkpoint_str="ffn1_gate")
            gate.activation_tpl = self.activation_tpl.clone()
            self.create_child("ffn_layer1_gate", gate)

        last = self.fflayer_tpl.clone().set(
            input_dims=self.hidden_dims,
            output_dims=output_dims,
            has_bias=self.has_bias,
            activation_tpl=identity,
            checkpoint_str="ffn2",
        )
        if self.internal_gshard_variance_scaling_fan_in_init:
            last.weight_init = WeightInit.Uniform(math.sqrt(3.0 / self.hidden_dims))
        last.weight_split_dims_mapping.wt = weights.ffn1
        last.activation_split_dims_mapping.out = acts.ffn1
        last.activation_split_dims_mapping.extend_step_out = acts.ffn1_extend_step
        self.create_child("ffn_layer2", last)

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        paddings: Shaped[Array, "*B"] | None = None,
        segment_ids: Int[Array, "*B"] | None = None,
    ) -> Float[Array, "*B E"]:
        """Applies the layer.

        Args:
          inputs: [..., D].
          paddings: [...], 1 marks padding; None: there is none.
          segment_ids: Not read.

        Returns:
          [..., output_dims].
        """
        del segment_ids
        inputs, outputs = self._branch(inputs, paddings)
        policy = NORM_POLICIES[self.norm_policy]
        if not self.add_skip_connection:
            return policy.at_end(self, "layer_norm", outputs)
        self.add_summary("output_rel_cos", lambda: relative_cosine(inputs, outputs), verbosity=4)
        if self.residual_droppath_prob > 0.0:
            outputs = self.residual_droppath(inputs, outputs)
        else:
            outputs = inputs + self.residual_weight * outputs
        return policy.at_end(self, "layer_norm", outputs)

    def _branch(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "*B"] | None
    ) -> tuple[Float[Array, "*B D"], Float[Array, "*B E"]]:
        """The inputs of the skip connection, and what is to be added to them."""
        check_last_axis(self, inputs, "input_dims")

        def hide(x: Float[Array, "..."]) -> Float[Array, "..."]:
            return x if paddings is None else py_utils.apply_padding(x, paddings, axis=0)

        if self.apply_padding_first:
            inputs = hide(inputs)
        policy = NORM_POLICIES[self.norm_policy]
        self.add_summary("input_rms", lambda: rms(inputs), verbosity=4)
        normed = policy.before(self, "layer_norm", inputs)
        self.add_summary("input_norm_rms", lambda: rms(normed), verbosity=4)
        hidden = self.ffn_layer1(normed)
        if self.use_gated_activation:
            hidden = self.ffn_layer1_gate(normed) * hidden
        self.add_summary("activation_rms", lambda: rms(hidden), verbosity=4)
        # Rows are independent from here to the end, so that padding is hidden once, at the end.
        outputs = hide(self.ffn_layer2(self.relu_dropout(hidden)))
        self.add_summary("output_rms", lambda: rms(outputs), verbosity=4)
        outputs = policy.after(self, "layer_norm", outputs)
        self.add_summary("output_norm_rms", lambda: rms(outputs), verbosity=4)
        return inputs, self.residual_dropout(outputs)

    def extend_step(
        self, inputs: Float[Array, "*B D"], *, time_step: TimeStep
    ) -> Float[Array, "*B E"]:
        """Applies the layer to one decoding step, [B, D], or several, [B, L, D]."""
        del time_step
        return self(inputs)
