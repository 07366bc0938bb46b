"""A test case with comparisons of arrays, for tests written with absl."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl.testing import parameterized

from praxis.core.nested_map import NestedMap
from praxis.utils.checks import assert_same_structure


def to_np(x: Any) -> Any:
    """Each array of a tree as a NumPy array; bfloat16, which NumPy lacks, as float32."""

    def convert(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    return jax.tree.map(convert, x)


def update_dict(target: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Writes the leaves of `source` into nested dicts, in place, and returns `target`."""
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            update_dict(target[key], value)
        else:
            target[key] = value
    return target


class TestCase(parameterized.TestCase):
    """Compares trees of arrays; NumPy's global generator starts from one seed in each test."""

    def setUp(self) -> None:
        super().setUp()
        # User tests draw their inputs from NumPy's global generator.
        np.random.seed(123456)  # noqa: NPY002

    def assertAllClose(
        self, x: Any, y: Any, rtol: float = 1e-6, atol: float = 1e-6, **kwargs: Any
    ) -> None:
        """Fails unless two trees agree in structure and their arrays nearly in values.

        Args:
          x: Tree of arrays.
          y: Tree of arrays, the expected ones.
          rtol: Relative tolerance.
          atol: Absolute tolerance.
          **kwargs: As of `numpy.testing.assert_allclose`.
        """
        self._compare(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, **kwargs), x, y
        )

    def assertAllEqual(self, x: Any, y: Any) -> None:
        """Fails unless two trees agree in structure and their arrays in values."""
        self._compare(np.testing.assert_array_equal, x, y)

    def _compare(self, compare: Callable[[Any, Any], None], x: Any, y: Any) -> None:
        if isinstance(x, dict) or isinstance(y, dict):
            x, y = NestedMap.FromNestedDict(x), NestedMap.FromNestedDict(y)
            assert_same_structure(x, y, exception_type=self.failureException)
            jax.tree.map(compare, to_np(x), to_np(y))
        else:
            compare(np.asarray(x), np.asarray(y))
