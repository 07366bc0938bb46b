"""Metrics as plain numbers, under their public path."""

from paxml.metric.values import (
    as_float,
    as_float_dict,
    compute_metric_values,
    extract_weighted_scalars_and_clu_metrics,
    is_float_convertible,
    is_scalar,
    is_weighted_scalar,
    merge_clu_metrics,
    update_float_dict,
)

__all__ = [
    "as_float",
    "as_float_dict",
    "compute_metric_values",
    "extract_weighted_scalars_and_clu_metrics",
    "is_float_convertible",
    "is_scalar",
    "is_weighted_scalar",
    "merge_clu_metrics",
    "update_float_dict",
]
