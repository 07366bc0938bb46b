"""Kinds of checkpoint, under their public path."""

from paxml.checkpoint.kinds import CheckpointType, retrieve_checkpoint_type

__all__ = ["CheckpointType", "retrieve_checkpoint_type"]
