"""Whether a checkpoint on disk is complete; looks at names, sizes and headers, reads no array."""

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from paxml.checkpoint.metadata import (
    METADATA_ITEM_NAME,
    ArrayMetadata,
    metadata_path,
    restore_metadata,
)
from paxml.checkpoint.naming import SEPARATOR, leaf_name
from paxml.checkpoint.paths import STATE_ITEM_NAME

# Orbax's description of the tree; checkpoints of old versions have none.
_TREE_FILE = "_METADATA"
_ARRAY_HEADER = ".zarray"
_DATABASE_FILE = "manifest.ocdbt"


@dataclasses.dataclass(frozen=True)
class SavedArray:
    """Shape and dtype of an array, printed like `float32[4,1]`."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


def structure_problem(directory: epath.Path) -> str | None:
    """Says what is missing in a step directory, or None. Looks at a handful of files."""
    if not directory.is_dir():
        return "it is a file, not a directory"
    if not any(directory.iterdir()):
        return "the directory is empty"
    if not metadata_path(directory).exists():
        return f"it has no {METADATA_ITEM_NAME}/metadata file"
    try:
        restore_metadata(directory)
    except ValueError as error:
        return str(error).rstrip(".")
    state = directory / STATE_ITEM_NAME
    if not state.is_dir():
        return f"it has no {STATE_ITEM_NAME} directory"
    if (state / _DATABASE_FILE).exists():
        return "its arrays are in an OCDBT database (format 1.2), which is not read here"
    if not any((path / _ARRAY_HEADER).exists() for path in state.iterdir()):
        return f"its {STATE_ITEM_NAME} directory has no arrays"
    return None


def has_tree_file(directory: epath.Path) -> bool:
    """Whether Orbax's own description of the tree is there."""
    return (directory / STATE_ITEM_NAME / _TREE_FILE).exists()


def _listed_names(state: epath.Path) -> set[str]:
    """Names that Orbax says it wrote; empty if it left no list."""
    tree_file = state / _TREE_FILE
    if not tree_file.exists():
        return set()
    leaves = json.loads(tree_file.read_text())["tree_metadata"].values()
    return {SEPARATOR.join(str(key["key"]) for key in leaf["key_metadata"]) for leaf in leaves}


def _chunk_problem(array: epath.Path, header: dict) -> str | None:
    """Says which chunk of an array has no file, or an empty one, or None."""
    sizes = zip(header["shape"], header["chunks"], strict=True)
    counts = [math.ceil(size / chunk) for size, chunk in sizes]
    for index in itertools.product(*map(range, counts)):
        name = header.get("dimension_separator", ".").join(map(str, index)) or "0"
        chunk = array / name
        if not chunk.exists():
            return f"{chunk} is missing"
        if chunk.stat().length == 0:
            return f"{chunk} is empty"
    return None


def array_problem(directory: epath.Path) -> str | None:
    """Says which array of a step directory is not there in full, or None.

    Looks at every file of the state, so it is for the one step that is about to be restored. A
    file cut off in the middle is found when it is read.
    """
    state = directory / STATE_ITEM_NAME
    try:
        names = _listed_names(state)
        # Without the list, chunks of zeros may have been left out on purpose.
        for name in sorted(names):
            header = state / name / _ARRAY_HEADER
            if not header.exists():
                return f"{state / name} has no {_ARRAY_HEADER} file"
            if problem := _chunk_problem(state / name, json.loads(header.read_text())):
                return problem
    except (ValueError, KeyError, TypeError) as error:
        return f"{state} has a header that is not readable: {error!r}"
    return None


def saved_arrays(directory: epath.Path) -> dict[str, SavedArray]:
    """Returns shape and dtype of the arrays of a checkpoint by name, from their headers."""
    found = {}
    for path in (directory / STATE_ITEM_NAME).iterdir():
        header = path / _ARRAY_HEADER
        if header.exists():
            fields = json.loads(header.read_text())
            found[path.name] = SavedArray(tuple(fields["shape"]), jnp.dtype(fields["dtype"]))
    return found


def unpadded_variables(directory: epath.Path) -> dict[str, SavedArray]:
    """Returns the variables of a checkpoint by name, as they were before padding for a mesh.

    Empty for a checkpoint so old that it does not say.
    """
    leaves = jax.tree_util.tree_leaves_with_path(
        restore_metadata(directory).train_state_metadata,
        is_leaf=lambda leaf: isinstance(leaf, ArrayMetadata),
    )
    return {
        leaf_name(path): SavedArray(tuple(array.shape), jnp.dtype(array.dtype))
        for path, leaf in leaves
        if (array := leaf.unpadded_shape_dtype_struct) is not None
    }
