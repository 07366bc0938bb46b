"""How to choose the next token, gathered under its public path."""

from praxis.decoding.samplers import (
    DUMMY_PRNG_KEY,
    BaseLogitsSampler,
    BaseNextTokenSampler,
    DefaultCategoricalLogitsSampler,
    DefaultNextTokenSampler,
    epsilon_mask_logits,
    get_top_k,
    sample_from_top_k_and_top_p,
    sample_from_top_p_given_top_k,
    top_p_mask_logits,
)

__all__ = [
    "DUMMY_PRNG_KEY",
    "BaseLogitsSampler",
    "BaseNextTokenSampler",
    "DefaultCategoricalLogitsSampler",
    "DefaultNextTokenSampler",
    "epsilon_mask_logits",
    "get_top_k",
    "sample_from_top_k_and_top_p",
    "sample_from_top_p_given_top_k",
    "top_p_mask_logits",
]
