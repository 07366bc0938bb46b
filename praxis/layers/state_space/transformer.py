"""A transformer layer with a state space layer in place of self-attention."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.mask_spec import Mask
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.state_space.ssm import SSM, STATE
from praxis.layers.transformer.block import Transformer
from praxis.layers.transformer.norms import check_norm_policy

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
DecodeStateTransformFn = base_layer.DecodeStateTransformFn

BEFORE_LAST = "state_before_last"
LAST_STEP = "last_step"
NO_STEP = -1


def padding_before_frames(paddings: Shaped[Array, "B T"]) -> Shaped[Array, "B T"]:
    """True at padding that a later frame of the row could see."""
    is_padding = (paddings > 0).astype(jnp.int32)
    frame_follows = lax.cummax(1 - is_padding, axis=1, reverse=True)
    return is_padding * frame_follows > 0


class SSMTransformer(Transformer):
    """A transformer layer whose self-attention is a causal state space layer.

    Masks and segment ids are not read: a frame sees all frames before it, also those of other
    examples in packed rows. Frames do not see padding, up to rounding. Shapes: D is `input_dims`.

    Steps continue a call over a prompt, from time step T - 1 (the last of the prompt again, as
    decoders do) or T. Time step 0 starts anew.

    Attributes:
      ssm_tpl: Config of the state space layer. The fields that follow are filled in.
      ssm_nheads: Complex numbers in the state of a channel. Required.
      ssm_dim: D. Required.
      ssm_l_max: Most time steps of a sequence. Required.
      ssm_step_size: Time between two steps.
      ssm_hippo_type: Which poles the state has.
      decode_num_samples: Steps may have so many times the rows of the call before; the state then
        is repeated for the first of them. Decoders repeat it themselves, with
        `transform_decode_state`, for any number of samples.

    Variables:
      ssm
      all others as `Transformer`

    Decode state:
      ssm/ssm_state: [B, ...], after the last step
      state_before_last: [B, ...], the one before
      last_step: [], time step of the last step of the call; -1 after steps

    Raises:
      ValueError: during setup, if a size is missing or `ssm_dim` is not `input_dims`; in calls, as
        `Transformer`, or for inputs longer than `ssm_l_max`.
    """

    ssm_tpl: LayerTpl = template_field(SSM)
    ssm_nheads: int = 0
    ssm_dim: int = 0
    ssm_l_max: int = 0
    decode_num_samples: int = 4
    ssm_hippo_type: str = "ss4d-1d-legs"
    ssm_step_size: float = 0.1

    def setup(self) -> None:
        check_sizes(self, "hidden_dims")
        self._create_mixer()
        if self.ssm_dim != self.input_dims:
            raise ValueError(
                f"{self.path_text}: ssm_dim = {self.ssm_dim} is not input_dims = "
                f"{self.input_dims}. Set ssm_dim to {self.input_dims}."
            )
        self._create_feed_forward()

    def _create_mixer(self) -> None:
        """Creates all children but the feed-forward."""
        check_sizes(self, "input_dims", "ssm_nheads", "ssm_dim", "ssm_l_max")
        check_norm_policy(self)
        self._create_norms("layer_norm")
        self.create_child(
            "ssm",
            self.ssm_tpl.clone().set(
                nheads=self.ssm_nheads,
                dim=self.ssm_dim,
                l_max=self.ssm_l_max,
                hippo_type=self.ssm_hippo_type,
                step_size=self.ssm_step_size,
                # One state for each row: `transform_decode_state` repeats it for samples.
                decode_num_samples=0,
            ),
        )
        self._create_cross_attention()
        self._create_residuals()

    @nn.nowrap
    def attends_lazily(self, target_len: int, source_len: int | None) -> bool:
        """Whether calls need no array of T by S; see `Transformer`."""
        # The mask of self-attention is not read.
        return not self.use_cross_attention or super().attends_lazily(target_len, source_len)

    # ---- whole sequences ------------------------------------------------------------------------

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # public API: no probabilities
        self,
        inputs: Float[Array, "B T D"],
        paddings: Shaped[Array, "B T"],
        attention_mask: Mask | None,
        cross_inputs: Float[Array, "B S _"] | None = None,
        cross_attention_mask: Mask | None = None,
        segment_pos: Int[Array, "_ T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], None]:
        """Applies the layer.

        Args:
          inputs: [B, T, D].
          paddings: [B, T], 1 marks padding.
          attention_mask: Not read.
          cross_inputs: [B, S, D], what cross-attention attends to.
          cross_attention_mask: [B, 1, T, S], as in `Transformer`.
          segment_pos: [B, T], positions for cross-attention; None: 0 to T - 1.
          segment_ids: Not read.

        Returns:
          The outputs [B, T, D], and None, for there are no attention probabilities.
        """
        del attention_mask, segment_ids
        check_last_axis(self, inputs, "input_dims")
        self._summarise_inputs(inputs)
        mixed = self._mix(self._policy.before(self, "layer_norm", inputs), paddings)
        x = self._add(inputs, mixed, "layer_norm")
        x, _ = self._attend_across(x, cross_inputs, cross_attention_mask, segment_pos)
        return self.ff_layer(x, paddings), None

    def _mix(
        self, inputs: Float[Array, "B T E"], paddings: Shaped[Array, "B T"]
    ) -> Float[Array, "B T E"]:
        """The state space layer without what is padding; keeps its states for steps."""
        hidden = padding_before_frames(paddings)[..., jnp.newaxis]
        inputs = jnp.where(hidden, jnp.zeros_like(inputs), inputs)
        outputs = self.ssm(inputs)
        if self.is_mutable_collection(base_layer.DECODE_CACHE):
            states = self.ssm.prefill(inputs)
            self.update_decode_state(BEFORE_LAST, states.before_last)
            self.ssm.update_decode_state(STATE, states.last)
            last_step = jnp.asarray(inputs.shape[1] - 1, jnp.int32)
            self.update_decode_state(LAST_STEP, last_step)
        return outputs

    # ---- decoding -------------------------------------------------------------------------------

    def init_states(self, target_batch_size: int, target_max_length: int) -> None:
        """Makes decode states of rows without any steps."""
        del target_max_length
        self.ssm.init_states(target_batch_size)
        self.update_decode_state(BEFORE_LAST, self.ssm.get_decode_state(STATE))
        self.update_decode_state(LAST_STEP, jnp.asarray(NO_STEP, jnp.int32))

    def extend_step(
        self,
        inputs: Float[Array, "*B D"],
        *,
        time_step: TimeStep,
        segment_pos: Int[Array, "*B"] | None = None,
        attention_mask: Shaped[Array, "..."] | None,
        cross_attention_mask: Shaped[Array, "_ 1 1 S"] | None = None,
    ) -> Float[Array, "*B D"]:
        """Applies the layer to one decoding step, or several, with the states so far.

        Args:
          inputs: [B, D]; or [B, L, D], L steps.
          time_step: The (first) step; 0 forgets the states.
          segment_pos: [B] or [B, L], position in the segment for cross-attention.
          attention_mask: Not read.
          cross_attention_mask: [b, 1, 1, S], as in `Transformer`.

        Returns:
          Of the shape of the inputs.
        """
        del attention_mask
        check_last_axis(self, inputs, "input_dims")
        normed = self._policy.before(self, "layer_norm", inputs)
        x = self._add_step(inputs, self._mix_step(normed, time_step), "layer_norm")
        x = self._extend_across(x, cross_attention_mask, time_step, segment_pos)
        return self.ff_layer.extend_step(x, time_step=time_step)

    def _mix_step(self, inputs: Float[Array, "*B E"], time_step: TimeStep) -> Float[Array, "*B E"]:
        """The state space layer, from the state before the step."""
        states = [self.get_decode_state(BEFORE_LAST), self.ssm.get_decode_state(STATE)]
        if inputs.shape[0] == states[0].shape[0] * self.decode_num_samples:
            states = [jnp.repeat(state, self.decode_num_samples, axis=0) for state in states]
        before_last, state = states
        state = jnp.where(self.get_decode_state(LAST_STEP) == time_step, before_last, state)
        state = jnp.where(time_step == 0, jnp.zeros_like(state), state)
        self.update_decode_state(BEFORE_LAST, before_last)
        self.update_decode_state(LAST_STEP, jnp.asarray(NO_STEP, jnp.int32))
        return self.ssm.extend_from(state, inputs)

    def decoding_sequence_length(self) -> int:
        """The most time steps of a sequence, `ssm_l_max`."""
        return self.ssm_l_max

    def transform_decode_state(self, transform_fn: DecodeStateTransformFn) -> None:
        """Replaces each state, which has no time axis, by `transform_fn(state, 0, -1)`."""
        self.ssm.transform_decode_state(transform_fn)
        before_last = transform_fn(self.get_decode_state(BEFORE_LAST), 0, -1)
        self.update_decode_state(BEFORE_LAST, before_last)

    def lazy_broadcast_prefix(self, num_suffix_samples: int, suffix_length: int) -> None:
        """Repeats the states for each sample, so that the samples of a row are neighbours."""
        del suffix_length

        def repeat(x: Any, batch_dim: int, time_dim: int) -> Any:
            del time_dim
            return jnp.repeat(x, num_suffix_samples, axis=batch_dim)

        self.transform_decode_state(repeat)

    def right_align_decode_state_with_prefix(
        self, max_prefix_size: int, right_align_fn: DecodeStateTransformFn
    ) -> None:
        """Does nothing: the states have no time axis."""
