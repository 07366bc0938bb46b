"""Normalization layers, one family a file."""
