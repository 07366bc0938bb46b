"""Layers that change inputs in training."""
