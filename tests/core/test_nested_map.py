"""Behaviours 1-17 of the utilities: the nested map."""

import copy
import dataclasses
import pickle
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st

from praxis.core.nested_map import NestedMap, register_nested_map


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Options:
    size: int
    nested: dict[str, int]


def example():
    return NestedMap(b=[1, {"z": 2}], a=NestedMap(y=(3, 4), x=5), e=NestedMap(), l=[])


NAMES = ["a.x", "a.y", "b[0]", "b[1].z"]


def test_attributes_and_items_are_the_same():
    """Behaviour 1."""
    tree = NestedMap(z=1)
    tree.a = 2
    tree["m"] = 3
    assert (tree.z, tree["a"], tree.m) == (1, 2, 3)
    assert "a" in tree and "b" not in tree
    assert len(tree) == 3
    assert list(tree) == ["z", "a", "m"]
    assert jax.tree.leaves(tree) == [2, 3, 1]
    del tree.z
    del tree["a"]
    assert tree == {"m": 3}
    assert isinstance(tree, dict)
    assert hasattr(tree, "m") and not hasattr(tree, "n")


WRITERS = {
    "constructor": lambda key: NestedMap({key: 1}),
    "item": lambda key: NestedMap().__setitem__(key, 1),
    "update": lambda key: NestedMap().update({key: 1}),
    "ior": lambda key: NestedMap().__ior__({key: 1}),
    "setdefault": lambda key: NestedMap().setdefault(key, 1),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (1, AssertionError, r"must be a str, got 1 of type int"),
        ("keys", AssertionError, r"'keys' is reserved"),
        ("pop", AssertionError, r"'pop' is reserved"),
        ("1a", ValueError, r"Invalid NestedMap key '1a'"),
        ("", ValueError, r"Invalid NestedMap key ''"),
    ],
)
def test_keys_are_checked_wherever_they_come_in(write, key, error, message):
    """Behaviour 2."""
    with pytest.raises(error, match=message):
        write(key)


def test_reserved_attribute_is_refused():
    """Behaviour 2."""
    with pytest.raises(AssertionError, match="'items' is reserved"):
        setattr(NestedMap(), "items", 3)  # noqa: B010


@pytest.mark.parametrize("key", ["a-b", "a/b", "foo[3]", "_a", "mro"])
def test_only_the_start_of_a_key_is_checked(key):
    """Behaviour 3."""
    tree = NestedMap({key: 7})
    assert tree[key] == 7
    assert tree.GetItem(key) == 7
    assert tree.Transform(str) == {key: "7"}
    tree.Set(key, 8)
    assert tree.Flatten() == [8]


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda tree: tree["gama"], KeyError),
        (lambda tree: tree.gama, AttributeError),
        (lambda tree: tree.__delitem__("gama"), KeyError),
        (lambda tree: tree.__delattr__("gama"), AttributeError),
    ],
    ids=["item", "attribute", "del item", "del attribute"],
)
def test_missing_entries_name_the_key_the_others_and_the_nearest(read, error):
    """Behaviour 4."""
    pattern = r"'gama'; available keys: \['beta', 'gamma'\].*Did you mean 'gamma'"
    with pytest.raises(error, match=pattern):
        read(NestedMap(gamma=1, beta=2))


def test_tuple_is_one_leaf_of_the_methods_and_two_of_jax():
    """Behaviour 5."""
    tree = example()
    assert tree.Flatten() == [5, (3, 4), 1, 2]
    assert tree.Keys() == NAMES
    assert tree.FlattenItems() == list(zip(NAMES, tree.Flatten(), strict=True))
    assert jax.tree.leaves(tree) == [5, 3, 4, 1, 2]


def test_transform_keeps_structure_and_kinds():
    tree = example()
    named = tree.TransformWithKey(lambda name, value: name)
    assert named.Flatten() == NAMES
    assert type(named.a) is NestedMap and type(named.b[1]) is dict
    assert (named.e, named.l) == ({}, [])
    assert tree.IsCompatible(named)
    assert not tree.IsCompatible(NestedMap(a=1))


