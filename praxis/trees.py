"""Trees by path and structure, gathered under their public path."""

from praxis.utils.trees import (
    copy,
    extract_elements_matching_subset_structure,
    fullmatch_path,
    get_shape_dtype,
    is_subset,
    to_path_tree,
)

__all__ = [
    "copy",
    "extract_elements_matching_subset_structure",
    "fullmatch_path",
    "get_shape_dtype",
    "is_subset",
    "to_path_tree",
]
