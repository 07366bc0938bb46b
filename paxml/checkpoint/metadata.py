"""The description of the model variables that lies beside the arrays of a checkpoint."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath

from paxml.checkpoint.version import get_version, get_version_key

METADATA_ITEM_NAME = "metadata"
PAX_METADATA_ITEM_NAME = "pax_metadata"
TRAIN_STATE_METADATA = "train_state_metadata"
ARRAY_METADATA_TAG = "_array_metadata_tag"
DTYPE = "dtype"
IS_OPTAX_MASKED_NODE = "is_optax_masked_node"
UNPADDED_SHAPE = "unpadded_shape"

# The first version whose metadata describes the model variables.
_DESCRIBES_VARIABLES = 1.1


def _is_masked(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)


@dataclasses.dataclass
class ArrayMetadata:
    """Shape and dtype of one variable.

    Attributes:
      unpadded_shape_dtype_struct: Shape before any padding for uneven sharding, and dtype; None
        for a masked variable.
      is_optax_masked_node: Whether the variable is masked, i.e. has no array.
    """

    unpadded_shape_dtype_struct: jax.ShapeDtypeStruct | None
    is_optax_masked_node: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns what goes into the JSON file."""
        array = self.unpadded_shape_dtype_struct
        return {
            ARRAY_METADATA_TAG: True,
            DTYPE: None if array is None else jnp.dtype(array.dtype).name,
            IS_OPTAX_MASKED_NODE: self.is_optax_masked_node,
            UNPADDED_SHAPE: None if array is None else list(array.shape),
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "ArrayMetadata":
        """Inverse of `to_dict`."""
        array = None
        if d[UNPADDED_SHAPE] is not None:
            array = jax.ShapeDtypeStruct(tuple(d[UNPADDED_SHAPE]), jnp.dtype(d[DTYPE]))
        return cls(array, d[IS_OPTAX_MASKED_NODE])

    def equals(self, other: "ArrayMetadata") -> bool:
        """Whether all of it is the same."""
        return self.to_dict() == other.to_dict()

    def is_compatible(self, other: "ArrayMetadata") -> bool:
        """Whether one can be restored from the other: both masked, or shape and dtype equal."""
        if self.is_optax_masked_node and other.is_optax_masked_node:
            return True
        return self.equals(other)


def _encode(tree: Any) -> Any:
    if isinstance(tree, ArrayMetadata):
        return tree.to_dict()
    if isinstance(tree, Mapping):
        return {str(key): _encode(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_encode(value) for value in tree]
    return tree


def _decode(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        if tree.get(ARRAY_METADATA_TAG):
            return ArrayMetadata.from_dict(tree)
        return {key: _decode(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_decode(value) for value in tree]
    return tree


def _by_path(tree: Any) -> dict[str, ArrayMetadata]:
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda leaf: isinstance(leaf, ArrayMetadata)
    )
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@dataclasses.dataclass
class PaxMetadata:
    """Version of the format and, from 1.1 on, the model variables.

    Attributes:
      version: Version of the format.
      train_state_metadata: `{"mdl_vars": tree of ArrayMetadata}`; None before version 1.1.
    """

    version: float
    train_state_metadata: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Returns what goes into the JSON file."""
        encoded: dict[str, Any] = {get_version_key(): self.version}
        if self.version >= _DESCRIBES_VARIABLES:
            encoded[TRAIN_STATE_METADATA] = _encode(self.train_state_metadata)
        return encoded

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "PaxMetadata":
        """Inverse of `to_dict`, with plain dicts and lists as containers."""
        return cls(d[get_version_key()], _decode(d.get(TRAIN_STATE_METADATA)))

    @classmethod
    def from_padded_and_unpadded(
        cls, padded: Any, unpadded: Any, version: float, mdl_vars_only: bool = True
    ) -> "PaxMetadata":
        """Describes a train state.

        Args:
          padded: Train state, or its shapes, as it lies in memory; says what is masked.
          unpadded: The same with shapes before padding.
          version: Version of the format.
          mdl_vars_only: Whether optimizer states are left out.

        Raises:
          NotImplementedError: if `mdl_vars_only` is False.
        """
        if not mdl_vars_only:
            raise NotImplementedError("Only mdl_vars are described; leave mdl_vars_only True.")

        def describe(leaf: Any, shape: Any) -> ArrayMetadata:
            if _is_masked(leaf):
                return ArrayMetadata(None, True)
            return ArrayMetadata(jax.ShapeDtypeStruct(shape.shape, shape.dtype), False)

        variables = jax.tree.map(describe, padded.mdl_vars, unpadded.mdl_vars, is_leaf=_is_masked)
        return cls(version, {"mdl_vars": variables})

    def equals(self, other: "PaxMetadata") -> bool:
        """Whether all of it is the same."""
        return self.to_dict() == other.to_dict()

    def is_compatible(self, other: "PaxMetadata") -> bool:
        """Whether both describe the same variables; before version 1.1 nothing is known."""
        if self.version < _DESCRIBES_VARIABLES or other.version < _DESCRIBES_VARIABLES:
            return True
        mine, theirs = _by_path(self.train_state_metadata), _by_path(other.train_state_metadata)
        return mine.keys() == theirs.keys() and all(
            mine[path].is_compatible(theirs[path]) for path in mine
        )


def make_metadata(
    version: float | None = None,
    train_state: Any = None,
    train_state_unpadded_shape_dtype_struct: Any = None,
    tensorstore_use_ocdbt: bool | None = None,
) -> PaxMetadata:
    """Returns the metadata of a train state that is about to be saved.

    Args:
      version: Version of the format; None takes the one that new checkpoints get.
      train_state: The state or its shapes.
      train_state_unpadded_shape_dtype_struct: Its shapes before padding.
      tensorstore_use_ocdbt: Decides between versions 1.1 and 1.2.

    Raises:
      ValueError: if the version describes variables and no shapes were given.
    """
    if version is None:
        version = get_version(tensorstore_use_ocdbt)
    if version < _DESCRIBES_VARIABLES:
        return PaxMetadata(version)
    if train_state is None or train_state_unpadded_shape_dtype_struct is None:
        raise ValueError(
            f"Checkpoint format {version} describes the model variables: give both train_state "
            "and train_state_unpadded_shape_dtype_struct."
        )
    return PaxMetadata.from_padded_and_unpadded(
        train_state, train_state_unpadded_shape_dtype_struct, version
    )


def metadata_path(directory: epath.PathLike) -> epath.Path:
    """Returns the path of the metadata file of the checkpoint in `directory`."""
    return epath.Path(directory) / METADATA_ITEM_NAME / "metadata"


def metadata_exists(directory: epath.PathLike) -> bool:
    """Whether the checkpoint in `directory` has a metadata file."""
    return metadata_path(directory).exists()


def restore_metadata(directory: epath.PathLike) -> PaxMetadata:
    """Reads the metadata of the checkpoint in `directory`.

    Raises:
      ValueError: if the file is not JSON, or has no version.
    """
    path = metadata_path(directory)
    try:
        return PaxMetadata.from_dict(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the metadata of a checkpoint: {error!r}.") from error


def save_metadata(directory: epath.PathLike, metadata: PaxMetadata) -> None:
    """Writes the metadata of the checkpoint in `directory`."""
    path = metadata_path(directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metadata.to_dict()))
