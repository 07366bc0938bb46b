"""Continuous batching: prompts enter a running batch as soon as one of its slots is free."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Shaped

from praxis import base_layer, py_utils
from praxis.decoding import slots
from praxis.decoding.options import DecoderHParams, SampleDecoderHParams
from praxis.layers.model import generate
from praxis.layers.model.language import LanguageModel
from praxis.layers.transformer.stack import StackedTransformer

NestedMap = py_utils.NestedMap
DECODE_CACHE = base_layer.DECODE_CACHE
# What a state says of each of its rows.
OF_ROWS = (
    "per_sample_steps",
    "done",
    "has_eos",
    "prefix_lengths",
    "segment_pos",
    "decode_lengths",
    "output_ids",
    "logprobs",
    "temperature",
    "per_example_max_decode_steps",
    "per_example_top_p",
    "per_example_top_k",
)


class LanguageModelContinuousBatching(LanguageModel):
    """Generates in slots that start and end on their own, one sequence in each.

    All slots share the time step, and each sequence ends there: its caches are the entries before
    it. Call `sample_init_decode_state` once; for each prompt `sample_prefill`, in an `apply` of its
    own whose caches go to `sample_insert`; and `sample_generate` for each token of all slots. When
    the step reaches the end of the caches, `sample_generate(..., align_decode_state=True)` makes
    room. Yu et al., "Orca", 2022, is about such scheduling. Shapes: N `num_cache_slots`, S
    `seqlen`, P width of the prompts.

    Raises:
      ValueError: for settings without slots or room, or a model whose layers are not a plain
        `StackedTransformer`.
    """

    def sample_init_decode_state(
        self, decode_data: NestedMap, decoder_params: DecoderHParams
    ) -> NestedMap:
        """Makes caches [N, S, ...] and the state of slots that are all free.

        Args:
          decode_data: A batch, whose `ids` [..., P] give the width of the widest prompts.
          decoder_params: `num_cache_slots`, `seqlen` and `max_decode_steps`.

        Returns:
          The state, as of `praxis.decoding.slots.sample_init_decode_state`, and `max_prefix_len`
          [], which is P.
        """
        num_slots, width = decoder_params.num_cache_slots, decode_data.ids.shape[-1]
        if num_slots < 1:
            raise ValueError(
                f"{self.path_text}: num_cache_slots is {num_slots}, expected at least 1. Set it in "
                "the decoder's settings."
            )
        if decoder_params.seqlen <= width:
            raise ValueError(
                f"{self.path_text}: seqlen is {decoder_params.seqlen}, expected more than the "
                f"{width} tokens of a prompt: the caches hold prompts and what follows."
            )
        ids = jnp.zeros((num_slots, width), jnp.int32)
        self.lm(ids, jnp.ones(ids.shape, self.fprop_dtype), start_time_step=width)
        state = self._new_state(ids, decoder_params, jnp.zeros((num_slots,), jnp.int32))
        room = decoder_params.seqlen - width

        def grow(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
            pads = [(0, room if axis == time_dim else 0) for axis in range(x.ndim)]
            return x if time_dim < 0 else jnp.pad(x, pads)

        self.lm.transform_decode_state(grow)
        # The step never falls below this, so that there is room for a prompt before it.
        state.max_prefix_len = jnp.asarray(width, jnp.int32)
        state.step = state.max_prefix_len
        state.done = jnp.ones((num_slots,), jnp.bool)
        return state

    def sample_prefill(self, input_batch: NestedMap, decoder_params: DecoderHParams) -> NestedMap:
        """Fills caches with prompts, and generates the first token of each.

        Args:
          input_batch: `ids` and `paddings` [B, P]; maybe `temperature`,
            `per_example_max_decode_steps`, `per_example_top_p` and `per_example_top_k`, all [B].
          decoder_params: How to sample.

        Returns:
          The state of the B rows after that token. The caches are in the collection
          `decoder_cache` of the same `apply`.
        """
        options = decoder_params.clone()
        options.fprop_for_prefix = True
        width = input_batch.ids.shape[1]
        arguments = generate.arguments_for(self, options, input_batch, None)
        ids = arguments["prefix_ids"][:, :width]
        arguments["fprop_fn"](self.lm, ids, arguments["prefix_paddings"][:, :width])
        state = self._new_state(ids, decoder_params, arguments["prefix_lengths"])
        for name in OF_ROWS[-4:]:
            if name in input_batch:
                state[name] = jnp.asarray(input_batch[name], state[name].dtype)
        return self._step(state, decoder_params)

    def sample_insert(
        self,
        decoder_params: DecoderHParams,
        prefix_decode_state: NestedMap,
        prefix_decode_cache: Mapping[str, Any],
        decode_state: NestedMap,
        prefix_slot: int | Int[Array, ""],
        slot: int | Int[Array, ""],
    ) -> NestedMap:
        """Puts a prompt into a slot, so that it ends at the step of all.

        Args:
          decoder_params: Not read.
          prefix_decode_state: Of `sample_prefill`.
          prefix_decode_cache: The caches of the same `apply`, a tree like `decoder_cache`.
          decode_state: Of the slots.
          prefix_slot: The row of the prompt.
          slot: The slot.

        Returns:
          The state of the slots.
        """
        del decoder_params
        source = prefix_decode_cache.get(DECODE_CACHE, prefix_decode_cache)
        step = decode_state.step
        for path, attention in self._attentions():
            given = source
            for name in path:
                given = given[name]
            for name, cache in attention.variables[DECODE_CACHE].items():
                row = lax.dynamic_index_in_dim(given[name], prefix_slot, axis=0)
                start = (slot, step - row.shape[1]) + (0,) * (cache.ndim - 2)
                row = row.astype(cache.dtype)
                attention.update_decode_state(name, lax.dynamic_update_slice(cache, row, start))
        state = NestedMap(decode_state)
        for name in OF_ROWS:
            row = lax.dynamic_index_in_dim(prefix_decode_state[name], prefix_slot, keepdims=False)
            state[name] = state[name].at[slot].set(row.astype(state[name].dtype))
        return state

    def left_align_decode_state(
        self,
        max_prefix_len: int | Int[Array, ""],
        max_decode_steps: int,
        decode_state: NestedMap,
        batch_size: int,
    ) -> NestedMap:
        """Moves all caches to the left, until the longest live sequence starts there.

        Args:
          max_prefix_len: P; the step stays at least that, for prompts to come.
          max_decode_steps: Not read.
          decode_state: Of the slots.
          batch_size: Not read.

        Returns:
          The state, with the new step.
        """
        del max_decode_steps, batch_size
        lengths = jnp.where(decode_state.done, 0, decode_state.segment_pos)
        step = jnp.minimum(jnp.maximum(jnp.max(lengths), max_prefix_len), decode_state.step)
        shift = decode_state.step - step

        def move(x: Shaped[Array, "..."], batch_dim: int, time_dim: int) -> Shaped[Array, "..."]:
            # What comes in at the right end is behind the step, and written before it is read.
            return x if time_dim < 0 else jnp.roll(x, -shift, axis=time_dim)

        self.lm.transform_decode_state(move)
        return NestedMap(decode_state) | {"step": step}

    def sample_generate(
        self,
        decode_state: NestedMap,
        decoder_params: DecoderHParams,
        align_decode_state: bool = False,
    ) -> NestedMap:
        """Generates the next token of each slot.

        Args:
          decode_state: Of the slots, whose step is below S.
          decoder_params: How to sample.
          align_decode_state: Make room first, see `left_align_decode_state`.

        Returns:
          The state after that.
        """
        if align_decode_state:
            decode_state = self.left_align_decode_state(
                decode_state.max_prefix_len, 0, decode_state, 0
            )
        return self._step(decode_state, decoder_params)

    def _new_state(
        self,
        ids: Int[Array, "N P"],
        decoder_params: DecoderHParams,
        prefix_lengths: Int[Array, " N"],
    ) -> NestedMap:
        limit = decoder_params.max_decode_steps
        samples = isinstance(decoder_params, SampleDecoderHParams)
        state = slots.sample_init_decode_state(
            self.lm,
            ids,
            max_decode_steps=limit if isinstance(limit, int) else None,
            top_k=decoder_params.k if samples else 1,
            top_p=decoder_params.p if samples else None,
            prefix_lengths=prefix_lengths,
        )
        if samples:
            state.temperature = jnp.full_like(state.temperature, decoder_params.temperature)
        return state

    def _step(self, state: NestedMap, decoder_params: DecoderHParams) -> NestedMap:
        self.lm.update_decode_state("time_step", state.step)
        is_sampling = isinstance(decoder_params, SampleDecoderHParams)
        return slots.sample_decoding_step(
            self.lm,
            state,
            generate.extend_step,
            top_k=decoder_params.k if is_sampling else 1,
            decode_loop_mesh_axes_transpose=decoder_params.decode_loop_mesh_axes_transpose,
            eos_id=decoder_params.eos_id,
        )

    def _attentions(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """The self-attention of each layer, and the path of its caches."""
        stack = self.lm.transformer
        if not isinstance(stack, StackedTransformer):
            raise ValueError(
                f"{self.path_text}: the layers are a {type(stack).__name__}, expected a "
                "StackedTransformer: its caches have one row a slot. Unroll the layers for serving."
            )
        for index, layer in enumerate(stack.x_layers):
            path = ("lm", "transformer", f"x_layers_{index}", "self_attention")
            yield path, layer.self_attention
