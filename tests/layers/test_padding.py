"""What padded places hold changes no valid output, for all layers that take paddings.

Layers and their inputs are those of the registry: whatever has paddings among its arguments, and
activations with the same first two axes, is tested without further ado.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry
from registry.entry import B

from praxis import base_layer, pax_fiddle, py_utils

PADDINGS = ("paddings", "padding")
# Collections of a call that have to stay the same too.
COMPARED = (base_layer.NON_TRAINABLE, base_layer.AUX_LOSS)

# Entries whose valid outputs depend on what padding holds, and why.
DEPENDENT = {
    "StackingOverTime": "a valid output may hold padded frames beside valid ones, as they are",
    "VQNgrammer": "its cache holds the clusters of padded tokens too",
    "BregmanCompression": "the length of a step is that of the gradient of the whole batch",
    "BregmanNgrammer": "the length of a step is that of the gradient of the whole batch",
}


def padded_inputs(arguments: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Mappings in the arguments, with the names in them of paddings and of what they pad."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from padded_inputs(value)
        if not name.endswith(PADDINGS) or not isinstance(value, np.ndarray):
            continue
        for other, array in arguments.items():
            if isinstance(array, np.ndarray) and array.ndim > 2 and array.dtype == np.float32:
                is_content = other != name and "mask" not in other
                if is_content and array.shape[:2] == value.shape[:2]:
                    yield arguments, name, other


ENTRIES = [entry for entry in registry.ENTRIES if any(padded_inputs(entry.inputs))]


def time_axis(paddings: np.ndarray) -> int:
    """Sequences are [B, T, ...], or time first."""
    return 1 if paddings.shape[0] == B else 0


def pad_ends(paddings: np.ndarray) -> np.ndarray:
    """Paddings of the same shape: one place at the end of the first row, three of the others."""
    axis = time_axis(paddings)
    length = paddings.shape[axis]
    marks = np.ones([B, length], paddings.dtype)
    marks[0, : length - 1] = 0
    marks[1:, : length - 3] = 0
    return (marks if axis == 1 else marks.T).reshape(paddings.shape)


def with_content(arguments: Any, seed: int, size: float) -> Any:
    """A copy of the arguments with ends padded, and random numbers of some size there."""
    if not isinstance(arguments, Mapping):
        return arguments
    copy = {name: with_content(value, seed, size) for name, value in arguments.items()}
    for mapping, paddings_name, name in padded_inputs(arguments):
        if mapping is not arguments:
            continue
        copy[paddings_name] = pad_ends(mapping[paddings_name])
        x = mapping[name]
        hidden = copy[paddings_name].reshape(x.shape[:2] + (1,) * (x.ndim - 2))
        noise = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
        copy[name] = np.where(hidden > 0, size * noise, x)
    return py_utils.NestedMap(copy) if isinstance(arguments, py_utils.NestedMap) else copy


def scattered(shapes: Any) -> Any:
    """Positive numbers in place of the first variables: 0 and 1 would hide a lot."""
    rng = np.random.default_rng(3)

    def draw(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(rng.uniform(0.1, 0.9, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


def paddings_of_outputs(outputs: Any) -> Any:
    """Which outputs are padding, where the layer says so; or None."""
    if isinstance(outputs, Mapping):
        return outputs.get("paddings")
    is_pair = isinstance(outputs, tuple) and len(outputs) == 2
    return outputs[1] if is_pair and np.ndim(outputs[1]) == 2 else None


def keep_valid(outputs: Any, all_paddings: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by path, with 0 at padded places."""
    returned = paddings_of_outputs(outputs)
    if returned is not None:
        all_paddings = [np.asarray(returned), *all_paddings]
    kept = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if leaf is returned:
            kept[jax.tree_util.keystr(path)] = np.asarray(leaf)
            continue
        leaf = np.asarray(leaf)
        for paddings in all_paddings:
            length = paddings.shape[time_axis(paddings)]
            if leaf.ndim < 2 or B not in leaf.shape or length not in leaf.shape:
                continue
            batch, time = leaf.shape.index(B), leaf.shape.index(length)
            marks = paddings.reshape(paddings.shape[:2])
            marks = marks if (batch < time) == (time_axis(paddings) == 1) else marks.T
            shape = [1] * leaf.ndim
            shape[batch], shape[time] = B, length
            leaf = np.where(marks.reshape(shape) > 0, 0, leaf)
            break
        kept[jax.tree_util.keystr(path)] = leaf
    return kept


def case(entry: registry.Entry) -> Any:
    reason = DEPENDENT.get(entry.name)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return pytest.param(entry, id=entry.name, marks=marks)


@pytest.mark.parametrize("entry", [case(entry) for entry in ENTRIES])
def test_content_of_padding_changes_no_valid_output(entry):
    layer = pax_fiddle.build(entry.config())
    streams = {name: jax.random.PRNGKey(1) for name in entry.streams}
    positional, named = entry.positional, entry.inputs
    statics = {k: v for k, v in named.items() if not isinstance(v, np.ndarray | Mapping)}

    def arrays(seed: int, size: float) -> Any:
        filled = with_content(named, seed, size)
        return {k: v for k, v in filled.items() if k not in statics}

    def init(inputs: Any) -> Any:
        return layer.init(
            {"params": jax.random.PRNGKey(0), **streams}, *positional, **inputs, **statics
        )

    @jax.jit
    def call(variables: Any, inputs: Any) -> Any:
        return layer.apply(
            variables,
            *positional,
            rngs=streams,
            mutable=list(COMPARED),
            **inputs,
            **statics,
        )

    variables = scattered(jax.eval_shape(init, arrays(7, 1.0)))
    all_paddings = [pad_ends(mapping[name]) for mapping, name, _ in padded_inputs(named)]
    kept = []
    # Other numbers, not only larger ones: a normalization would make them the same again.
    for seed, size in ((7, 1.0), (8, 100.0)):
        outputs, changed = call(variables, arrays(seed, size))
        changed = {name: changed[name] for name in COMPARED if name in changed}
        kept.append(keep_valid(outputs, all_paddings) | keep_valid(changed, all_paddings))
    first, second = kept
    assert first.keys() == second.keys()
    for path, leaf in first.items():
        np.testing.assert_allclose(second[path], leaf, rtol=2e-5, atol=2e-5, err_msg=path)
