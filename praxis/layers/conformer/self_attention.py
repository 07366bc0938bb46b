"""Self-attention with normalization, dropout and a skip connection."""

import dataclasses

from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import normalizations, stochastics
from praxis.layers.attention.mask_spec import Mask, as_mask, either_padded
from praxis.layers.conformer.context import DotProductAttentionWithContext, has_limited_context
from praxis.layers.transformer.masks import attends_lazily
from praxis.layers.transformer.norms import NORM_POLICIES

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class SelfAttentionWithNormAndResidual(base_layer.BaseLayer):
    """Computes `input_weight * x + residual_weight * dropout(attention(norm(x)))`.

    Shapes: D is the width of the inputs.

    Attributes:
      residual_weight: Factor of what attention returns.
      input_weight: Factor of the inputs in the sum.
      self_atten_tpl: Config of the attention, with its sizes. Padded frames are hidden as keys, and
        from an attention with a limited context as queries too.
      norm_tpl: Config of the normalizations, with its size.
      pre_layer_norm: True normalizes the inputs of the attention, False normalizes the sum; unless
        `norm_policy` is given.
      norm_policy: "pre" and "post_skip" stand for True and False of `pre_layer_norm`; "post"
        normalizes what attention returns; "primer_hybrid" the inputs of the attention, and what it
        returns.
      residual_dropout_prob: Probability of dropping an element of what attention returns.
      residual_dropout_tpl: Config of that dropout. Its probability is filled in.

    Variables:
      norm, or pre_norm and post_norm for "primer_hybrid"
      self_atten: as in `self_atten_tpl`

    Raises:
      ValueError: during setup, if neither field says where to normalize, the policy is unknown, or
        they contradict each other; in `__call__`, if the paddings or the mask do not fit.
    """

    residual_weight: float = 1.0
    input_weight: float = 1.0
    self_atten_tpl: LayerTpl = template_field(DotProductAttentionWithContext)
    norm_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    pre_layer_norm: bool | None = True
    residual_dropout_prob: float = 0.0
    residual_dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    norm_policy: str | None = None

    @nn.nowrap
    def unified_norm_policy(self) -> str:
        """The policy that `norm_policy` and `pre_layer_norm` come to.

        Raises:
          ValueError: if the policy is unknown, or they contradict each other.
        """
        by_flag = {True: "pre", False: "post_skip", None: None}[self.pre_layer_norm]
        policy = self.norm_policy if self.norm_policy is not None else by_flag
        if policy not in NORM_POLICIES:
            raise ValueError(
                f"{self.path_text}: norm_policy is {self.norm_policy!r} and pre_layer_norm is "
                f"{self.pre_layer_norm}, expected a norm_policy of {list(NORM_POLICIES)}, or "
                "pre_layer_norm = True or False."
            )
        # True is the default of a field that nobody need have set, so only False contradicts.
        if self.pre_layer_norm is False and policy != by_flag:
            raise ValueError(
                f"{self.path_text}: norm_policy = {policy!r} contradicts pre_layer_norm = False, "
                f"which stands for {by_flag!r}. Set pre_layer_norm to None."
            )
        return policy

    def setup(self) -> None:
        policy = NORM_POLICIES[self.unified_norm_policy()]
        for name in policy.names("norm"):
            self.create_child(name, self.norm_tpl)
        self.create_child("self_atten", self.self_atten_tpl)
        dropout = self.residual_dropout_tpl.clone().set(keep_prob=1.0 - self.residual_dropout_prob)
        self.create_child("residual_dropout", dropout)

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "..."],
        atten_mask: Mask | None = None,
    ) -> Float[Array, "B T D"]:
        """Attends within each example.

        Args:
          inputs: [B, T, D].
          paddings: [B, T], 1 marks padding, which is not attended to.
          atten_mask: [B, 1, T, T], with 1 for B or T where these share it; hides keys besides the
            padded ones. Added to the logits: 0 keeps, large negative hides. Or booleans: True
            keeps. Or an `AttentionMask`.

        Returns:
          [B, T, D].
        """
        if paddings.shape != inputs.shape[:2]:
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, inputs have shape "
                f"{inputs.shape}; expected paddings [B, T] = {inputs.shape[:2]}."
            )
        policy = NORM_POLICIES[self.unified_norm_policy()]
        normed = policy.before(self, "norm", inputs, paddings)
        mask = self._mask(inputs, paddings, atten_mask)
        attended, _ = self.self_atten(normed, normed, normed, mask)
        attended = policy.after(self, "norm", attended, paddings)
        outputs = (
            self.residual_dropout(attended) * self.residual_weight + inputs * self.input_weight
        )
        return policy.at_end(self, "norm", outputs, paddings)

    def _mask(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        atten_mask: Mask | None,
    ) -> Mask:
        """Hides padded frames, and what `atten_mask` hides."""
        length = inputs.shape[1]
        try:
            mask = as_mask(atten_mask, length, length)
        except ValueError as error:
            raise ValueError(f"{self.path_text}: {error}") from error
        mask = dataclasses.replace(mask, key_paddings=either_padded(mask.key_paddings, paddings))
        if has_limited_context(self.self_atten_tpl):
            hidden = either_padded(mask.query_paddings, paddings)
            mask = dataclasses.replace(mask, query_paddings=hidden)
        drops = getattr(self.self_atten_tpl, "atten_dropout_prob", 0.0) > 0.0 and not self.do_eval
        if attends_lazily(self.self_atten_tpl, length**2, drops=drops):
            return mask
        return mask.materialise(inputs.dtype)
