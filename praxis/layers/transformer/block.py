"""One transformer layer: self-attention, cross-attention if asked for, feed-forward."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import normalizations, stochastics
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.transformer.feed_forward import (
    TransformerFeedForward,
    relative_cosine,
    rms,
)
from praxis.layers.transformer.masks import attends_lazily
from praxis.layers.transformer.norms import NORM_POLICIES, NormPolicy, check_norm_policy

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
DecodeStateTransformFn = base_layer.DecodeStateTransformFn


class Transformer(base_layer.BaseLayer):
    """A transformer layer, of an encoder or a decoder.

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762. Shapes: D is `input_dims`.

    Attributes:
      input_dims: D, at least 1. Required.
      hidden_dims: Width of the hidden layer of the feed-forward. Required.
      num_heads: Number of attention heads. Required.
      dim_per_head: Width of a head; None takes `input_dims / num_heads`.
      use_cross_attention: Whether to attend to another sequence too.
      allow_skip_cross_attention: Skip that where a call gives no other sequence.
      dropout_tpl: Config of the dropout after each attention.
      atten_dropout_prob: Probability of dropping an attention probability.
      residual_dropout_prob: Probability of dropping what is added to the inputs.
      relu_dropout_prob: Probability of dropping a hidden activation of the feed-forward.
      residual_droppath_prob: Probability of adding nothing to an example.
      norm_policy: As in `TransformerFeedForward`, for all sublayers.
      ln_tpl: Config of the normalizations at the attentions. D is filled in.
      tr_atten_tpl: Config of the self-attention. Sizes and the dropout are filled in.
      cross_atten_tpl: Config of the cross-attention; None takes `tr_atten_tpl`.
      tr_fflayer_tpl: Config of the feed-forward. Sizes, dropouts and `norm_policy` are filled in.
      packed_input: Whether rows hold several examples.
      ngrammer_tpl: Filled into the self-attention's field of that name, unless it is None.

    Variables:
      layer_norm, or pre_layer_norm and post_layer_norm for "primer_hybrid"
      self_attention
      cross_layer_norm, or pre_cross_layer_norm and post_cross_layer_norm; with cross-attention
      cross_attention
      ff_layer

    Raises:
      ValueError: during setup, if a size is missing or the policy is unknown; in calls, if what
        cross-attention attends to is missing.
    """

    use_cross_attention: bool = False
    allow_skip_cross_attention: bool = False
    num_heads: int | None = None
    dim_per_head: int | None = None
    input_dims: int = 0
    hidden_dims: int = 0
    packed_input: bool = False
    ngrammer_tpl: LayerTpl | None = template_field(None)
    tr_atten_tpl: LayerTpl = template_field(DotProductAttention)
    cross_atten_tpl: LayerTpl | None = template_field(None)
    ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    norm_policy: str = "pre"
    dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    tr_fflayer_tpl: LayerTpl = template_field(TransformerFeedForward)
    atten_dropout_prob: float = 0.0
    residual_dropout_prob: float = 0.0
    relu_dropout_prob: float = 0.0
    residual_droppath_prob: float = 0.0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "hidden_dims", "num_heads")
        check_norm_policy(self)
        attention = self.tr_atten_tpl.clone()
        if self.ngrammer_tpl is not None:
            attention.ngrammer_tpl = self.ngrammer_tpl
        self._create_attention("self_attention", "layer_norm", attention)
        self._create_cross_attention()
        self._create_residuals()
        self._create_feed_forward()

    def _create_cross_attention(self) -> None:
        if self.use_cross_attention:
            tpl = self.tr_atten_tpl if self.cross_atten_tpl is None else self.cross_atten_tpl
            self._create_attention("cross_attention", "cross_layer_norm", tpl)

    def _create_residuals(self) -> None:
        """Creates what drops parts of the outputs of attentions."""
        dropout = self.dropout_tpl.clone().set(keep_prob=1.0 - self.residual_dropout_prob)
        self.create_child("residual_dropout", dropout)
        if self.residual_droppath_prob > 0.0:
            self.create_child(
                "residual_droppath",
                pax_fiddle.Config(
                    stochastics.StochasticResidual,
                    survival_prob=1.0 - self.residual_droppath_prob,
                ),
            )

    def _create_feed_forward(self) -> None:
        self.create_child(
            "ff_layer",
            self.tr_fflayer_tpl.clone().set(
                input_dims=self.input_dims,
                hidden_dims=self.hidden_dims,
                relu_dropout_prob=self.relu_dropout_prob,
                residual_dropout_prob=self.residual_dropout_prob,
                residual_droppath_prob=self.residual_droppath_prob,
                norm_policy=self.norm_policy,
            ),
        )

    @property
    def _policy(self) -> NormPolicy:
        return NORM_POLICIES[self.norm_policy]

    def _create_norms(self, norm: str) -> None:
        for norm_name in self._policy.names(norm):
            self.create_child(norm_name, self.ln_tpl.clone().set(dim=self.input_dims))

    def _create_attention(self, name: str, norm: str, tpl: LayerTpl) -> None:
        self._create_norms(norm)
        self.create_child(
            name,
            tpl.clone().set(
                input_dim=self.input_dims,
                hidden_dim=self.input_dims,
                num_heads=self.num_heads,
                dim_per_head=self.dim_per_head,
                atten_dropout_prob=self.atten_dropout_prob,
            ),
        )

    @nn.nowrap
    def attends_lazily(self, target_len: int, source_len: int | None) -> bool:
        """Whether calls need no array of T by S: neither for logits, nor for a mask.

        Args:
          target_len: T.
          source_len: S of what cross-attention attends to; None if there is none.
        """
        drops = self.atten_dropout_prob > 0.0 and not self.do_eval
        lazily = attends_lazily(self.tr_atten_tpl, target_len**2, drops=drops)
        if self.use_cross_attention and source_len is not None:
            tpl = self.tr_atten_tpl if self.cross_atten_tpl is None else self.cross_atten_tpl
            lazily = lazily and attends_lazily(tpl, target_len * source_len, drops=drops)
        return lazily

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        attention_mask: Mask,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_attention_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], py_utils.NestedMap]:
        """Applies the layer.

        Args:
          inputs: [B, T, D].
          paddings: [B, T], 1 marks padding.
          attention_mask: [B, 1, T, T], with 1 for B or T where these share it; added to the logits:
            0 keeps, large negative hides. Or an `AttentionMask`, where the attention takes one.
          cross_inputs: [B, S, D], what cross-attention attends to.
          cross_attention_mask: [B, 1, T, S], likewise.
          segment_pos: [B, T], position of each token in its segment; None: 0 to T - 1.
          segment_ids: [B, T], passed to the feed-forward, where given.

        Returns:
          The outputs [B, T, D], and the attention probabilities [B, N, T, S], as `self_atten` and,
          with cross-attention, `cross_atten`.
        """
        check_last_axis(self, inputs, "input_dims")
        self._summarise_inputs(inputs)
        probs = py_utils.NestedMap()
        normed = self._policy.before(self, "layer_norm", inputs)
        self.add_summary("attention_input_rms", lambda: rms(inputs), verbosity=4)
        attended, probs.self_atten = self.self_attention(
            normed, normed, normed, attention_mask, segment_pos, segment_pos
        )
        self.add_summary("attention_output_rms", lambda: rms(attended), verbosity=4)
        x = self._add(inputs, attended, "layer_norm")
        x, cross_probs = self._attend_across(x, cross_inputs, cross_attention_mask, segment_pos)
        probs.update(cross_probs)
        segments = {} if segment_ids is None else {"segment_ids": segment_ids}
        return self.ff_layer(x, paddings, **segments), probs

    def _attend_across(
        self,
        x: Float[Array, "B T D"],
        cross_inputs: Float[Array, "B S _"] | None,
        cross_attention_mask: Mask | None,
        segment_pos: Int[Array, "_ T"] | None,
    ) -> tuple[Float[Array, "B T D"], py_utils.NestedMap]:
        """Cross-attention with its skip connection, and its probabilities; if a call has it."""
        if not self._attends_across(cross_inputs, "cross_inputs"):
            return x, py_utils.NestedMap()
        if cross_attention_mask is None:
            raise ValueError(
                f"{self.path_text}: cross_attention_mask is None, but use_cross_attention = "
                "True needs the mask of cross_inputs, [B, 1, T, S]."
            )
        attended, probs = self.cross_attention(
            self._policy.before(self, "cross_layer_norm", x),
            cross_inputs,
            cross_inputs,
            cross_attention_mask,
            segment_pos,
        )
        x = self._add(x, attended, "cross_layer_norm")
        return x, py_utils.NestedMap(cross_atten=probs)

    def _attends_across(self, given: Array | None, argument: str) -> bool:
        """Whether a call attends to another sequence."""
        if not self.use_cross_attention:
            return False
        if given is None and not self.allow_skip_cross_attention:
            raise ValueError(
                f"{self.path_text}: {argument} is None, but use_cross_attention = True. Pass it, "
                "or set allow_skip_cross_attention to True."
            )
        return given is not None

    def _add(
        self, x: Float[Array, "B T D"], attended: Float[Array, "B T D"], norm: str
    ) -> Float[Array, "B T D"]:
        """Adds the output of an attention to its input, as the norm policy says."""
        outputs = self._policy.after(self, norm, attended)
        if norm == "layer_norm":
            self.add_summary("attention_output_norm_rms", lambda: rms(outputs), verbosity=4)
            self.add_summary(
                "attention_output_rel_cos", lambda: relative_cosine(x, outputs), verbosity=4
            )
        outputs = self.residual_dropout(outputs)
        if self.residual_droppath_prob > 0.0:
            outputs = self.residual_droppath(x, outputs)
        else:
            outputs = x + outputs
        return self._policy.at_end(self, norm, outputs)

    def _summarise_inputs(self, inputs: Float[Array, "B T D"]) -> None:
        for name, statistic in (
            ("mean", jnp.mean),
            ("std", jnp.std),
            ("abs_max", lambda x: jnp.max(jnp.abs(x))),
        ):
            self.add_summary(
                f"xformer_input_{name}",
                lambda statistic=statistic: statistic(inputs),
                verbosity=3,
            )

    def init_states(self, target_batch_size: int, target_max_length: int) -> None:
        """Caches are made by a call over the prompt; this always raises."""
        self.self_attention.init_states(target_batch_size, target_max_length)

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        attention_mask: Shaped[Array, "..."],
        cross_attention_mask: Shaped[Array, "_ 1 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layer to one decoding step, with the caches of its attentions.

        Args:
          inputs: [B, D]; or [B, L, D], L steps, where the attention can do that.
          time_step: Where the (first) step goes in the cache.
          segment_pos: [B] or [B, L], position in the segment; None: `time_step`.
          attention_mask: [B, 1, S], or 1 for B.
          cross_attention_mask: [b, 1, 1, S], or 1 for b, of the sequence that cross-attention
            attends to. B may be a multiple of b.

        Returns:
          Of the shape of the inputs.
        """
        check_last_axis(self, inputs, "input_dims")
        normed = self._policy.before(self, "layer_norm", inputs)
        attended = self.self_attention.extend_step(
            normed, atten_mask=attention_mask, time_step=time_step, segment_pos=segment_pos
        )
        x = self._add_step(inputs, attended, "layer_norm")
        x = self._extend_across(x, cross_attention_mask, time_step, segment_pos)
        return self.ff_layer.extend_step(x, time_step=time_step)

    def _extend_across(
        self,
        x: Float[Array, "*B D"],
        cross_attention_mask: Shaped[Array, "_ 1 1 S"] | None,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None,
    ) -> Float[Array, "*B D"]:
        """As `_attend_across`, for `extend_step`."""
        if not self._attends_across(cross_attention_mask, "cross_attention_mask"):
            return x
        assert cross_attention_mask is not None  # by _attends_across
        attended = self.cross_attention.extend_step(
            self._policy.before(self, "cross_layer_norm", x),
            atten_mask=jnp.squeeze(cross_attention_mask, 2),
            time_step=time_step,
            segment_pos=segment_pos,
            is_cross_attention=True,
        )
        return self._add_step(x, attended, "cross_layer_norm")

    def _add_step(
        self, x: Float[Array, "*B D"], attended: Float[Array, "*B D"], norm: str
    ) -> Float[Array, "*B D"]:
        """As `_add`, without what only training has."""
        return self._policy.at_end(self, norm, x + self._policy.after(self, norm, attended))

    def decoding_sequence_length(self) -> int:
        """The number of time steps that the cache of self-attention has room for."""
        return self.self_attention.decoding_state_sequence_length()

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the cache of self-attention by `transform_fn` of it."""
        self.self_attention.transform_decode_state(transform_fn)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the cache of self-attention as a prefix that samples share."""
        self.self_attention.lazy_broadcast_prefix(num_suffix_samples, suffix_length)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the cache of self-attention, and aligns the result."""
        self.self_attention.right_align_decode_state_with_prefix(max_prefix_size, right_align_fn)
