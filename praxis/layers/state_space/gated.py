"""Gated state spaces: a state space layer between projections, and a gate."""

from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_last_axis
from praxis.layers.state_space.transformer import SSMTransformer

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
GATE_FACTOR = 3


class SSMGated(SSMTransformer):
    """A gated state space layer, in place of attention and feed-forward.

    After Mehta et al., "Long Range Language Modeling via Gated State Spaces", 2022,
    arXiv:2206.13947, with more skip connections: with n = norm(x),
    `a = x + dropout(uc(ssm(u(n))))`, and the output is `o(uco(a) * v(n))`. u, v and uco end in a
    GELU. Cross-attention, if any, is added to `a`. Shapes: D is `input_dims`, E is `ssm_dim`.

    Attributes:
      gss_fflayer_tpl: Config of the five projections. Sizes and nonlinearities are filled in.

    Variables:
      layer_norm, or pre_layer_norm and post_layer_norm for "primer_hybrid"
      ssm
      gss_ffn_u: D to E
      gss_ffn_uc: E to D
      gss_ffn_v, gss_ffn_uco: D to 3 D
      gss_ffn_o: 3 D to D
      those of cross-attention, as `Transformer`

    Raises:
      ValueError: as `SSMTransformer`, but `ssm_dim` is free.
    """

    gss_fflayer_tpl: LayerTpl = template_field(linears.FeedForward)

    def setup(self) -> None:
        self._create_mixer()
        wide = GATE_FACTOR * self.input_dims
        gelu = pax_fiddle.Config(activations.GELU)
        identity = pax_fiddle.Config(activations.Identity)
        for name, input_dims, output_dims, activation in (
            ("gss_ffn_v", self.input_dims, wide, gelu),
            ("gss_ffn_u", self.input_dims, self.ssm_dim, gelu),
            ("gss_ffn_uc", self.ssm_dim, self.input_dims, identity),
            ("gss_ffn_uco", self.input_dims, wide, gelu),
            ("gss_ffn_o", wide, self.input_dims, identity),
        ):
            projection = self.gss_fflayer_tpl.clone().set(
                input_dims=input_dims, output_dims=output_dims, activation_tpl=activation.clone()
            )
            self.create_child(name, projection)

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        attention_mask: Mask | None,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_attention_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Applies the layer; arguments and results as of `SSMTransformer`."""
        del attention_mask, segment_ids
        check_last_axis(self, inputs, "input_dims")
        self._summarise_inputs(inputs)
        normed = self._policy.before(self, "layer_norm", inputs)
        mixed = self.gss_ffn_uc(self._mix(self.gss_ffn_u(normed), paddings))
        x = self._add(inputs, mixed, "layer_norm")
        x, _ = self._attend_across(x, cross_inputs, cross_attention_mask, segment_pos)
        return self._gate(x, normed), None

    def _gate(self, x: Float[Array, "*B D"], normed: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.gss_ffn_o(self.gss_ffn_uco(x) * self.gss_ffn_v(normed))

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        attention_mask: Shaped[Array, "..."] | None,
        cross_attention_mask: Shaped[Array, "_ 1 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layer to one decoding step, or several, as `SSMTransformer`."""
        del attention_mask
        check_last_axis(self, inputs, "input_dims")
        normed = self._policy.before(self, "layer_norm", inputs)
        mixed = self.gss_ffn_uc(self._mix_step(self.gss_ffn_u(normed), time_step))
        x = self._add_step(inputs, mixed, "layer_norm")
        x = self._extend_across(x, cross_attention_mask, time_step, segment_pos)
        return self._gate(x, normed)
