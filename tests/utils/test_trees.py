"""Behaviours 18-22 of the utilities: trees by path and by structure."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from flax import struct
from jax.sharding import PartitionSpec

from praxis import py_utils, trees
from praxis.core.nested_map import NestedMap


class Pair(NamedTuple):
    left: Any
    right: Any


@struct.dataclass
class Record:
    size: Any
    tags: Any


TREE = {"a": [1, 2, {"x": 3}], "p": Pair(4, (5,)), "r": Record(size=6, tags=[7]), "e": {}}


def test_path_texts():
    """Behaviour 18."""
    paths = trees.to_path_tree(TREE)
    assert paths == {
        "a": ["a[0]", "a[1]", {"x": "a[2]/x"}],
        "p": Pair("p/left", ("p/right[0]",)),
        "r": Record(size="r/size", tags=["r/tags[0]"]),
        "e": {},
    }
    assert py_utils.extract_prefixed_keys_from_nested_map(TREE) == paths
    assert type(trees.to_path_tree(NestedMap(a=1))) is NestedMap


def test_is_leaf_gives_none():
    """Behaviour 18."""
    is_leaf = lambda x: isinstance(x, list)  # noqa: E731
    assert trees.to_path_tree({"a": [1], "b": 2}, is_leaf) == {"a": None, "b": "b"}
    got = py_utils.extract_prefixed_keys_from_nested_map({"a": [1], "b": 2}, is_leaf=is_leaf)
    assert got == {"a": None, "b": "b"}


def test_prefix_and_separators():
    """Behaviour 18."""
    extract = py_utils.extract_prefixed_keys_from_nested_map
    assert extract({"a": [1]}, "top") == {"a": ["top/a[0]"]}
    assert extract([1], "top") == ["top[0]"]
    got = extract({"a": [1]}, "top", key_separator=".", left_separator="_", right_separator="")
    assert got == {"a": ["top.a_0"]}
    assert extract(1, "top") == "top"
    assert extract(1) is None
    assert py_utils.extract_keys({"a": [1]}, "", "/", "(", ")", None) == {"a": ["a(0)"]}


def test_partition_specs_and_masked_nodes():
    """Behaviour 18: a spec is one leaf though it is a tuple; masked nodes have no children."""
    tree = {
        "spec": PartitionSpec("x", None),
        "masked": py_utils.BpropMaskedNode(),
        "optax": optax.MaskedNode(),
    }
    got = py_utils.extract_prefixed_keys_from_nested_map(tree)
    assert got["spec"] == "spec"
    assert py_utils.is_bprop_masked_node(got["masked"])
    assert py_utils.is_optax_masked_node(got["optax"])
    assert not py_utils.is_bprop_masked_node(got["optax"])
    assert not py_utils.is_optax_masked_node(got["masked"])
    assert jax.tree.leaves(tree["masked"]) == []


VARIABLES = NestedMap(lm=NestedMap(w=1, b=2), ffn=3)


@pytest.mark.parametrize(
    ("patterns", "want"),
    [
        ("lm/.*", {"lm": {"w": True, "b": True}, "ffn": False}),
        (["lm", "ff"], {"lm": {"w": False, "b": False}, "ffn": False}),
        ([re.compile("LM/W", re.IGNORECASE), "ffn"], {"lm": {"w": True, "b": False}, "ffn": True}),
        ([], {"lm": {"w": False, "b": False}, "ffn": False}),
    ],
)
def test_the_whole_path_must_match(patterns, want):
    """Behaviour 19."""
    assert trees.fullmatch_path(VARIABLES, patterns) == want
    assert py_utils.match_variable_names(VARIABLES, patterns) == want


@pytest.mark.parametrize(
    ("subset", "superset", "want"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, NestedMap(a=1), True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 2], "c": 3}}, True),
        ([1, 2], [1, 2, 3], True),
        ([2], [1, 2], False),
        ([1, 2], [1], False),
        ((1,), [1], False),
        (1, 1.0, False),
        ({}, [], False),
        ({}, {}, True),
        ("a", "a", True),
    ],
)
def test_is_subset(subset, superset, want):
    """Behaviour 20."""
    assert trees.is_subset(subset, superset) is want


def test_extract_elements():
    superset = {"a": [1, {"b": 2}], "c": Pair(3, 4), "d": 5}
    extracted = trees.extract_elements_matching_subset_structure(
        NestedMap(a=["x", {}], c=Pair(None, "y")), superset
    )
    assert extracted == {"a": [1, {}], "c": Pair(3, 4)}
    assert type(extracted) is NestedMap


@pytest.mark.parametrize(
    ("subset", "superset", "message"),
    [
        ({"a": 1}, {"b": 1}, r"Missing keys \['a'\]: \{'a': 1\} is not contained in \{'b': 1\}"),
        ([1, 2], [1], r"Length 1 is less than 2: \[1, 2\] is not contained in \[1\]"),
        ({"a": {}}, {"a": 1}, "A int stands where a dict is expected"),
        ([1], (1,), "A tuple stands where a list is expected"),
    ],
)
def test_extract_elements_errors(subset, superset, message):
    with pytest.raises(ValueError, match=message):
        trees.extract_elements_matching_subset_structure(subset, superset)


def test_shapes_and_copies():
    tree = {"a": [jnp.ones([2, 3], jnp.bfloat16)]}
    assert trees.get_shape_dtype(tree) == {"a": [jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)]}
    copied = trees.copy(tree)
    assert copied["a"] is not tree["a"] and copied["a"][0] is tree["a"][0]
    assert py_utils.total_num_vars({"a": np.zeros([2, 3]), "b": [np.zeros([])]}) == 7


@pytest.mark.parametrize(
    ("invert", "want"), [(False, {"lm": {"w": 10, "b": 2}}), (True, {"lm": {"w": 1, "b": 20}})]
)
def test_update_matched_variables(invert, want, caplog):
    """Behaviour 21."""
    old, new = {"lm": {"w": 1, "b": 2}}, {"lm": {"w": 10, "b": 20}}
    assert py_utils.update_matched_variables(old, new, ["lm/w"], invert=invert) == want


def test_update_matched_variables_logs_one_table(caplog):
    """Behaviour 21."""
    previous = logging.get_verbosity()
    logging.set_verbosity(logging.DEBUG)
    try:
        with caplog.at_level("DEBUG", logger="absl"):
            py_utils.update_matched_variables({"a": 1, "b": 2}, {"a": 3, "b": 4}, "a")
    finally:
        logging.set_verbosity(previous)
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert record.getMessage().splitlines()[1:] == ["new  a", "old  b"]


def test_tree_unstack():
    x = np.arange(6).reshape(2, 3)
    rows = py_utils.tree_unstack({"a": x, "b": jnp.asarray(x)}, 1)
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[2]["a"], [2, 5])
    np.testing.assert_array_equal(rows[2]["b"], [2, 5])
    assert py_utils.tree_unstack({}, 0) == []
    assert py_utils.tree_unstack({"a": 1, "b": 2.0}, 0) == [{"a": 1, "b": 2.0}]


@pytest.mark.parametrize(
    ("tree", "axis", "message"),
    [
        ({"a": "x"}, 0, r"leaves must be arrays, got \['str'\]"),
        ({"a": np.zeros([2]), "b": np.zeros([3])}, 0, r"different sizes along axis 0: \[2, 3\]"),
        ({"a": np.zeros([2]), "b": np.zeros([])}, 0, r"not all leaves have axis 0.*\(2,\), \(\)"),
        ({"a": np.zeros([2])}, 1, "not all leaves have axis 1"),
    ],
)
def test_tree_unstack_errors(tree, axis, message):
    """Behaviour 22."""
    with pytest.raises(ValueError, match=message):
        py_utils.tree_unstack(tree, axis)


def test_concat_nested_maps():
    first = NestedMap(a=np.ones([2, 3]), n=NestedMap(b=jnp.ones([2, 1])), v=np.ones([2]), s="x")
    second = NestedMap(a=np.zeros([2, 4]), n=NestedMap(b=jnp.zeros([2, 2])), v=np.ones([3]))
    joined = py_utils.concat_nested_maps([first, second], 1)
    assert joined.a.shape == (2, 7) and isinstance(joined.a, np.ndarray)
    assert joined.n.b.shape == (2, 3)
    assert joined.v is first.v and joined.s == "x"
    assert py_utils.concat_nested_maps([first], 1) is first
    with pytest.raises(ValueError, match="expected at least one map"):
        py_utils.concat_nested_maps([], 0)


def test_selecting_and_merging():
    got = py_utils.select_nodes_by_indices({"a": 1, "b": 0}, {"a": 1, "b": 2}, {"a": 3, "b": 4})
    assert got == {"a": 3, "b": 2}
    with pytest.raises(IndexError):
        py_utils.select_nodes_by_indices(1, "x")
    matched, rest = py_utils.filter_by_matching_keys(
        {"a/x": 1, "ab": 2, "c": {"a": 3}}, ["a/", "z"]
    )
    assert matched == {"a/x": 1} and rest == {"ab": 2, "c": {"a": 3}}
    assert type(matched) is type(rest) is NestedMap
    shared = object()
    assert py_utils.merge_dict({"a": shared}, {"a": shared, "b": 1}) == {"a": shared, "b": 1}
    with pytest.raises(ValueError, match=r"key 'a' is in both, with different values \[1\] and"):
        py_utils.merge_dict({"a": [1]}, {"a": [1]})


def test_same_shape_and_dtype():
    x = {"a": np.zeros([2], np.float32)}
    py_utils.assert_same_shape_and_dtype(x, {"a": jnp.ones([2])})
    with pytest.raises(ValueError, match=r"a: float32\[2\] and int32\[3\]"):
        py_utils.assert_same_shape_and_dtype(x, {"a": np.zeros([3], np.int32)})
    with pytest.raises(ValueError, match="different structures"):
        py_utils.assert_same_shape_and_dtype(x, {"b": x["a"]})
