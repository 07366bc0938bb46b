"""What every layer promises, checked for all of them: one sweep a promise, no code for a layer."""

import copy
import functools
import importlib
import inspect
import pathlib
import pickle
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry
from fiddle.experimental import serialization

import praxis.layers
from praxis import base_hyperparams, base_layer, inspection, pax_fiddle

GOLDEN = pathlib.Path(__file__).parent / "golden"
KEY = jax.random.PRNGKey(0)
# Collections that training changes or collects.
CHANGED = (base_layer.NON_TRAINABLE, base_layer.AUX_LOSS, base_layer.SUMMARIES)

# Operation by operation, a layer with more takes seconds.
MANY_VARIABLES = 12

# Public layers without an entry, and why.
WITHOUT_ENTRY = {
    "BaseActivation": "a base class: its call is for subclasses to define",
    "BaseNormalization": "a base class: its call is for subclasses to define",
    "FlaxModuleAdapterBase": "a base class: subclasses make the module",
    "BaseDepthwiseConv1D": "a base class: subclasses have the variables",
    "BaseRnnCell": "a base class: its steps are for subclasses to define",
}

# By the scope, all tests of an entry come one after the other, and share a process and its caches.
every_entry = pytest.mark.parametrize(
    "entry", registry.ENTRIES, ids=[entry.name for entry in registry.ENTRIES], scope="module"
)


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation() -> Iterator[None]:
    """Compiles several times faster; the arithmetic is the same."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# ---- what the sweeps share, once an entry -------------------------------------------------------


class Traced:
    """A layer and its call as functions of arrays only; static arguments are bound."""

    def __init__(self, entry: registry.Entry, wrong: bool = False, **fields: Any) -> None:
        self.layer = pax_fiddle.build(entry.config(**fields))
        leaves, self.structure = jax.tree.flatten(entry.arguments(wrong))
        # Arrays by identity, because some layers ask for the same array twice.
        self.arrays = {id(leaf): leaf for leaf in leaves if isinstance(leaf, jax.Array)}
        self.leaves = [id(leaf) if id(leaf) in self.arrays else leaf for leaf in leaves]
        self.streams = {name: jax.random.PRNGKey(1) for name in entry.streams}

    def _arguments(self, arrays: dict[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        filled = [arrays.get(leaf, leaf) for leaf in self.leaves]
        return jax.tree.unflatten(self.structure, filled)

    def init(self, arrays: dict[int, Any]) -> Any:
        """The variables."""
        args, kwargs = self._arguments(arrays)
        return self.layer.init({"params": KEY, **self.streams}, *args, **kwargs)

    def apply(self, variables: Any, arrays: dict[int, Any]) -> Any:
        """Outputs, and the collections that the call changed."""
        args, kwargs = self._arguments(arrays)
        return self.layer.apply(
            variables, *args, rngs=self.streams, mutable=list(CHANGED), **kwargs
        )

    def metadata(self) -> Any:
        """The declarations of the variables."""
        args, kwargs = self._arguments(self.arrays)
        return self.layer.abstract_init_with_metadata(*args, **kwargs)


@functools.cache
def traced(entry: registry.Entry) -> Traced:
    return Traced(entry)


@functools.cache
def variables_of(entry: registry.Entry) -> Any:
    return jax.jit(traced(entry).init)(traced(entry).arrays)


@functools.cache
def metadata_of(entry: registry.Entry) -> Any:
    return traced(entry).metadata()


def is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


@functools.cache
def outputs_and_gradients(entry: registry.Entry) -> tuple[Any, Any, Any]:
    """Results of the compiled call; gradients for the parameters and for the floating inputs."""
    call = traced(entry)
    variables = variables_of(entry)
    floating = {i: leaf for i, leaf in call.arrays.items() if is_float(leaf)}

    def loss(params: Any, inputs: dict[int, Any]) -> Any:
        filled = variables | ({base_layer.PARAMS: params} if params else {})
        results = call.apply(filled, call.arrays | inputs)
        # Unequal weights: the plain sum of normalised outputs is constant.
        total = sum(
            jnp.vdot(jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)), leaf.ravel())
            for leaf in jax.tree.leaves(results[0])
            if is_float(leaf)
        )
        return jnp.float32(total), results

    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (params, inputs), results = grad(variables.get(base_layer.PARAMS, {}), floating)
    return results, params, inputs


def paths_and_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree by path, `params/ffn/w`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def declarations(metadata: Any) -> dict[str, base_layer.WeightHParams]:
    """The declarations of variables by path."""
    return paths_and_leaves(metadata, lambda leaf: isinstance(leaf, base_layer.WeightHParams))


def shapes_and_dtypes(leaves: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {path: (tuple(leaf.shape), jnp.dtype(leaf.dtype)) for path, leaf in leaves.items()}


# ---- variables ----------------------------------------------------------------------------------


@every_entry
def test_init_makes_what_the_metadata_declares(entry):
    """Real variables and declared ones have the same paths, shapes and dtypes."""
    made = shapes_and_dtypes(paths_and_leaves(variables_of(entry)))
    declared = {
        path: (tuple(declared.full_shape), jnp.dtype(declared.dtype))
        for path, declared in declarations(metadata_of(entry)).items()
    }
    assert made == declared


def golden_text(metadata: Any) -> str:
    """A line a variable: path, dtype, shape, initializer, sharding, collections."""
    lines = []
    for path, declared in sorted(declarations(metadata).items()):
        prefix = len(declared.repeat_prefix or ())
        shape = ", ".join(map(str, declared.full_shape))
        line = f"{path}: {jnp.dtype(declared.dtype).name}[{shape}]"
        if prefix:
            line += f" stacked={list(declared.repeat_prefix or ())}"
        if declared.init is not None:
            line += f" init={declared.init.method}({declared.init.scale:g})"
        mapping = [None if axis == -1 else axis for axis in declared.full_split_dims_mapping or ()]
        if any(axis is not None for axis in mapping):
            line += f" sharding={mapping}"
        if declared.repeat_optimizer_dims_mapping:
            line += f" optimizer={list(declared.repeat_optimizer_dims_mapping)}"
        if declared.collections:
            line += f" collections={sorted(declared.collections)}"
        lines.append(line + "\n")
    return "".join(lines)


@every_entry
def test_variables_are_those_of_the_golden_tree(entry, request):
    """The tree is the checkpoint format; a layer without variables has no file."""
    path = GOLDEN / f"{entry.name}.txt"
    text = golden_text(metadata_of(entry))
    if request.config.getoption("--update-golden"):
        if text:
            path.write_text(text)
        else:
            path.unlink(missing_ok=True)
    assert text == (path.read_text() if path.exists() else ""), (
        f"The variables differ from {path.name}; if that is meant, run pytest --update-golden."
    )


def test_golden_trees_belong_to_entries():
    names = {entry.name for entry in registry.ENTRIES}
    assert len(names) == len(registry.ENTRIES)
    assert sorted(path.stem for path in GOLDEN.glob("*.txt") if path.stem not in names) == []


# ---- calls --------------------------------------------------------------------------------------


@every_entry
def test_compiled_call_equals_eager_call(entry):
    if len(declarations(metadata_of(entry))) > MANY_VARIABLES:
        pytest.skip(f"more than {MANY_VARIABLES} variables: composed of layers that are compared")
    call = traced(entry)
    eager = paths_and_leaves(call.apply(variables_of(entry), call.arrays))
    compiled = paths_and_leaves(outputs_and_gradients(entry)[0])
    assert eager.keys() == compiled.keys()
    for path, leaf in eager.items():
        np.testing.assert_allclose(
            compiled[path], leaf, rtol=2e-5, atol=2e-5, err_msg=path, strict=True
        )


@every_entry
def test_outputs_and_gradients_are_finite(entry):
    """Nothing gives inf or NaN, and some parameter moves the outputs unless the entry denies it."""
    results, params, inputs = outputs_and_gradients(entry)
    for path, leaf in paths_and_leaves([results, params, inputs]).items():
        assert np.all(np.isfinite(leaf)), path
    if params:
        moves = any(np.any(leaf != 0) for leaf in jax.tree.leaves(params))
        assert moves != entry.has_idle_params


@every_entry
def test_bfloat16_in_gives_bfloat16_out(entry):
    """Parameters stay float32; outputs are bfloat16 but for those that the entry names."""
    call = Traced(entry, fprop_dtype=jnp.bfloat16)
    low = {
        i: leaf.astype(jnp.bfloat16) if is_float(leaf) else leaf for i, leaf in call.arrays.items()
    }
    variables = jax.eval_shape(call.init, low)
    made = shapes_and_dtypes(paths_and_leaves(variables))
    assert made == shapes_and_dtypes(paths_and_leaves(variables_of(entry)))
    outputs, _ = jax.eval_shape(call.apply, variables, low)
    for path, leaf in paths_and_leaves(outputs).items():
        if is_float(leaf):
            stays = entry.float32_outputs == "all" or path in entry.float32_outputs
            assert leaf.dtype == (jnp.float32 if stays else jnp.bfloat16), path


@every_entry
def test_wrong_inputs_give_an_error_that_names_the_layer(entry):
    if isinstance(entry.wrong, str):
        pytest.skip(entry.wrong)
    call = Traced(entry, wrong=True)
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(call.init, call.arrays)
    assert re.match(rf"\w+ '{registry.NAME}[\w/]*': ", str(raised.value)), raised.value


# ---- configs ------------------------------------------------------------------------------------


@every_entry
def test_config_and_variables_can_be_read(entry):
    config = entry.config()
    name = entry.layer_class.__name__
    assert name in repr(config)
    text = base_hyperparams.nested_struct_to_text(config)
    assert re.search(rf"^cls : type/[\w.]+/{name}$", text, re.MULTILINE)
    changed = inspection.config_table(config, changed_only=True)
    assert any("name" in row and repr(registry.NAME) in row for row in changed.rows)
    assert len(inspection.config_table(config).rows) == len(text.splitlines())
    table = inspection.variable_table(metadata_of(entry))
    assert [row[0] for row in table.rows] == list(declarations(metadata_of(entry)))
    assert str(table)


@every_entry
def test_copies_of_a_config_are_the_same_layer(entry):
    """deepcopy, pickle and Fiddle's JSON; the one from JSON builds the same variables."""
    config = entry.config()
    text = base_hyperparams.nested_struct_to_text(config)
    from_json = serialization.load_json(serialization.dump_json(config))
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), from_json):
        assert other is not config
        assert other == config
        assert base_hyperparams.nested_struct_to_text(other) == text
    call = copy.copy(traced(entry))
    call.layer = pax_fiddle.build(from_json)
    assert golden_text(call.metadata()) == golden_text(metadata_of(entry))


# ---- the registry itself ------------------------------------------------------------------------


def public_layers() -> Iterator[type[base_layer.BaseLayer]]:
    """Layers that a module of praxis.layers names in `__all__`, or defines under a public name."""
    for module_info in pkgutil.iter_modules(praxis.layers.__path__, "praxis.layers."):
        if module_info.ispkg:
            continue
        module = importlib.import_module(module_info.name)
        listed = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
        for name in listed:
            value = getattr(module, name)
            if not (inspect.isclass(value) and issubclass(value, base_layer.BaseLayer)):
                continue
            if value.__module__.startswith("praxis.layers."):
                yield value


def test_every_public_layer_has_an_entry():
    covered = {entry.layer_class for entry in registry.ENTRIES}
    missing = {layer.__name__ for layer in public_layers() if layer not in covered}
    assert missing == set(WITHOUT_ENTRY)
