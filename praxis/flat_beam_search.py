"""Beam search with masks, gathered under its public path."""

from praxis.decoding.flat_beam import (
    flat_beam_search,
    get_final_output_ids,
    init_loop_var,
    post_process,
    update_beam_mask,
    update_topk_scores_with_eos,
)

__all__ = [
    "flat_beam_search",
    "get_final_output_ids",
    "init_loop_var",
    "post_process",
    "update_beam_mask",
    "update_topk_scores_with_eos",
]
