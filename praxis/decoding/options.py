"""How to generate: the settings of greedy decoding, sampling and beam search."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from praxis import pax_fiddle
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.samplers import BaseNextTokenSampler, DefaultNextTokenSampler

Options = TypeVar("Options", bound="DecoderHParams")


@dataclasses.dataclass
class ControlledDecodingHParams:
    """Best-of-n decoding, block by block.

    Attributes:
      interval: Tokens in a block.
      block_num_samples: Samples of each block to choose from.
    """

    interval: int = 0
    block_num_samples: int = 0


@dataclasses.dataclass
class DecoderHParams:
    """What all ways to generate have in common.

    Attributes:
      seqlen: Tokens of prefix and continuation, at least 1. With `fprop_for_prefix` the length is
        that of the prefixes plus `max_decode_steps` instead.
      min_prefix_len: For serving; not read here.
      eos_id: Token, or tokens, that end a text.
      min_decode_steps: Tokens to generate before an end-of-text token may come.
      max_decode_steps: Most tokens to generate, or an increasing list: the caches grow from one to
        the next. None: no limit but `seqlen`.
      fprop_for_prefix: Fill the caches with one call over the prefixes, which are aligned to the
        right, not token by token.
      lazy_prefix_broadcast: Samples, or beginnings in beam search, share the cache of their prefix;
        with an attention that can do that, such as `DotProductAttentionWithLPB`.
      decode_loop_mesh_axes_transpose: Real mesh axis by the annotated one, in the decoding loop.
      emb_lookup_style: For serving; not read here.
      process_result_fn: Applied to (model, results) at the end.
      use_extra_input_kwargs: Pass `extra_input_kwargs` of the batch to the model.
      num_cache_slots: Texts that are generated at once, in continuous batching.
      precompute_kv_cache_prefix_ids: For serving; not read here.
    """

    seqlen: int = 0
    min_prefix_len: int = 5
    eos_id: int | Sequence[int] = 2
    min_decode_steps: int = 0
    max_decode_steps: int | Sequence[int] | None = None
    fprop_for_prefix: bool = False
    lazy_prefix_broadcast: bool = False
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None
    process_result_fn: Callable[..., Any] | None = None
    emb_lookup_style: str = "matmul"
    use_extra_input_kwargs: bool = False
    num_cache_slots: int = 0
    precompute_kv_cache_prefix_ids: tuple[np.ndarray, np.ndarray] | None = None

    def clone(self: Options) -> Options:
        """Returns an independent copy."""
        return copy.deepcopy(self)


@dataclasses.dataclass
class GreedyDecoderHParams(DecoderHParams):
    """Takes the most likely token each time."""


@dataclasses.dataclass
class SampleDecoderHParams(DecoderHParams):
    """Draws each token from the model's distribution.

    Attributes:
      num_samples: Continuations of each prefix.
      temperature: Factor of the noise: 1 draws from the distribution, 0 takes the most likely.
      k: Draw from the k most likely tokens; 0 from all, 1 is greedy.
      p: Draw from the most likely tokens that have this probability together. None: from all.
      global_normalize: With `k`, `p` refers to probabilities among all tokens, not among the k.
      next_token_sampler_tpl: Config of what chooses the next token.
      override_next_token_sampler_params: Fill `k`, `p`, `global_normalize`, `top_k_recall_target`
        and `use_top_k_for_logprobs` into that config.
      sort_samples: Sort samples by falling log-probability.
      top_k_recall_target: Below 1, an approximate and faster top-k on accelerators.
      use_top_k_for_logprobs: Report log-probabilities among the k most likely tokens.
      early_exit: Stop when all samples have ended. False: run a fixed number of steps, which also
        reports summaries of each.
      optimize_eos: Generate without end-of-text tokens, and end each text where that is likeliest.
      controlled_decoding: Draw each block of tokens several times, and go on with the likeliest.
      cf_guidance_scale: Scale of classifier-free guidance, or a list with one for each sample; 1 is
        the model as it is. None: no guidance.
      sample_constraint: Config of a condition that ends samples.
      vanilla_sample_decode: Use the plain sampler, without an axis of samples.
    """

    num_samples: int = 1
    temperature: float = 1.0
    k: int = 40
    p: float | jax.Array | None = None
    global_normalize: bool = False
    next_token_sampler_tpl: pax_fiddle.Config[BaseNextTokenSampler] = pax_fiddle.template_field(
        DefaultNextTokenSampler
    )
    override_next_token_sampler_params: bool = True
    sort_samples: bool | None = True
    top_k_recall_target: float = 1.0
    use_top_k_for_logprobs: bool = False
    early_exit: bool = True
    optimize_eos: bool = False
    controlled_decoding: ControlledDecodingHParams | None = None
    cf_guidance_scale: list[float] | float | None = None
    sample_constraint: pax_fiddle.Config[BaseSampleTerminationConstraint] | None = None
    vanilla_sample_decode: bool = False


@dataclasses.dataclass
class BeamSearchHParams(DecoderHParams):
    """Keeps the `beam_size` best beginnings; see `beam_search`.

    Attributes:
      beam_size: Beginnings to keep.
      tokens_per_beam: Continuations of each that are looked at; None: `beam_size`.
      length_norm_alpha: Exponent of the length by which scores are divided.
      early_exit: An end of text is a token like others: an ended text stays among the beginnings,
        and the search stops when all of these have ended.
      use_matmul_beam_shuffle: Reorder caches with matrix products.
      output_id_offset: Number added to each token of the results.
    """

    beam_size: int = 1
    tokens_per_beam: int | None = None
    length_norm_alpha: float = 0.8
    early_exit: bool = False
    use_matmul_beam_shuffle: bool = False
    output_id_offset: int = 0


@dataclasses.dataclass
class FlatBeamSearchHParams(BeamSearchHParams):
    """Beam search that masks caches, not reorders them; only for `flat_beam_search`."""
