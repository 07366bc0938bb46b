"""Generation of samples, gathered under its public path."""

from praxis.base_layer import (
    AUX_LOSS,
    DECODE_CACHE,
    HYPER_PARAMS,
    NON_TRAINABLE,
    PARAMS,
    PREFIX_DECODE_CACHE,
    RANDOM,
    SUMMARIES,
)
from praxis.decoding.callback import StreamingResultCallback
from praxis.decoding.candidates import MAX_NUM_PER_TOKEN_LOGPROBS
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.prefix import right_align_prefix_ids, right_align_segment_position
from praxis.decoding.sample import greedy_decode, sample_decode, sample_decode_after_fprop
from praxis.decoding.samplers import (
    DUMMY_PRNG_KEY,
    BaseNextTokenSampler,
    DefaultNextTokenSampler,
    epsilon_mask_logits,
    get_top_k,
    sample_from_top_k_and_top_p,
    sample_from_top_p_given_top_k,
    top_p_mask_logits,
)
from praxis.decoding.samples_axis import (
    reorder_with_indices,
    sort_samples_by_scores,
    split_batch_dim,
)
from praxis.decoding.slots import sample_decoding_step, sample_init_decode_state
from praxis.decoding.vanilla import vanilla_sample_decode

__all__ = [
    "AUX_LOSS",
    "DECODE_CACHE",
    "DUMMY_PRNG_KEY",
    "HYPER_PARAMS",
    "MAX_NUM_PER_TOKEN_LOGPROBS",
    "NON_TRAINABLE",
    "PARAMS",
    "PREFIX_DECODE_CACHE",
    "RANDOM",
    "SUMMARIES",
    "BaseNextTokenSampler",
    "BaseSampleTerminationConstraint",
    "DefaultNextTokenSampler",
    "StreamingResultCallback",
    "epsilon_mask_logits",
    "get_top_k",
    "greedy_decode",
    "reorder_with_indices",
    "right_align_prefix_ids",
    "right_align_segment_position",
    "sample_decode",
    "sample_decode_after_fprop",
    "sample_decoding_step",
    "sample_from_top_k_and_top_p",
    "sample_from_top_p_given_top_k",
    "sample_init_decode_state",
    "sort_samples_by_scores",
    "split_batch_dim",
    "top_p_mask_logits",
    "vanilla_sample_decode",
]
