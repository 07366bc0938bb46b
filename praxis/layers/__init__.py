"""Layers, gathered under their public names."""
