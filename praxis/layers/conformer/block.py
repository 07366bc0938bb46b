"""The Conformer block: attention and convolution between two halves of a feed-forward."""

import dataclasses

from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, normalizations
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_sizes
from praxis.layers.conformer.self_attention import SelfAttentionWithNormAndResidual
from praxis.layers.convolution.light import LightConv1D
from praxis.layers.transformer.feed_forward import TransformerFeedForward

Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field

# Children between the two halves of the feed-forward, in order.
LAYER_ORDERS = {
    "mhsa": ("trans_atten",),
    "conv": ("lconv",),
    "mhsa_before_conv": ("trans_atten", "lconv"),
    "conv_before_mhsa": ("lconv", "trans_atten"),
}


@dataclasses.dataclass(frozen=True)
class Dropouts:
    """Probabilities of dropping.

    Attributes:
      atten_dropout: An attention probability.
      atten_residual_dropout: An element of what attention returns.
      conv_residual_dropout: An element of what the convolution module adds to its inputs.
      ffn_residual_dropout: An element of what a feed-forward adds to its inputs.
      ffn_relu_dropout: A hidden activation of a feed-forward.
    """

    atten_dropout: float
    atten_residual_dropout: float
    conv_residual_dropout: float
    ffn_residual_dropout: float
    ffn_relu_dropout: float


