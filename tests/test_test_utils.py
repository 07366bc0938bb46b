"""What tests of users' layers get from the library."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle, test_utils
from praxis.layers import linears, repeats, stochastics
from praxis.py_utils import NestedMap


class Pair(NamedTuple):
    left: object
    right: object


@pytest.fixture
def case():
    made = test_utils.TestCase()
    made.setUp()
    return made


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], jnp.array([1.0, 2.0])),
        (NestedMap(a=[jnp.ones([2], jnp.bfloat16)]), {"a": [np.ones([2])]}),
        ([jnp.ones(2), jnp.ones(3)], (np.ones(2), np.ones(3))),
        (Pair(jnp.ones(2), {"a": 1}), Pair(np.ones(2), {"a": 1})),
        (3, np.int32(3)),
        ({}, {}),
    ],
    ids=str,
)
def test_arrays_and_trees_that_agree(case, x, y):
    case.assertAllEqual(x, y)
    case.assertAllClose(x, y)
    with pytest.raises(AssertionError, match="Both are nearly"):
        case.assertNotAllClose(x, y)


def test_tolerances(case):
    case.assertAllClose([1.0, 2.0], jnp.array([1.0, 2.0 + 1e-7]))
    case.assertAllClose({"a": 1.0}, {"a": 1.1}, atol=0.2)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], [1.0, 2.1]),
        ({"a": 1.0}, {"a": 1.1}),
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}),
        ({"a": 1.0}, np.ones([1])),
        ([jnp.ones(2), jnp.ones(3)], [jnp.ones(2), jnp.zeros(3)]),
        (None, np.ones([1])),
    ],
    ids=str,
)
def test_arrays_and_trees_that_differ(case, x, y):
    for check in (case.assertAllClose, case.assertAllEqual):
        with pytest.raises(AssertionError):
            check(x, y)
    case.assertNotAllClose(x, y)


def test_difference_names_its_place(case):
    with pytest.raises(AssertionError, match=r"at \['a'\]\[1\]"):
        case.assertAllClose({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]})
    with pytest.raises(AssertionError, match=r"NaN or infinity in \[\"\['b'\]\"\]"):
        case.assertAllFinite({"a": jnp.ones(2), "b": jnp.array([1.0, np.nan])})
    case.assertAllFinite({"a": jnp.ones(2), "n": 3})


def test_generator_starts_from_one_seed(case):
    first = np.random.uniform()  # noqa: NPY002
    case.setUp()
    assert np.random.uniform() == first  # noqa: NPY002


def test_update_dict():
    target = {"a": {"b": 1, "c": 2}}
    assert test_utils.update_dict(target, {"a": {"b": 3}, "d": 4}) is target
    assert target == {"a": {"b": 3, "c": 2}, "d": 4}


def test_to_np():
    tree = test_utils.to_np({"a": jnp.ones(2, jnp.bfloat16), "b": 3})
    assert isinstance(tree["a"], np.ndarray) and tree["a"].dtype == np.float32


def test_shapes_of_variables_and_of_their_metadata(case):
    sub = pax_fiddle.Config(linears.Linear, input_dims=2, output_dims=2)
    config = pax_fiddle.Config(repeats.Repeat, name="loop", sub_tpl=sub, x_times=3)
    layer = config.Instantiate()
    want = {"params/sub/w": [3, 2, 2]}
    case.assertTreeShapes(layer.init(jax.random.key(0), jnp.ones([1, 2])), want)
    case.assertTreeShapes(layer.abstract_init_with_metadata(jnp.ones([1, 2])), want)
    with pytest.raises(AssertionError):
        case.assertTreeShapes({"params": {}}, want)


def test_run_layer(case):
    config = pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=2)
    x = jnp.ones([1, 3])
    run = test_utils.run_layer(config, x)
    assert run.layer.name == "linear" and config.name is None
    case.assertAllClose(run.output, x @ run.variables["params"]["w"])
    again = test_utils.run_layer(run.layer, 2 * x, variables=run.variables)
    case.assertAllClose(again.output, 2 * run.output)
    case.assertNotAllClose(test_utils.run_layer(config, x, seed=1).output, run.output)


def test_run_layer_hands_out_random_numbers_and_the_kind_of_call():
    class Noisy(base_layer.BaseLayer):
        def setup(self) -> None:
            dropout = pax_fiddle.Config(stochastics.Dropout, keep_prob=0.5)
            self.create_child("dropout", dropout)

        def __call__(self, x: jax.Array) -> jax.Array:
            self.add_summary("mean", jnp.mean(x))
            return self.dropout(x)

        def twice(self, x: jax.Array) -> jax.Array:
            return self(self(x))

    x = jnp.ones([7, 5])
    run = test_utils.run_layer(Noisy.config(), x)
    assert set(np.unique(run.output)) == {0.0, 2.0}
    assert run.updated["summaries"]["mean_scalar"] == 1.0
    evaluated = test_utils.run_layer(Noisy.config(), x, do_eval=True, method="twice", mutable=[])
    np.testing.assert_array_equal(evaluated.output, x)
    assert evaluated.updated == {}
