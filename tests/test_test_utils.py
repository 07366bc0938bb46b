"""The test case offered to users."""

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import test_utils
from praxis.core.nested_map import NestedMap


@pytest.fixture
def case():
    made = test_utils.TestCase()
    made.setUp()
    return made


def test_arrays_and_trees_that_agree(case):
    case.assertAllClose([1.0, 2.0], jnp.array([1.0, 2.0 + 1e-7]))
    case.assertAllEqual(NestedMap(a=[jnp.ones([2], jnp.bfloat16)]), {"a": [np.ones([2])]})
    case.assertAllClose({"a": 1.0}, {"a": 1.1}, atol=0.2)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], [1.0, 2.1]),
        ({"a": 1.0}, {"a": 1.1}),
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}),
    ],
)
def test_arrays_and_trees_that_differ(case, x, y):
    for check in (case.assertAllClose, case.assertAllEqual):
        with pytest.raises(AssertionError):
            check(x, y)


def test_generator_starts_from_one_seed(case):
    first = np.random.uniform()  # noqa: NPY002
    case.setUp()
    assert np.random.uniform() == first  # noqa: NPY002


def test_update_dict():
    target = {"a": {"b": 1, "c": 2}}
    assert test_utils.update_dict(target, {"a": {"b": 3}, "d": 4}) is target
    assert target == {"a": {"b": 3, "c": 2}, "d": 4}