@pytest.mark.parametrize("values", [[], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_pack_refuses_another_number_of_leaves(values):
    """Behaviour 6."""
    with pytest.raises(ValueError, match=rf"{len(values)} values for 4 leaves.*'b\[1\].z'"):
        example().Pack(values)


def test_filter_drops_containers_it_emptied_and_keeps_those_that_were_empty():
    """Behaviour 7."""
    tree = example()
    assert tree.Filter(lambda value: value == 1) == {"b": [1], "e": {}, "l": []}
    assert tree.FilterKeyVal(lambda name, value: name.startswith("a.")) == {
        "a": {"x": 5, "y": (3, 4)},
        "e": {},
        "l": [],
    }

    class Child(NestedMap):
        pass

    nothing = Child(a=1).Filter(lambda value: False)
    assert nothing == {} and type(nothing) is Child


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("b[2]", IndexError, r"'b\[2\]': \[2\] is beyond the list at 'b', which has length 2"),
        ("c", KeyError, "'c'; available keys"),
        ("a.x.z", TypeError, "'z' is looked up in a int, expected a dict"),
        ("a[0]", TypeError, r"\[0\] after 'a' meets a NestedMap, expected a list"),
    ],
)
def test_get_item_errors_and_defaults(name, error, message):
    """Behaviour 8."""
    tree = example()
    with pytest.raises(error, match=message):
        tree.GetItem(name)
    assert tree.Get(name) is None
    assert tree.Get(name, 9) == 9
    assert not tree.Has(name)


def test_get_item_walks_lists_and_maps():
    tree = example()
    assert [tree.GetItem(name) for name in NAMES] == tree.Flatten()
    assert tree.GetItem("a.y[1]") == 4
    assert tree.Has("e") and tree.Get("e") == {}
    assert NestedMap(a=[[1, [2]]]).GetItem("a[0][1][0]") == 2
    assert NestedMap(a=None).Has("a")


def test_set_makes_what_is_missing_and_appends_at_the_end():
    """Behaviour 9."""
    tree = NestedMap()
    tree.Set("a.b[0].c", 1)
    tree.Set("a.b[1]", 2)
    tree.Set("a.d[0][0]", 3)
    tree.Set("a.d[0][0]", 4)
    assert tree == {"a": {"b": [{"c": 1}, 2], "d": [[4]]}}
    assert type(tree.a) is NestedMap and type(tree.a.b[0]) is NestedMap


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b[3]", r"'b\[3\]': index 3 is beyond the list, which has length 2"),
        ("a.x.z", "'z' would be an entry of a int, expected a dict"),
        ("a.y[0]", r"\[0\] would be an entry of a tuple, expected a list"),
    ],
)
def test_set_refuses_gaps_and_scalars_on_the_way(name, message):
    """Behaviour 9."""
    with pytest.raises(ValueError, match=message):
        example().Set(name, 0)


def test_get_slice_update_and_union():
    tree = example()
    assert tree.GetSlice(["a.x", "b"]) == {"a": {"x": 5}, "b": [1, {"z": 2}]}
    other = NestedMap(a=NestedMap(x=6, n=7))
    union = tree.Union(other)
    assert union.a == {"x": 6, "y": (3, 4), "n": 7}
    assert tree.a.x == 5
    assert tree.Update(other) is tree and tree.a.n == 7


@pytest.mark.parametrize("copier", [NestedMap.DeepCopy, copy.deepcopy])
def test_deep_copy_shares_leaves(copier):
    """Behaviour 10."""
    leaf = object()
    tree = NestedMap(a=NestedMap(x=leaf), b=[leaf])
    copied = copier(tree)
    assert copied == tree and type(copied.a) is NestedMap
    assert copied.a is not tree.a and copied.b is not tree.b
    assert copied.a.x is leaf and copied.b[0] is leaf


def test_copy_is_shallow_and_of_the_same_type():
    tree = example()
    for copied in (tree.copy(), copy.copy(tree), tree | {}):
        assert type(copied) is NestedMap
        assert copied == tree and copied is not tree and copied.a is tree.a


def test_from_nested_dict_walks_lists_and_tuples():
    """Behaviour 11."""
    source = {
        "a": OrderedDict(b=MappingProxyType({"c": 1})),
        "t": ({"d": 2}, [{"e": 3}]),
        "p": Point({"f": 4}, 5),
        "n": None,
    }
    tree = NestedMap.FromNestedDict(source)
    assert tree.a.b.c == 1
    assert isinstance(tree.t, tuple) and tree.t[0].d == 2 and tree.t[1][0].e == 3
    assert isinstance(tree.p, Point) and tree.p.x.f == 4
    assert NestedMap.FromNestedDict(3) == 3


def test_dataclass_and_plain_dict_conversions():
    tree = NestedMap.FromNestedDataclass(Options(size=3, nested={"a": 1}))
    assert tree.nested.a == 1 and type(tree) is NestedMap
    for value in ({"a": 1}, Options):
        with pytest.raises(ValueError, match="takes a dataclass instance, got"):
            NestedMap.FromNestedDataclass(value)

    plain = example().ToNestedDict()
    assert plain == example()
    assert type(plain) is dict and type(plain["a"]) is dict
    inside = NestedMap(a=1)
    assert NestedMap(t=(inside,)).ToNestedDict()["t"][0] is inside


