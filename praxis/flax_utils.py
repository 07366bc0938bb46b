"""Helpers for variables and summaries of Flax modules, gathered under their public path."""

from praxis.utils.flax_boxes import convert_to_boxed_params
from praxis.utils.flax_summaries import maybe_repack_summary, maybe_unpack_summary

__all__ = ["convert_to_boxed_params", "maybe_repack_summary", "maybe_unpack_summary"]
