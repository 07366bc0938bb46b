"""Tables that say which tensor of a file becomes which variable, and the code that follows them."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import einops
import jax
import numpy as np

from praxis import base_layer

LAYER = "{layer}"


class Source(NamedTuple):
    """Where a variable comes from.

    Attributes:
      name: Name of the tensor in the file; `{layer}` stands for the number of a layer, `{expert}`
        for the number of an expert.
      pattern: How einops rearranges it, e.g. "(n h) d -> d n h"; None keeps it.
      transform: Applied after that; None for nothing.
    """

    name: str
    pattern: str | None = None
    transform: Callable[[np.ndarray], np.ndarray] | None = None


class Table(NamedTuple):
    """How the tensors of a file become the variables of a model.

    Attributes:
      model: From the path of a variable outside of stacks, below `params`, to its source.
      stacks: From the path of a stack of layers, e.g. "transformer", to the number of its layers
        and, from the path of a variable in a layer, to its source.
      ignored: Patterns of names, as of a shell, of tensors that nobody needs.
    """

    model: Mapping[str, Source]
    stacks: Mapping[str, tuple[int, Mapping[str, Source]]]
    ignored: Sequence[str] = ()


def load(
    tensors: Mapping[str, Any],
    table: Table,
    sizes: Mapping[str, int],
    hparams: Mapping[str, Any],
) -> dict[str, Any]:
    """Makes the variables of a model.

    Args:
      tensors: The tensors of a file, by name.
      table: Says which becomes which.
      sizes: Sizes of the letters in the patterns of `table` that einops cannot find out.
      hparams: Shapes of the model's variables, as `abstract_init_with_metadata` gives them; a stack
        is either unrolled or a `StackedTransformerRepeated`.

    Returns:
      `{"params": ...}`, NumPy arrays in the dtypes of `hparams`.

    Raises:
      ValueError: if a tensor is missing, left over or of the wrong shape. All of them are named.
    """
    reader = _Reader(tensors, sizes)
    flat = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(
            hparams[base_layer.PARAMS], is_leaf=lambda x: isinstance(x, base_layer.WeightHParams)
        )[0]
    }
    values, problems = {}, []
    for path, weight in flat.items():
        try:
            value = _value_of(path, table, reader)
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        shape = (*(weight.repeat_prefix or ()), *weight.shape)
        if value.shape != shape:
            problems.append(f"{path}: expected shape {shape}, but the file gives {value.shape}")
            continue
        values[path] = value.astype(weight.dtype)
    left = [name for name in tensors if name not in reader.used and not _is_ignored(name, table)]
    problems += [f"{name}: no variable takes this tensor of the file" for name in sorted(left)]
    if problems:
        raise ValueError(
            "The tensors do not fit the model. Is this the config.json that belongs to them?\n  "
            + "\n  ".join(problems)
        )
    return {base_layer.PARAMS: _unflatten(values)}


def _is_ignored(name: str, table: Table) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in table.ignored)


def _unflatten(values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _value_of(path: str, table: Table, reader: "_Reader") -> np.ndarray:
    """The value of the variable at a path below `params`."""
    for stack, (num_layers, sources) in table.stacks.items():
        if not path.startswith(f"{stack}/"):
            continue
        below = path.removeprefix(f"{stack}/").removeprefix("repeat/sub/")
        layer, _, variable = below.removeprefix("x_layers_").partition("/")
        if variable not in sources:
            raise ValueError("no tensor is known for this variable")
        if f"{stack}/repeat/" in path:
            layers = [reader.read(sources[variable], layer=i) for i in range(num_layers)]
            return np.stack(layers)
        return reader.read(sources[variable], layer=int(layer))
    if path not in table.model:
        raise ValueError("no tensor is known for this variable")
    return reader.read(table.model[path])


class _Reader:
    """Reads tensors of a file, and remembers which."""

    def __init__(self, tensors: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.tensors = tensors
        self.sizes = sizes
        self.used: set[str] = set()

    def read(self, source: Source, layer: int = 0) -> np.ndarray:
        name = source.name.replace(LAYER, str(layer))
        if "{expert}" in name:
            experts = range(self.sizes["e"])
            value = np.stack([self._tensor(name.replace("{expert}", str(e))) for e in experts])
        else:
            value = self._tensor(name)
        if source.pattern is not None:
            known = re.findall(r"\w+", source.pattern.partition("->")[0])
            letters = {letter: self.sizes[letter] for letter in known if letter in self.sizes}
            value = einops.rearrange(value, source.pattern, **letters)
        return value if source.transform is None else source.transform(value)

    def _tensor(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise ValueError(f"the file has no tensor {name!r}")
        self.used.add(name)
        return np.asarray(self.tensors[name])