class Conformer(base_layer.BaseLayer):
    """A block of the Conformer, which reads near frames by convolution, and far ones by attention.

    With the default order it is `x = x + ffn(x) / 2; x = x + attention(x); x = x + convolution(x);
    x = x + ffn(x) / 2; layer_norm(x)`: Gulati et al., "Conformer: Convolution-augmented Transformer
    for Speech Recognition", 2020, arXiv:2005.08100, section 2. A part whose template is None is
    left out.

    Shapes: D is `model_dims`.

    Attributes:
      input_dims: Width of the inputs; None takes D. Where it is not D, the first feed-forward
        brings the inputs to D, and adds no skip connection.
      model_dims: D, at least 1.
      kernel_size: Of the convolution, in frames.
      ff_activation_tpl: Config of the nonlinearity of both feed-forwards.
      ff_residual_weight: Factor of what a feed-forward adds to its inputs.
      ffn_dim_multiplier: Hidden width of the feed-forwards, in units of D.
      atten_num_heads: Attention heads.
      layer_order: What is between the feed-forwards: "mhsa", attention; "conv", the convolution
        module; "mhsa_before_conv" or "conv_before_mhsa", both.
      dropout_prob: Probability of dropping, for all dropouts below; these are then None, or the
        same.
      conv_residual_dropout: Of what the convolution module adds; None, here and below, for 0.
      atten_residual_dropout: Of what attention returns.
      ffn_residual_dropout: Of what a feed-forward adds.
      atten_dropout: Of attention probabilities.
      ffn_relu_dropout: Of hidden activations of a feed-forward.
      fflayer_start_tpl: Config of the first feed-forward. What the fields above say is filled in,
        here and below.
      trans_atten_tpl: Config of the attention, with fields `norm_tpl` and `self_atten_tpl`.
      lconv_tpl: Config of the convolution module.
      fflayer_end_tpl: Config of the second feed-forward.
      fflayer_weight_sharing: Apply the first feed-forward in place of the second one, too.
      final_ln_tpl: Config of the normalization of the outputs.

    Variables:
      fflayer_start, trans_atten, lconv, fflayer_end, final_ln: as in their templates

    Raises:
      ValueError: during setup, if a field is out of range or fields contradict each other; in
        `__call__`, if the inputs or paddings do not fit.
      RuntimeError: in `__call__`, for an `atten_mask` without attention.
    """

    input_dims: int | None = None
    model_dims: int = 512
    kernel_size: int = 32
    ff_activation_tpl: Config[activations.BaseActivation] = template_field(activations.Swish)
    ff_residual_weight: float = 0.5
    ffn_dim_multiplier: int = 4
    atten_num_heads: int = 8
    layer_order: str = "mhsa_before_conv"
    dropout_prob: float | None = None
    conv_residual_dropout: float | None = None
    atten_residual_dropout: float | None = None
    ffn_residual_dropout: float | None = None
    atten_dropout: float | None = None
    ffn_relu_dropout: float | None = None
    fflayer_start_tpl: LayerTpl | None = template_field(TransformerFeedForward)
    trans_atten_tpl: LayerTpl | None = template_field(SelfAttentionWithNormAndResidual)
    lconv_tpl: LayerTpl | None = template_field(LightConv1D)
    fflayer_end_tpl: LayerTpl | None = template_field(TransformerFeedForward)
    fflayer_weight_sharing: bool = False
    final_ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)

    @property
    def _input_width(self) -> int:
        return self.model_dims if self.input_dims is None else self.input_dims

    def _has(self, part: str) -> bool:
        """Whether one of `trans_atten` and `lconv` is there."""
        return part in LAYER_ORDERS[self.layer_order] and getattr(self, f"{part}_tpl") is not None

    def setup(self) -> None:
        self._check_fields()
        dropouts = self._dropouts()
        if self.fflayer_start_tpl is not None:
            start = self._feed_forward(self.fflayer_start_tpl, self._input_width, dropouts)
            if self._input_width != self.model_dims:
                start.set(output_dims=self.model_dims, add_skip_connection=False)
            self.create_child("fflayer_start", start)
        if self._has("trans_atten"):
            self.create_child("trans_atten", self._attention(dropouts))
        if self._has("lconv"):
            assert self.lconv_tpl is not None
            convolution = self.lconv_tpl.clone().set(
                input_dims=self.model_dims,
                kernel_size=self.kernel_size,
                dropout_prob=dropouts.conv_residual_dropout,
            )
            self.create_child("lconv", convolution)
        if self.fflayer_end_tpl is not None and not self.fflayer_weight_sharing:
            end = self._feed_forward(self.fflayer_end_tpl, self.model_dims, dropouts)
            self.create_child("fflayer_end", end)
        self.create_child("final_ln", self.final_ln_tpl.clone().set(dim=self.model_dims))

    def _check_fields(self) -> None:
        check_sizes(self, "model_dims", "kernel_size", "ffn_dim_multiplier", "atten_num_heads")
        if self.layer_order not in LAYER_ORDERS:
            raise ValueError(
                f"{self.path_text}: layer_order is {self.layer_order!r}, expected one of "
                f"{list(LAYER_ORDERS)}."
            )
        if self.input_dims is not None:
            check_sizes(self, "input_dims")
        if self._input_width != self.model_dims and (
            self.fflayer_start_tpl is None or self.fflayer_weight_sharing
        ):
            raise ValueError(
                f"{self.path_text}: input_dims = {self.input_dims} is not model_dims = "
                f"{self.model_dims}, which needs a fflayer_start_tpl, and fflayer_weight_sharing = "
                "False. Project the inputs first, or set input_dims to None."
            )
        if self.fflayer_weight_sharing and self.fflayer_start_tpl is None:
            raise ValueError(
                f"{self.path_text}: fflayer_weight_sharing = True needs a fflayer_start_tpl to "
                "share, but that is None."
            )

    def _dropouts(self) -> Dropouts:
        """The probabilities, from `dropout_prob` or each from its own field."""
        probs = {}
        for field in dataclasses.fields(Dropouts):
            own, shared = getattr(self, field.name), self.dropout_prob
            if own is not None and shared is not None and own != shared:
                raise ValueError(
                    f"{self.path_text}: dropout_prob = {shared} contradicts {field.name} = {own}. "
                    "Set one of them to None."
                )
            prob = shared if own is None else own
            prob = 0.0 if prob is None else prob
            if not 0.0 <= prob < 1.0:
                raise ValueError(
                    f"{self.path_text}: {field.name} is {prob}, expected a probability of "
                    "dropping, at least 0 and below 1."
                )
            probs[field.name] = prob
        return Dropouts(**probs)

    def _feed_forward(self, tpl: LayerTpl, width: int, dropouts: Dropouts) -> LayerTpl:
        return tpl.clone().set(
            input_dims=width,
            hidden_dims=self.model_dims * self.ffn_dim_multiplier,
            activation_tpl=self.ff_activation_tpl.clone(),
            residual_weight=self.ff_residual_weight,
            residual_dropout_prob=dropouts.ffn_residual_dropout,
            relu_dropout_prob=dropouts.ffn_relu_dropout,
        )

    def _attention(self, dropouts: Dropouts) -> LayerTpl:
        assert self.trans_atten_tpl is not None
        tpl = self.trans_atten_tpl.clone()
        tpl.residual_dropout_prob = dropouts.atten_residual_dropout
        tpl.norm_tpl = tpl.norm_tpl.clone().set(dim=self.model_dims)
        tpl.self_atten_tpl = tpl.self_atten_tpl.clone().set(
            input_dim=self.model_dims,
            hidden_dim=self.model_dims,
            num_heads=self.atten_num_heads,
            atten_dropout_prob=dropouts.atten_dropout,
        )
        return tpl

    def __call__(
        self,
        inputs: Float[Array, "B T _"],
        paddings: Shaped[Array, "..."],
        atten_mask: Mask | None = None,
    ) -> Float[Array, "B T D"]:
        """Applies the block.

        Args:
          inputs: [B, T, `input_dims`].
          paddings: [B, T], 1 marks padding, which no other frame sees.
          atten_mask: [B, 1, T, T], with 1 for B or T where these share it; hides keys besides the
            padded ones. Added to the logits: 0 keeps, large negative hides. Or booleans: True
            keeps. Or an `AttentionMask`.

        Returns:
          [B, T, D].
        """
        if inputs.shape[-1] != self._input_width or paddings.shape != inputs.shape[:2]:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, paddings have shape "
                f"{paddings.shape}; expected [B, T, {self._input_width}], for input_dims = "
                f"{self.input_dims} and model_dims = {self.model_dims}, and [B, T]."
            )
        if atten_mask is not None and not self._has("trans_atten"):
            raise RuntimeError(
                f"{self.path_text}: atten_mask is given, but there is no attention: layer_order is "
                f"{self.layer_order!r}, and trans_atten_tpl is "
                f"{'None' if self.trans_atten_tpl is None else 'not None'}. Leave the mask out."
            )
        outputs = inputs
        if self.fflayer_start_tpl is not None:
            outputs = self.fflayer_start(outputs, paddings)
        for part in LAYER_ORDERS[self.layer_order]:
            if not self._has(part):
                continue
            if part == "trans_atten":
                outputs = self.trans_atten(outputs, paddings, atten_mask)
            else:
                outputs = self.lconv(outputs, paddings)
        if self.fflayer_weight_sharing:
            outputs = self.fflayer_start(outputs, paddings)
        elif self.fflayer_end_tpl is not None:
            outputs = self.fflayer_end(outputs, paddings)
        return self.final_ln(outputs)