def test_debug_string_is_aligned_and_sorted():
    """Behaviour 12."""
    tree = NestedMap(b=2, a=NestedMap(long=[1]))
    assert tree.DebugString() == "a.long[0]    1\nb            2"
    assert NestedMap().DebugString() == ""


def test_vlog_writes_each_line(caplog):
    previous = logging.get_verbosity()
    logging.set_verbosity(logging.DEBUG)
    try:
        with caplog.at_level("DEBUG", logger="absl"):
            NestedMap(a=1, b=2).VLog(1, "tree:")
    finally:
        logging.set_verbosity(previous)
    assert [record.getMessage() for record in caplog.records] == ["tree: a    1", "tree: b    2"]


def test_dir_lists_flattened_names():
    assert {*NAMES, "a", "Flatten", "keys"} <= set(dir(example()))


@pytest.mark.parametrize(
    ("key", "parts"), [("k[3]", ("k", 3)), ("k", ("k", None)), ("k[a]", ("k[a]", None))]
)
def test_square_bracket_index(key, parts):
    assert NestedMap.SquareBracketIndex(key) == parts


def test_jax_tree_functions_give_nested_maps_and_dict_key_paths():
    """Behaviour 13."""
    doubled = jax.tree.map(lambda x: 2 * x, example())
    assert type(doubled) is NestedMap and doubled.a.y == (6, 8)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(example())[0]]
    assert paths[1] == (
        jax.tree_util.DictKey("a"),
        jax.tree_util.DictKey("y"),
        jax.tree_util.SequenceKey(0),
    )
    named = jax.tree_util.tree_map_with_path(lambda path, x: jax.tree_util.keystr(path), example())
    assert named.a.x == "['a']['x']"


def test_registration_may_be_repeated():
    register_nested_map()
    assert jax.tree.leaves(NestedMap(a=1)) == [1]


def test_transformations_of_jax():
    """Behaviour 14: jit, grad, vmap and scan take and give nested maps."""
    tree = NestedMap(b=jnp.arange(3.0), a=NestedMap(c=jnp.ones([3])))

    def loss(tree):
        return jnp.sum(tree.b * tree.a.c**2)

    grads = jax.jit(jax.grad(loss))(tree)
    assert type(grads.a) is NestedMap
    np.testing.assert_allclose(grads.a.c, [0.0, 2.0, 4.0])
    summed = jax.vmap(lambda row: NestedMap(s=row.b + row.a.c))(tree)
    np.testing.assert_allclose(summed.s, [1.0, 2.0, 3.0])

    def step(carry, row):
        carry = NestedMap(total=carry.total + row.b)
        return carry, carry

    final, history = jax.lax.scan(step, NestedMap(total=0.0), tree)
    assert float(final.total) == 3.0
    np.testing.assert_allclose(history.total, [0.0, 1.0, 3.0])


def test_flax_state_dict_round_trip():
    """Behaviour 15."""
    tree = example()
    state = serialization.to_state_dict(tree)
    assert type(state) is dict and type(state["a"]) is dict
    target = jax.tree.map(lambda x: 0, tree)
    restored = serialization.from_state_dict(target, state)
    assert restored == tree
    assert type(restored) is NestedMap and type(restored.a) is NestedMap
    with pytest.raises(ValueError, match="x"):
        serialization.from_state_dict(NestedMap(x=1), {"y": 2})


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    """Behaviour 16."""
    restored = pickle.loads(pickle.dumps(example(), protocol))
    assert restored == example() and type(restored.a) is NestedMap


KEYS = st.sampled_from(["a", "b", "c/d", "e-f"])
TREES = st.recursive(
    st.integers(), lambda children: st.dictionaries(KEYS, children, max_size=3), max_leaves=8
)
MAPS = st.dictionaries(KEYS, TREES | st.lists(TREES, max_size=3), max_size=4).map(
    NestedMap.FromNestedDict
)
FLAT_MAPS = st.dictionaries(KEYS, st.integers()).map(NestedMap)


@given(MAPS)
def test_pack_inverts_flatten(tree):
    """Behaviour 17."""
    assert tree.Pack(tree.Flatten()) == tree


@given(MAPS)
def test_update_with_itself_changes_nothing(tree):
    """Behaviour 17."""
    assert tree.DeepCopy().Update(tree) == tree


@given(FLAT_MAPS, FLAT_MAPS)
def test_update_is_idempotent(tree, other):
    """Behaviour 17."""
    once = tree.DeepCopy().Update(other)
    assert once.DeepCopy().Update(other) == once


@given(FLAT_MAPS, FLAT_MAPS)
def test_union_prefers_the_other(tree, other):
    """Behaviour 17."""
    assert tree.Union(other) == {**tree, **other}
