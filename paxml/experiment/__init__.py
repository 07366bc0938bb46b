"""Experiments: what to train on what, found by name."""
