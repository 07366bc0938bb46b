"""The feed-forward of a transformer layer as a mixture of experts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations, base_ops, normalizations, stochastics
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_last_axis
from praxis.layers.transformer import experts as moving
from praxis.layers.transformer.moe_checks import check_fields
from praxis.layers.transformer.moe_summaries import summarise_load, summarise_routing
from praxis.layers.transformer.norms import NORM_POLICIES
from praxis.utils import gating, routing

template_field = base_layer.template_field
WeightHParams = base_layer.WeightHParams
WeightInit = base_layer.WeightInit
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping

# Up to this many elements of a one-hot tensor, or of hidden activations of experts that see all
# tokens, "auto" takes the einsums.
LARGEST_EINSUM = 2**20
# These nonlinearities are never flat at 0: their units count as dead below this.
SMOOTH = (activations.GELU, activations.SiLU, activations.Swish)
SMOOTH_DEAD_THRESHOLD = 0.01


class TransformerFeedForwardMoe(base_layer.BaseLayer):
    """Computes `x + dropout(sum_e gate_e * activation(norm(x) wi_e) wo_e)`, over a few experts e.

    Lepikhin et al., "GShard", 2020, arXiv:2006.16668; Zhou et al., "Mixture-of-Experts with Expert
    Choice Routing", 2022, arXiv:2202.09368. The gated form is `activation(x wi_gate) * (x wi)` in
    the middle. Letters: D is `input_dims`, F is `hidden_dims`, E experts, G groups of S tokens, C
    places for the tokens of a group in an expert.

    `gating_func` is one of:
      "top2": the two most likely experts of each token, with weights that sum to 1. Tokens beyond
        C are dropped, in the order of the tokens, second choices first.
      "top_k": likewise, for `experts_per_token`; no token is dropped if neither capacity is set,
        which is the routing of Jiang et al., "Mixtral of Experts", 2024, arXiv:2401.04088.
      "dense_top2": all experts compute all tokens, none of which is dropped. For decoding.
      "expert_choice": each expert takes the `S // E * factor` tokens that prefer it most. It sees
        the whole group, future tokens too.
      "expert_choice_v2": likewise, with the capacity of "top2"; padding takes no places.

    Attributes:
      input_dims: D, at least 1. Required.
      hidden_dims: F, at least 1. Required.
      num_experts: E, at least 1. Required.
      num_groups: G, which has to divide the number of tokens, at least 1. Required.
      min_group_size: Smallest S: fewer groups are made of few tokens. None does not limit it.
      expert_capacity_dim: Least C.
      unadjusted_expert_capacity_factor: C over S / E; C is rounded up to a multiple of 4. 0: C is
        `expert_capacity_dim`.
      gating_func: How tokens and experts find each other, see above.
      experts_per_token: Number of experts of a token, of "top_k".
      normalize_gates: Whether the weights of these sum to 1, of "top_k".
      padding_takes_places: Whether the experts of "expert_choice" may choose padding in place of
        tokens, as they did when models in use were trained; False makes the best of the capacity.
      gating_logit_cap: Bound of the logits of the experts, by a tanh, but for "expert_choice"; 0:
        none.
      moe_gating_embedding_level: "token" routes each token by itself; "sentence" by the mean of
        its segment, future tokens too.
      second_expert_policy: Which second expert "top2" takes: "all" the second most likely one;
        "sampling" one sampled by its probability; "random" the second most likely one, with
        probability weight / `second_expert_threshold`.
      second_expert_threshold: Weight from which on "random" always takes a second expert.
      moe_load_balance_loss_weight: Weight of the auxiliary loss, at least 0.
      dispatch: How tokens get to experts and back: "einsum" multiplies by one-hot tensors [G, S, E,
        C]; "sort" gathers, with the same result. Where no token is dropped, "einsum" lets all
        experts compute all tokens, and "sort" multiplies by `jax.lax.ragged_dot` in place of the
        operations of the config. "auto" chooses by size, and takes "einsum" if operations are
        replaced.
      expert_weight_shards: 1.
      activation_tpl: Config of the nonlinearity.
      use_gated_activation: Multiply by a gate, which then has the nonlinearity.
      einsum_tpl: Config of the operation that multiplies arrays.
      einsum_gated_tpl: Config of the operation that multiplies by the gate's weights too.
      norm_policy: "pre" normalises x; "post" normalises what is added to x; "primer_hybrid" both.
      ln_tpl: Config of the normalization. D is filled in.
      add_skip_connection: Whether to add x.
      residual_weight: Factor of what is added to x.
      apply_padding_first: Make padded inputs 0 too.
      relu_dropout_tpl: Config of the dropout after the nonlinearity.
      relu_dropout_prob: Probability of dropping there.
      residual_dropout_tpl: Config of the dropout of what is added to x.
      residual_dropout_prob: Probability of dropping there.
      residual_droppath_prob: Probability of adding nothing to an example's x.
      internal_gshard_variance_scaling_fan_in_init: Start the weights uniformly between
        -sqrt(3 / fan_in) and sqrt(3 / fan_in).
      explicit_fan_in_fan_out_axes: Otherwise, tell the initializer which axes are the fans.

    Variables:
      layer_norm, or pre_layer_norm and post_layer_norm for "primer_hybrid"
      gate: [D, E]
      wi_0: [E, D, F]
      wi_gate_0: [E, D, F], with `use_gated_activation`
      wo_0: [E, F, D]

    Raises:
      ValueError: during setup, if a size is missing, a name is not known or options contradict
        each other; in `__call__`, if the last axis of the inputs is not D, or the groups do not
        divide the tokens.
    """

    input_dims: int = 0
    hidden_dims: int = 0
    apply_padding_first: bool = False
    ln_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(activations.ReLU)
    use_gated_activation: bool = False
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    einsum_gated_tpl: LayerTpl = template_field(base_ops.EinsumGatedOp)
    relu_dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    relu_dropout_prob: float = 0.0
    residual_dropout_tpl: LayerTpl = template_field(stochastics.Dropout)
    residual_dropout_prob: float = 0.0
    add_skip_connection: bool = True
    residual_weight: float = 1.0
    residual_droppath_prob: float = 0.0
    norm_policy: str = "pre"
    gating_func: str = "top2"
    experts_per_token: int = 2
    normalize_gates: bool = True
    padding_takes_places: bool = True
    num_experts: int = 0
    num_groups: int = 0
    min_group_size: int | None = None
    expert_capacity_dim: int = 0
    unadjusted_expert_capacity_factor: float = 2.0
    expert_weight_shards: int = 1
    second_expert_policy: str = "all"
    second_expert_threshold: float = 0.0
    moe_load_balance_loss_weight: float = 1.0
    gating_logit_cap: float = 0.0
    moe_gating_embedding_level: str = "token"
    dispatch: str = "auto"
    internal_gshard_variance_scaling_fan_in_init: bool = True
    explicit_fan_in_fan_out_axes: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the weights.

        Attributes:
          me: Of gate, [D, E].
          emh: Of wi_0 and wi_gate_0, [E, D, F].
          ehm: Of wo_0, [E, F, D].
        """

        me: SplitDimsMapping = None
        emh: SplitDimsMapping = None
        ehm: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          gs: Of the paddings, [G, S].
          gsm: Of the tokens and the outputs, [G, S, D].
          gsec: Of the one-hot tensors, [G, S, E, C].
          gecs: Of the one-hot tensor of experts that choose, [G, E, C, S].
          gec: Of the weights of their choices, [G, E, C].
          egcm: Of the inputs of the experts, [E, G, C, D].
          egch: Of their hidden activations, [E, G, C, F].
          gecm: Of their outputs, [G, E, C, D].
        """

        gs: SplitDimsMapping = None
        gsm: SplitDimsMapping = None
        gsec: SplitDimsMapping = None
        gecs: SplitDimsMapping = None
        gec: SplitDimsMapping = None
        egcm: SplitDimsMapping = None
        egch: SplitDimsMapping = None
        gecm: SplitDimsMapping = None

    # ---- set-up ---------------------------------------------------------------------------------

    def setup(self) -> None:
        check_fields(self)
        for name in NORM_POLICIES[self.norm_policy].names("layer_norm"):
            self.create_child(name, self.ln_tpl.clone().set(dim=self.input_dims))
        for name in ("relu_dropout", "residual_dropout"):
            template = getattr(self, f"{name}_tpl").clone()
            self.create_child(name, template.set(keep_prob=1.0 - getattr(self, f"{name}_prob")))
        if self.residual_droppath_prob > 0.0:
            self.create_child(
                "residual_droppath",
                pax_fiddle.Config(
                    stochastics.StochasticResidual,
                    survival_prob=1.0 - self.residual_droppath_prob,
                    residual_weight=self.residual_weight,
                ),
            )
        self.create_child("activation", self.activation_tpl.clone())
        self._create_weights()
        for name in ("dispatch_einsum", "ffn1_einsum", "ffn2_einsum", "combine_einsum"):
            self.create_child(name, self.einsum_tpl.clone())
        self.create_child("gated_ffn1_einsum", self.einsum_gated_tpl.clone())

    @property
    def has_capacity(self) -> bool:
        """Whether the number of places of an expert is set."""
        return bool(self.unadjusted_expert_capacity_factor or self.expert_capacity_dim)

    @property
    def is_limited(self) -> bool:
        """Whether an expert gets a limited number of tokens."""
        return self.gating_func != "dense_top2" and self.has_capacity

    @property
    def plain_einsums(self) -> bool:
        """Whether the operations are the plain ones."""
        templates = (self.einsum_tpl, self.einsum_gated_tpl)
        return [template.cls for template in templates] == [
            base_ops.EinsumOp,
            base_ops.EinsumGatedOp,
        ]

    def _create_weights(self) -> None:
        shardings = self.weight_split_dims_mapping
        sizes = {"m": self.input_dims, "h": self.hidden_dims, "e": self.num_experts}
        names = {"gate": "me", "wi_gate_0": "emh", "wi_0": "emh", "wo_0": "ehm"}
        for name, dims in names.items():
            if name == "wi_gate_0" and not self.use_gated_activation:
                continue
            fan_in = sizes[dims[-2]]
            init = None
            fans: dict[str, Any] = {}
            if self.internal_gshard_variance_scaling_fan_in_init:
                init = WeightInit.Uniform(math.sqrt(3.0 / fan_in))
            elif self.explicit_fan_in_fan_out_axes:
                fans = {"fan_in_axes": [-2], "fan_out_axes": [-1]}
            self.create_variable(
                name,
                WeightHParams(
                    shape=[sizes[dim] for dim in dims],
                    init=init,
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=getattr(shardings, dims),
                    **fans,
                ),
            )

    # ---- calls ----------------------------------------------------------------------------------

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        paddings: Shaped[Array, "*B"] | None = None,
        segment_ids: Int[Array, "*B"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layer.

        Args:
          inputs: [..., D].
          paddings: [...], 1 marks padding; None: there is none.
          segment_ids: [...], for the gating level "sentence", 0 marks padding; None: each row
            without its padding is a segment.

        Returns:
          [..., D].
        """
        check_last_axis(self, inputs, "input_dims")

        def hide(x: Float[Array, "..."]) -> Float[Array, "..."]:
            return x if paddings is None else py_utils.apply_padding(x, paddings, axis=0)

        if self.apply_padding_first:
            inputs = hide(inputs)
        policy = NORM_POLICIES[self.norm_policy]
        normed = policy.before(self, "layer_norm", inputs)
        outputs = hide(self._mix(normed, paddings, segment_ids))
        outputs = self.residual_dropout(policy.after(self, "layer_norm", outputs))
        if not self.add_skip_connection:
            return outputs
        if self.residual_droppath_prob > 0.0:
            return self.residual_droppath(inputs, outputs)
        return inputs + self.residual_weight * outputs

    def extend_step(
        self, inputs: Float[Array, "*B D"], *, time_step: TimeStep
    ) -> Float[Array, "*B D"]:
        """Applies the layer to one decoding step, [B, D], or several, [B, L, D].

        The tokens of the step make up the groups, with their capacity.
        """
        del time_step
        return self(inputs)

    def _mix(
        self,
        x: Float[Array, "*B D"],
        paddings: Shaped[Array, "*B"] | None,
        segment_ids: Int[Array, "*B"] | None,
    ) -> Float[Array, "*B D"]:
        """What the experts make of the tokens."""
        num_tokens = math.prod(x.shape[:-1])
        groups = moving.count_groups(self, num_tokens, self.num_groups, self.min_group_size)
        tokens = self._shard(x.reshape(groups, -1, self.input_dims), "gsm")
        if paddings is not None:
            paddings = self._shard(paddings.reshape(groups, -1), "gs")
        looked_at = self._what_gate_sees(x, paddings, segment_ids).reshape(tokens.shape)
        logits = jnp.einsum(
            "gsm,me->gse",
            looked_at.astype(tokens.dtype),
            self.theta.gate,
            preferred_element_type=jnp.float32,
        )
        if self.gating_func in ("expert_choice", "expert_choice_v2"):
            loss, outputs = self._let_experts_choose(tokens, logits, paddings)
        elif self.is_limited:
            loss, outputs = self._let_tokens_choose(tokens, logits, paddings)
        else:
            loss, outputs = self._drop_nothing(tokens, logits, paddings)
        loss = (self.moe_load_balance_loss_weight * loss).astype(self.fprop_dtype)
        self.add_summary("aux_moe_load_balance_loss", loss)
        self.add_aux_loss("aux_moe_load_balance_loss", loss)
        return self._shard(outputs, "gsm").reshape(x.shape)

    def _what_gate_sees(
        self,
        x: Float[Array, "*B D"],
        paddings: Shaped[Array, "G S"] | None,
        segment_ids: Int[Array, "*B"] | None,
    ) -> Float[Array, "..."]:
        """The tokens, or the means of their segments."""
        if self.moe_gating_embedding_level == "token" or x.ndim != 3:
            return x
        if segment_ids is None:
            segment_ids = jnp.ones(x.shape[:2], jnp.int32)
            if paddings is not None:
                segment_ids = (paddings.reshape(x.shape[:2]) <= 0).astype(jnp.int32)
        return moving.segment_means(x, segment_ids)

    def _shard(self, x: Shaped[Array, "..."], dims: str) -> Shaped[Array, "..."]:
        mapping = getattr(self.activation_split_dims_mapping, dims)
        return base_layer.maybe_shard(x, mapping, self.mesh_axis_names)

    def _shard_by_group(self, x: Shaped[Array, "..."], dims: str) -> Shaped[Array, "..."]:
        """Annotates what is sent to or comes from experts as the tokens are: split by group.

        Between this and a split by expert each device keeps a part of what it has for each other
        one, which is an all-to-all. Without it the compiler is free to gather all tokens instead.

        Args:
          x: Dims E or 1, G, C and M in the order of `dims`.
          dims: "egcm" or "gecm".
        """
        tokens = self.activation_split_dims_mapping.gsm
        if tokens is None:
            return x
        group, _, width = tokens
        entries = {"e": None, "g": group, "c": None, "m": width}
        return base_layer.maybe_shard(x, [entries[dim] for dim in dims], self.mesh_axis_names)

    def _by_einsum(self, elements: int) -> bool:
        """Whether to dispatch by einsums, of a tensor with so many elements."""
        if self.dispatch == "auto":
            return elements <= LARGEST_EINSUM or not self.plain_einsums
        return self.dispatch == "einsum"

    # ---- ways to route --------------------------------------------------------------------------

    def _let_tokens_choose(
        self,
        tokens: Float[Array, "G S D"],
        logits: Float[Array, "G S E"],
        paddings: Shaped[Array, "G S"] | None,
    ) -> tuple[Float[Array, ""], Float[Array, "G S D"]]:
        capacity = routing.expert_capacity(
            tokens.shape[1],
            self.num_experts,
            self.expert_capacity_dim,
            self.unadjusted_expert_capacity_factor,
        )
        options: dict[str, Any] = {"capacity": max(capacity, 1), "logit_cap": self.gating_logit_cap}
        if self.gating_func == "top2":
            policy = self.second_expert_policy
            loss, routed = gating.route_top2(
                paddings,
                logits,
                key=None if policy == "all" else self.next_prng_key(),
                policy=policy,
                threshold=self.second_expert_threshold,
                **options,
            )
        else:
            loss, routed = gating.route_top_k(
                paddings,
                logits,
                num_choices=self.experts_per_token,
                normalized=self.normalize_gates,
                **options,
            )
        summarise_routing(self, routed)
        if not self._by_einsum(tokens.shape[1] * routed.slots.size):
            gathered = moving.tokens_in_places(tokens, routed.slots)
            outputs = self._apply_experts(gathered.swapaxes(0, 1), count_dead=True)
            outputs = self._shard_by_group(outputs.swapaxes(0, 1), "gecm")
            return loss, moving.combine_places(outputs, routed)
        one_hot = routing.dispatch_and_combine(routed)
        return loss, self._by_one_hot(tokens, *one_hot, count_dead=True)

    def _let_experts_choose(
        self,
        tokens: Float[Array, "G S D"],
        logits: Float[Array, "G S E"],
        paddings: Shaped[Array, "G S"] | None,
    ) -> tuple[Float[Array, ""], Float[Array, "G S D"]]:
        sizes = (
            tokens.shape[1],
            self.num_experts,
            self.expert_capacity_dim,
            self.unadjusted_expert_capacity_factor,
        )
        second = self.gating_func == "expert_choice_v2"
        capacity = (routing.expert_capacity if second else gating.tokens_per_expert)(*sizes)
        chosen = routing.choose_tokens(
            routing.cap_logits(logits, self.gating_logit_cap if second else 0.0),
            paddings if second or not self.padding_takes_places else None,
            capacity=max(capacity, 1),
        )
        zero = jnp.zeros([])
        if not self._by_einsum(tokens.shape[1] * chosen.tokens.size):
            gathered = moving.tokens_in_places(tokens, chosen.tokens)
            outputs = self._apply_experts(gathered.swapaxes(0, 1), count_dead=second)
            outputs = self._shard(outputs.swapaxes(0, 1), "gecm")
            outputs = self._shard_by_group(outputs, "gecm")
            return zero, moving.add_to_tokens(outputs, chosen, tokens.shape[1])
        one_hot = jax.nn.one_hot(chosen.tokens, tokens.shape[1])  # [G, E, C, S]
        if second:
            dispatch = jnp.moveaxis(one_hot, -1, 1)
            combine = dispatch * chosen.weights[:, jnp.newaxis]
            return zero, self._by_one_hot(tokens, dispatch, combine, count_dead=True)
        one_hot = self._shard(one_hot.astype(tokens.dtype), "gecs")
        weights = self._shard(chosen.weights.astype(tokens.dtype), "gec")
        inputs = self.dispatch_einsum("gecs,gsm->egcm", one_hot, tokens)
        outputs = self._apply_experts(inputs, count_dead=False)
        weighted = outputs.swapaxes(0, 1) * weights[..., jnp.newaxis]
        weighted = self._shard_by_group(self._shard(weighted, "gecm"), "gecm")
        return zero, self.combine_einsum("gecm,gecs->gsm", weighted, one_hot)

    def _drop_nothing(
        self,
        tokens: Float[Array, "G S D"],
        logits: Float[Array, "G S E"],
        paddings: Shaped[Array, "G S"] | None,
    ) -> tuple[Float[Array, ""], Float[Array, "G S D"]]:
        logits = routing.cap_logits(logits, self.gating_logit_cap)
        is_top2 = self.gating_func == "dense_top2"
        experts, weights, wanted = routing.choose_experts(
            logits,
            paddings,
            num_choices=2 if is_top2 else self.experts_per_token,
            normalized=is_top2 or self.normalize_gates,
        )
        loss = jnp.zeros([])
        if not is_top2:
            probs = routing.gate_probs(logits, paddings)
            loss = routing.load_balance_loss(probs, experts[..., 0], wanted[..., 0])
            summarise_load(self, experts, wanted, self.num_experts)
        if self._by_einsum(logits.size * self.hidden_dims):
            chosen = jax.nn.one_hot(experts, self.num_experts)
            gates = jnp.einsum("gske,gsk->gse", chosen, weights)
            outputs = self._apply_experts(tokens[jnp.newaxis], count_dead=False, same=True)
            outputs = self._shard(outputs.swapaxes(0, 1), "gecm")
            return loss, self.combine_einsum("gesm,gse->gsm", outputs, gates.astype(tokens.dtype))
        flat = moving.apply_by_expert(
            self._apply_experts_to_rows,
            tokens.reshape(-1, self.input_dims),
            experts.reshape(-1, experts.shape[-1]),
            weights.reshape(-1, experts.shape[-1]),
            self.num_experts,
        )
        return loss, flat.reshape(tokens.shape)

    # ---- the experts ----------------------------------------------------------------------------

    def _by_one_hot(
        self,
        tokens: Float[Array, "G S D"],
        dispatch: Float[Array, "G S E C"],
        combine: Float[Array, "G S E C"],
        *,
        count_dead: bool,
    ) -> Float[Array, "G S D"]:
        dispatch = self._shard(dispatch.astype(tokens.dtype), "gsec")
        combine = self._shard(combine.astype(tokens.dtype), "gsec")
        inputs = self.dispatch_einsum("gsec,gsm->egcm", dispatch, tokens)
        outputs = self._apply_experts(inputs, count_dead=count_dead).swapaxes(0, 1)
        outputs = self._shard_by_group(self._shard(outputs, "gecm"), "gecm")
        return self.combine_einsum("gecm,gsec->gsm", outputs, combine)

    def _apply_experts(
        self, inputs: Float[Array, "_ G C D"], *, count_dead: bool, same: bool = False
    ) -> Float[Array, "E G C D"]:
        """The feed-forward of each expert.

        Args:
          inputs: [E, G, C, D]; or [1, G, C, D] with `same`.
          count_dead: Whether to count units that no token uses.
          same: All experts get the same inputs.
        """
        if same:
            inputs, equation = inputs[0], "gcm,emh->egch"
        else:
            inputs = self._shard(self._shard_by_group(inputs, "egcm"), "egcm")
            equation = "egcm,emh->egch"
        theta = self.theta
        if self.use_gated_activation:
            hidden, gate = self.gated_ffn1_einsum(equation, inputs, theta.wi_0, theta.wi_gate_0)
            activated = self.activation(self._shard(gate, "egch"))
            hidden = activated * self._shard(hidden, "egch")
        else:
            hidden = self.ffn1_einsum(equation, inputs, theta.wi_0)
            hidden = activated = self.activation(self._shard(hidden, "egch"))
        if count_dead:
            cls = self.activation_tpl.cls
            threshold = SMOOTH_DEAD_THRESHOLD if issubclass(cls, SMOOTH) else 0.0
            self.add_summary(
                f"dead_{cls.__name__}_count",
                lambda: moving.count_dead_units(activated, threshold),
            )
        outputs = self.ffn2_einsum("egch,ehm->egcm", self.relu_dropout(hidden), theta.wo_0)
        return self._shard(outputs, "egcm")

    def _apply_experts_to_rows(
        self, rows: Float[Array, "M D"], sizes: Int[Array, " E"]
    ) -> Float[Array, "M D"]:
        """The feed-forward of each expert on its rows, of which it has as many as `sizes` says."""
        theta = self.theta
        hidden = jax.lax.ragged_dot(rows, theta.wi_0, sizes)
        if self.use_gated_activation:
            hidden = self.activation(jax.lax.ragged_dot(rows, theta.wi_gate_0, sizes)) * hidden
        else:
            hidden = self.activation(hidden)
        return jax.lax.ragged_dot(self.relu_dropout(hidden), theta.wo_0, sizes)
