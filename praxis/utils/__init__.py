"""Helpers without layers: trees, paddings, devices, timing, checks."""
