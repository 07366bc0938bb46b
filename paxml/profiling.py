"""Profiles of training and decoding, under their public path."""

from paxml.program.profiler import Profiler

__all__ = ["Profiler"]
