"""Summaries of train and eval steps, under their public path."""

from paxml.summary.current import (
    compute_and_write_clu_metric_summaries,
    write_clu_metric_summaries,
    write_summary_tensor,
    writing_to,
)
from paxml.summary.entry import write_summary_entry
from paxml.summary.handler import SummaryHandler
from paxml.summary.norms import l2_mean
from paxml.summary.replicas import aggregate_per_replica_summaries
from paxml.summary.scoring import write_seqio_metric_summaries
from paxml.summary.tensors import (
    AUDIO_SUMMARY_SAMPLE_RATE,
    MAX_AUDIOS_PER_SUMMARY,
    MAX_IMAGES_PER_SUMMARY,
    MAX_TEXTS_PER_SUMMARY,
    flatten_flax_summaries,
    flatten_summary_dict,
    get_summary_display_name_from_key,
    should_cap_summary,
)
from paxml.summary.texts import (
    pretty_format_iters,
    pretty_repr,
    pretty_repr_provenance,
    pretty_repr_shapes,
    write_global_batch_size,
    write_model_provenance,
    write_model_structure,
    write_total_num_params,
)
from paxml.summary.writer import get_summary_writer
from paxml.train_states import TensorProvenance, TrainState, TrainStateProvenance
from praxis.base_layer import PMAP_PARALLEL_AXIS_NAME

__all__ = [
    "AUDIO_SUMMARY_SAMPLE_RATE",
    "MAX_AUDIOS_PER_SUMMARY",
    "MAX_IMAGES_PER_SUMMARY",
    "MAX_TEXTS_PER_SUMMARY",
    "PMAP_PARALLEL_AXIS_NAME",
    "SummaryHandler",
    "TensorProvenance",
    "TrainState",
    "TrainStateProvenance",
    "aggregate_per_replica_summaries",
    "compute_and_write_clu_metric_summaries",
    "flatten_flax_summaries",
    "flatten_summary_dict",
    "get_summary_display_name_from_key",
    "get_summary_writer",
    "l2_mean",
    "pretty_format_iters",
    "pretty_repr",
    "pretty_repr_provenance",
    "pretty_repr_shapes",
    "should_cap_summary",
    "write_clu_metric_summaries",
    "write_global_batch_size",
    "write_model_provenance",
    "write_model_structure",
    "write_seqio_metric_summaries",
    "write_summary_entry",
    "write_summary_tensor",
    "write_total_num_params",
    "writing_to",
]
