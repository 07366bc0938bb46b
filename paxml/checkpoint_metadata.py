"""Metadata of checkpoints, under their public path."""

from paxml.checkpoint.metadata import (
    ARRAY_METADATA_TAG,
    DTYPE,
    IS_OPTAX_MASKED_NODE,
    METADATA_ITEM_NAME,
    PAX_METADATA_ITEM_NAME,
    TRAIN_STATE_METADATA,
    UNPADDED_SHAPE,
    ArrayMetadata,
    PaxMetadata,
    make_metadata,
    metadata_exists,
    restore_metadata,
    save_metadata,
)
from paxml.checkpoint.version import get_version, get_version_key

__all__ = [
    "ARRAY_METADATA_TAG",
    "DTYPE",
    "IS_OPTAX_MASKED_NODE",
    "METADATA_ITEM_NAME",
    "PAX_METADATA_ITEM_NAME",
    "TRAIN_STATE_METADATA",
    "UNPADDED_SHAPE",
    "ArrayMetadata",
    "PaxMetadata",
    "get_version",
    "get_version_key",
    "make_metadata",
    "metadata_exists",
    "restore_metadata",
    "save_metadata",
]
