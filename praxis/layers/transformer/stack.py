"""A stack of transformer layers, each with its own variables."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import stochastics
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.attention.masks import mask_from_keep
from praxis.layers.checks import check_sizes
from praxis.layers.transformer.block import Transformer
from praxis.layers.transformer.masks import (
    compute_attention_masks_for_extend_step,
    lazy_attention_masks_for_fprop,
)
from praxis.layers.transformer.moe import TransformerFeedForwardMoe
from praxis.layers.transformer.remat import AutodiffCheckpointType, custom_policy

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
DecodeStateTransformFn = base_layer.DecodeStateTransformFn
Window = tuple[int, int] | None
DEFAULT_CAPACITY_FACTOR = 2.0


class StackedTransformer(base_layer.BaseLayer):
    """Applies `num_layers` transformer layers, one after the other.

    The attention masks are built once, for all layers. Shapes: D is `model_dims`.

    Attributes:
      num_layers: Number of layers, at least 1. Required.
      model_dims: D, at least 1. Required.
      hidden_dims: Width of the hidden layer of each feed-forward, at least 1. Required.
      num_heads: Number of attention heads, at least 1. Required.
      dim_per_head: Width of a head; None takes `model_dims / num_heads`.
      mask_self_attention: Whether queries see no later keys, as in a decoder.
      use_cross_attention: Whether to attend to another sequence too.
      packed_input: Whether rows hold several examples; calls then need `segment_mask`.
      fold_padding_with_segment_mask: `segment_mask` hides the padding already, so that paddings
        need not be merged into it.
      transformer_layer_params_tpl: Config of each layer; or a list of configs, whose length
        divides `num_layers`: a, b for 4 layers means a, a, b, b.
      dropout_prob: Probability of dropping, for the three dropouts that follow.
      atten_dropout_prob: Of an attention probability; None takes `dropout_prob`.
      residual_dropout_prob: Of what is added to the inputs; None takes `dropout_prob`.
      relu_dropout_prob: Of a hidden activation of the feed-forward; None takes `dropout_prob`.
      input_dropout_prob: Probability of dropping an input of the stack.
      residual_droppath_prob: Probability of adding nothing to an example, after the last layer;
        layer i of n has i / n of it.
      local_window_size: Keys that a query sees before (with itself) and after it, for all layers,
        or one pair or None for each; None does not limit them. The attention class must have the
        field.
      moe_layers: Indices of the layers whose feed-forward is `moe_layer_tpl`.
      moe_layer_tpl: Config of a mixture-of-experts feed-forward. The four fields that follow are
        filled in, and `hidden_dims` where it has none.
      num_experts: Number of experts.
      num_groups: Number of groups of tokens.
      min_group_size: Smallest number of tokens in a group; None does not limit it.
      gating_func: Name of the function that chooses experts.
      unadjusted_expert_capacity_factor: Filled into `moe_layer_tpl` too, unless it is the default
        and the template has another; see `TransformerFeedForwardMoe`.
      ngrammer_tpls: One config for each layer, or None for it, of what the scores of its
        self-attention get added; None: nothing.
      remat: Whether to compute activations again in the backward pass.
      checkpoint_policy: What is kept then.

    Variables:
      x_layers_0 .. x_layers_{num_layers-1}: as in `Transformer`

    Raises:
      ValueError: during setup, if sizes are missing or do not go together; in calls, if an input
        that the options need is missing.
    """

    use_cross_attention: bool = False
    mask_self_attention: bool = False
    num_layers: int = 0
    model_dims: int = 0
    hidden_dims: int = 0
    num_heads: int = 0
    dim_per_head: int | None = None
    dropout_prob: float = 0.0
    atten_dropout_prob: float | None = None
    residual_dropout_prob: float | None = None
    relu_dropout_prob: float | None = None
    residual_droppath_prob: float = 0.0
    input_dropout_prob: float = 0.0
    gating_func: str = "top2"
    packed_input: bool = False
    fold_padding_with_segment_mask: bool = False
    transformer_layer_params_tpl: LayerTpl | Sequence[LayerTpl] = template_field(Transformer)
    moe_layer_tpl: LayerTpl | None = template_field(TransformerFeedForwardMoe)
    num_experts: int = 0
    num_groups: int = 1
    min_group_size: int | None = None
    unadjusted_expert_capacity_factor: float = DEFAULT_CAPACITY_FACTOR
    moe_layers: Sequence[int] | None = ()
    ngrammer_tpls: Sequence[LayerTpl | None] | None = template_field(None)
    checkpoint_policy: AutodiffCheckpointType = AutodiffCheckpointType.SAVE_DOT_EXCEPT_LOGITS_FFN1
    remat: bool = False
    local_window_size: tuple[Window, ...] | Window = None

    def setup(self) -> None:
        check_sizes(self, "num_layers", "model_dims", "hidden_dims", "num_heads")
        self._check_probabilities()
        self._check_moe()
        if self.ngrammer_tpls is not None and len(self.ngrammer_tpls) != self.num_layers:
            raise ValueError(
                f"{self.path_text}: ngrammer_tpls has {len(self.ngrammer_tpls)} entries, expected "
                f"one for each of num_layers = {self.num_layers}."
            )
        windows = self._windows()
        layers = [
            self._layer_config(i, template.clone(), windows[i])
            for i, template in enumerate(self._layer_templates())
        ]
        self.create_children("x_layers", layers)
        if self.input_dropout_prob > 0.0:
            dropout = pax_fiddle.Config(
                stochastics.Dropout, keep_prob=1.0 - self.input_dropout_prob
            )
            self.create_child("input_dropout", dropout)

    def _check_probabilities(self) -> None:
        for field in (
            "dropout_prob",
            "atten_dropout_prob",
            "residual_dropout_prob",
            "relu_dropout_prob",
            "residual_droppath_prob",
            "input_dropout_prob",
        ):
            prob = getattr(self, field)
            if prob is not None and not 0.0 <= prob < 1.0:
                raise ValueError(
                    f"{self.path_text}: {field} is {prob}, expected a probability of dropping, at "
                    "least 0 and below 1."
                )

    def _check_moe(self) -> None:
        wrong = [i for i in self.moe_layers or () if not 0 <= i < self.num_layers]
        if wrong:
            raise ValueError(
                f"{self.path_text}: moe_layers has {wrong}, expected indices of layers, below "
                f"num_layers = {self.num_layers}."
            )
        if self.moe_layers and self.moe_layer_tpl is None:
            raise ValueError(
                f"{self.path_text}: moe_layers = {tuple(self.moe_layers)} needs moe_layer_tpl, "
                "which is None. Set it to the config of a mixture-of-experts feed-forward."
            )
        if self.moe_layers and (self.num_experts or 0) < 1:
            raise ValueError(
                f"{self.path_text}: moe_layers = {tuple(self.moe_layers)} needs experts, but "
                f"num_experts is {self.num_experts}. Set it, e.g. config.num_experts = 8."
            )

    def _layer_templates(self) -> list[LayerTpl]:
        """One template for each layer."""
        given = self.transformer_layer_params_tpl
        templates = list(given) if isinstance(given, Sequence) else [given]
        if not templates or self.num_layers % len(templates):
            raise ValueError(
                f"{self.path_text}: num_layers = {self.num_layers} is not a multiple of the "
                f"{len(templates)} configs in transformer_layer_params_tpl."
            )
        times = self.num_layers // len(templates)
        return [template for template in templates for _ in range(times)]

    def _windows(self) -> list[Window]:
        """The attention window of each layer."""
        given = self.local_window_size
        if given is None or (len(given) == 2 and all(isinstance(size, int) for size in given)):
            return [given] * self.num_layers  # pyright: ignore[reportReturnType]  # one pair
        if len(given) != self.num_layers:
            raise ValueError(
                f"{self.path_text}: local_window_size has {len(given)} entries, expected one pair "
                f"for all layers, or one entry for each of num_layers = {self.num_layers}."
            )
        return list(given)  # pyright: ignore[reportReturnType]  # one entry for each layer

    def _layer_config(self, index: int, layer: LayerTpl, window: Window) -> LayerTpl:
        """Fills the fields of this stack into the config of one layer."""

        def prob(value: float | None) -> float:
            return self.dropout_prob if value is None else value

        layer.set(
            use_cross_attention=self.use_cross_attention,
            num_heads=self.num_heads,
            dim_per_head=self.dim_per_head,
            input_dims=self.model_dims,
            hidden_dims=self.hidden_dims,
            packed_input=self.packed_input,
            atten_dropout_prob=prob(self.atten_dropout_prob),
            residual_dropout_prob=prob(self.residual_dropout_prob),
            relu_dropout_prob=prob(self.relu_dropout_prob),
            residual_droppath_prob=self.residual_droppath_prob * index / self.num_layers,
        )
        if self.local_window_size is not None:
            layer.tr_atten_tpl = layer.tr_atten_tpl.clone().set(local_window_size=window)
        if index in (self.moe_layers or ()):
            assert self.moe_layer_tpl is not None  # by _check_moe
            layer.tr_fflayer_tpl = self._experts_config(self.moe_layer_tpl.clone())
            layer.hidden_dims = self.moe_layer_tpl.hidden_dims or self.hidden_dims
        if self.ngrammer_tpls is not None:
            layer.ngrammer_tpl = self.ngrammer_tpls[index]
        return layer

    def _experts_config(self, experts: LayerTpl) -> LayerTpl:
        """Fills the fields of this stack into the config of a mixture of experts."""
        experts.set(
            num_experts=self.num_experts,
            num_groups=self.num_groups,
            min_group_size=self.min_group_size,
            gating_func=self.gating_func,
        )
        given = self.unadjusted_expert_capacity_factor
        if given != DEFAULT_CAPACITY_FACTOR:
            in_template = experts.unadjusted_expert_capacity_factor
            if in_template not in (DEFAULT_CAPACITY_FACTOR, given):
                raise ValueError(
                    f"{self.path_text}: unadjusted_expert_capacity_factor is {given}, but "
                    f"{in_template} in moe_layer_tpl. Set one of them."
                )
            experts.unadjusted_expert_capacity_factor = given
        return experts

    def __call__(
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        segment_mask: Mask | None = None,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_paddings: Shaped[Array, "B S"] | None = None,
        cross_segment_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Applies the layers.

        Args:
          inputs: [B, T, D].
          paddings: [B, T], 1 marks padding.
          segment_mask: [B, 1, T, T], additive, or an `AttentionMask`, of packed rows. Required with
            `packed_input`.
          cross_inputs: [B, S, D], what cross-attention attends to.
          cross_paddings: [B, S], 1 marks padding.
          cross_segment_mask: [B, 1, T, S], or an `AttentionMask`, of packed rows.
          segment_pos: [B, T], position of each token in its segment; None: 0 to T - 1.

        Returns:
          [B, T, D], without a normalization after the last layer.
        """
        self._check_inputs(segment_mask, cross_inputs, cross_paddings)
        mask, cross_mask = lazy_attention_masks_for_fprop(
            inputs,
            paddings,
            causal_attention=self.mask_self_attention,
            segment_mask=segment_mask,
            cross_inputs=cross_inputs,
            cross_paddings=cross_paddings,
            cross_segment_mask=cross_segment_mask,
            fold_padding_with_segment_mask=self.fold_padding_with_segment_mask,
        )

        if not self._attends_lazily(inputs, cross_inputs):
            mask, cross_mask = (
                None if rules is None else rules.materialise(inputs.dtype)
                for rules in (mask, cross_mask)
            )

        def apply(layer: base_layer.BaseLayer, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
            outputs, _ = layer(x, paddings, mask, cross_inputs, cross_mask, segment_pos)
            return checkpoint_name(outputs, "transformer_layer_out")

        if self.remat:
            apply = nn.remat(apply, policy=custom_policy(self.checkpoint_policy))
        x = self.input_dropout(inputs) if self.input_dropout_prob > 0.0 else inputs
        for layer in self.x_layers:
            x = apply(layer, x)
        return x

    @property
    def takes_lazy_masks(self) -> bool:
        """Whether calls take an `AttentionMask` in place of an array."""
        return True

    def _attends_lazily(self, inputs: Array, cross_inputs: Array | None) -> bool:
        """Whether all layers take masks as rules, and never hold all logits."""
        source_len = None if cross_inputs is None else cross_inputs.shape[1]
        return all(
            hasattr(type(layer), "attends_lazily")
            and layer.attends_lazily(inputs.shape[1], source_len)
            for layer in self.x_layers
        )

    def _check_inputs(
        self, segment_mask: Any, cross_inputs: Array | None, cross_paddings: Array | None
    ) -> None:
        if self.packed_input and segment_mask is None:
            raise ValueError(
                f"{self.path_text}: segment_mask is None, but packed_input = True needs it. Make "
                "it from the segment ids, with attentions.segment_mask."
            )
        if self.use_cross_attention and (cross_inputs is None or cross_paddings is None):
            missing = "cross_inputs" if cross_inputs is None else "cross_paddings"
            raise ValueError(
                f"{self.path_text}: {missing} is None, but use_cross_attention = True needs it."
            )

    def init_states(self, *args: object, **kwargs: object) -> None:
        """Caches are made by a call over the prompt; this always raises."""
        raise NotImplementedError(
            f"{self.path_text}: init_states: call the layer on inputs of the full length with the "
            f"collection {base_layer.DECODE_CACHE!r} mutable instead; that creates the caches."
        )

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        atten_mask: Shaped[Array, "..."] | None = None,
        cross_paddings: Shaped[Array, "b S"] | None = None,
        cross_segment_mask: Shaped[Array, "_ 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layers to one decoding step, with their caches.

        Args:
          inputs: [B, D]; or [B, L, D], L steps, where the attention can do that.
          time_step: Where the (first) step goes in the caches.
          segment_pos: [B], position of the token in its segment, which is contiguous; None: there
            is one segment, and its position is `time_step`.
          atten_mask: [B, 1, T], or 1 for B, over the caches; None: the token sees its segment, up
            to itself.
          cross_paddings: [b, S], of what cross-attention attends to. B may be a multiple of b.
          cross_segment_mask: [b, 1, S], additive, of packed rows.

        Returns:
          Of the shape of the inputs.
        """
        if self.use_cross_attention and cross_paddings is None:
            raise ValueError(
                f"{self.path_text}: cross_paddings is None, but use_cross_attention = True needs "
                "it in extend_step."
            )
        cache_len = self.x_layers[0].decoding_sequence_length()
        segment_mask = None
        if atten_mask is None and segment_pos is not None:
            if segment_pos.ndim != 1:
                raise ValueError(
                    f"{self.path_text}: segment_pos has shape {segment_pos.shape}; without "
                    "atten_mask, extend_step takes one token, with segment_pos of shape [B]."
                )
            first = (time_step - segment_pos)[:, jnp.newaxis]  # [B, 1]
            in_segment = jnp.arange(cache_len)[jnp.newaxis] >= first  # [B, T]
            segment_mask = mask_from_keep(in_segment)[:, jnp.newaxis]
        mask, cross_mask = compute_attention_masks_for_extend_step(
            time_step, cache_len, segment_mask, cross_paddings, cross_segment_mask
        )
        x = inputs
        for layer in self.x_layers:
            x = layer.extend_step(
                x,
                time_step=time_step,
                segment_pos=segment_pos,
                attention_mask=mask if atten_mask is None else atten_mask,
                cross_attention_mask=cross_mask,
            )
        return x

    def decoding_sequence_length(self) -> int:
        """The number of time steps that the caches have room for."""
        return self.x_layers[0].decoding_sequence_length()

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each array of the caches by `transform_fn(array, batch_dim, time_dim)`."""
        for layer in self.x_layers:
            layer.transform_decode_state(transform_fn)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Keeps the caches as prefixes that samples share, and starts new ones for suffixes."""
        for layer in self.x_layers:
            layer.lazy_broadcast_prefix(num_suffix_samples, suffix_length)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Joins shared prefixes with the caches, and aligns the results."""
        for layer in self.x_layers:
            layer.right_align_decode_state_with_prefix(max_prefix_size, right_align_fn)
