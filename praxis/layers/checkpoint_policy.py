"""Rematerialization policies, gathered under their public path."""

from praxis.layers.transformer.remat import AutodiffCheckpointType, custom_policy

__all__ = ["AutodiffCheckpointType", "custom_policy"]
