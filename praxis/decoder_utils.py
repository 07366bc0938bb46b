"""Helpers of decoding, gathered under their public path."""

from praxis.decoding.best_end import collect_results_to_optimize_eos
from praxis.decoding.callback import StreamingResultCallback
from praxis.decoding.extend import coerce_to_expanded_extend_step_fn
from praxis.decoding.hypotheses import (
    gather_logprobs,
    gather_output_id,
    length_norm,
    two_stage_topk,
)
from praxis.decoding.mesh import maybe_decode_mesh_transpose, maybe_reshard_mdl_for_decode
from praxis.decoding.options import ControlledDecodingHParams
from praxis.decoding.samplers import DUMMY_PRNG_KEY
from praxis.decoding.state import (
    batch_broadcast_state_fn,
    left_align_kv_cache,
    left_align_tensor,
    pad_state_fn,
    right_align_state_fn,
    right_align_tensors,
    slice_state_fn,
)
from praxis.decoding.stop import (
    end_with_any_sequence_any_position,
    end_with_sequences,
    find_first_new_stop_seq_match,
    has_any_eos,
)
from praxis.decoding.suffix import concat_suffix_and_left_align

__all__ = [
    "DUMMY_PRNG_KEY",
    "ControlledDecodingHParams",
    "StreamingResultCallback",
    "batch_broadcast_state_fn",
    "coerce_to_expanded_extend_step_fn",
    "collect_results_to_optimize_eos",
    "concat_suffix_and_left_align",
    "end_with_any_sequence_any_position",
    "end_with_sequences",
    "find_first_new_stop_seq_match",
    "gather_logprobs",
    "gather_output_id",
    "has_any_eos",
    "left_align_kv_cache",
    "left_align_tensor",
    "length_norm",
    "maybe_decode_mesh_transpose",
    "maybe_reshard_mdl_for_decode",
    "pad_state_fn",
    "right_align_state_fn",
    "right_align_tensors",
    "slice_state_fn",
    "two_stage_topk",
]
