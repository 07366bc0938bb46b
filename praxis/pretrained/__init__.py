"""Weights of the model families that the Hugging Face hub keeps, as Pax models."""

from praxis.pretrained.directory import Pretrained, from_directory, from_tensors
from praxis.pretrained.families import FAMILIES

__all__ = ["FAMILIES", "Pretrained", "from_directory", "from_tensors"]
