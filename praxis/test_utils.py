"""Helpers for tests of layers: a test case that compares trees, runs of a layer in a line."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl.testing import parameterized

from praxis.config.build import instantiate
from praxis.core.context import JaxContext
from praxis.core.names import PARAMS, RANDOM


def to_np(x: Any) -> Any:
    """Each array of a tree as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    return jax.tree.map(_to_array, x)


def update_dict(target: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Writes the leaves of `source` into nested dicts, in place, and returns `target`."""
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            update_dict(target[key], value)
        else:
            target[key] = value
    return target


def tree_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by path, as a test writes them down: `{"params/linear/w": (3, 5)}`.

    Args:
      tree: Of arrays, ShapeDtypeStructs or WeightHParams (whose shape is that of the stored array).
    """
    leaves, _ = jax.tree.flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "full_shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(
            leaf.full_shape if hasattr(leaf, "full_shape") else np.shape(leaf)
        )
        for path, leaf in leaves
    }


class LayerRun(NamedTuple):
    """What `run_layer` returns.

    Attributes:
      output: Of the layer.
      variables: That `init` made, or that were given.
      updated: The collections that the call changed or made, such as `summaries` and `aux_loss`.
      layer: The layer, to call again: `run.layer.apply(run.variables, ...)`.
    """

    output: Any
    variables: Any
    updated: Any
    layer: Any


def run_layer(
    layer: Any,
    *args: Any,
    variables: Any = None,
    seed: int = 0,
    do_eval: bool = False,
    mutable: Any = True,
    method: Callable[..., Any] | str | None = None,
    **kwargs: Any,
) -> LayerRun:
    """Builds a layer, makes its variables and calls it, as most tests of layers start.

    Args:
      layer: A layer or its config, which gets the name of its class if it has none.
      *args: Arguments of the call.
      variables: Those of an earlier run, not made anew.
      seed: Of the streams `params` and `random`, which get different keys.
      do_eval: Whether the call is one of evaluation.
      mutable: Collections that the call may change; True: all.
      method: What is called; None: `__call__`.
      **kwargs: Further arguments of the call.

    Example:
      >>> import jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> run = run_layer(pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=2),
      ...                 jnp.ones([1, 3]))
      >>> run.output.shape, tree_shapes(run.variables)
      ((1, 2), {'params/w': (3, 2)})
    """
    if hasattr(layer, "__fn_or_cls__"):
        layer = instantiate(layer, **({} if layer.name else {"name": layer.cls.__name__.lower()}))
    params_key, init_key, apply_key = jax.random.split(jax.random.key(seed), 3)
    with JaxContext.new_context(hparams=JaxContext.HParams(do_eval=do_eval)):
        if variables is None:
            rngs = {PARAMS: params_key, RANDOM: init_key}
            variables = layer.init(rngs, *args, method=method, **kwargs)
        rngs = {RANDOM: apply_key}
        output, updated = layer.apply(
            variables, *args, rngs=rngs, mutable=mutable, method=method, **kwargs
        )
    return LayerRun(output, variables, updated, layer)


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

        A dict counts as equal to a NestedMap, and a list of numbers to an array.

        Args:
          x: Tree of arrays.
          y: Tree of arrays, the expected ones.
          rtol: Relative tolerance.
          atol: Absolute tolerance.
          **kwargs: As of `numpy.testing.assert_allclose`.
        """
        self._compare(np.testing.assert_allclose, x, y, rtol=rtol, atol=atol, **kwargs)

    def assertNotAllClose(self, x: Any, y: Any, rtol: float = 1e-6, atol: float = 1e-6) -> None:
        """Fails if `assertAllClose` passes."""
        try:
            self.assertAllClose(x, y, rtol=rtol, atol=atol)
        except AssertionError:
            return
        self.fail(f"Both are nearly {x}.")

    def assertAllEqual(self, x: Any, y: Any) -> None:
        """Fails unless two trees agree in structure and their arrays in values."""
        self._compare(np.testing.assert_array_equal, x, y)

    def assertTreeShapes(self, tree: Any, shapes: dict[str, Sequence[int]]) -> None:
        """Fails unless a tree holds exactly arrays of these shapes, by path; see `tree_shapes`."""
        self.assertEqual(tree_shapes(tree), {path: tuple(shape) for path, shape in shapes.items()})

    def assertAllFinite(self, tree: Any) -> None:
        """Fails if an array of a tree holds NaN or infinity; names its path."""
        bad = [path for path, leaf in _by_path(tree).items() if not np.all(np.isfinite(leaf))]
        self.assertFalse(bad, f"NaN or infinity in {bad}")

    def _compare(self, compare: Callable[..., None], x: Any, y: Any, **kwargs: Any) -> None:
        leaves = [jax.tree_util.all_leaves([side]) for side in (x, y)]
        if any(leaves) and all(map(_may_be_array, (x, y))):
            compare(_to_array(x), _to_array(y), **kwargs)
            return
        found, expected = _by_path(x), _by_path(y)
        if any(leaves) or sorted(found) != sorted(expected):
            self.fail(f"Not the same structure: {sorted(found)} and {sorted(expected)}")
        for path, leaf in found.items():
            compare(leaf, expected[path], **{"err_msg": f"at {path}", **kwargs})


def _to_array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _may_be_array(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or jax.tree_util.all_leaves([x])


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _to_array(leaf) for path, leaf in leaves}
