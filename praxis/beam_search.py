"""Beam search, gathered under its public path."""

from praxis.decoding.beam import (
    beam_search,
    beam_search_after_prefix_fprop,
    default_compute_logprobs_fn,
)
from praxis.decoding.finished import broadcast_beam_dim, shuffle_state, update_global_beam
from praxis.decoding.options import BeamSearchHParams

__all__ = [
    "BeamSearchHParams",
    "beam_search",
    "beam_search_after_prefix_fprop",
    "broadcast_beam_dim",
    "default_compute_logprobs_fn",
    "shuffle_state",
    "update_global_beam",
]
