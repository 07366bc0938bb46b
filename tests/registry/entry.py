"""What an entry is, and the arrays that entries share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np

from praxis import base_layer, pax_fiddle

Config = pax_fiddle.Config

# Batch, target and source length, model and hidden width, heads and their width, vocabulary.
B, T, S, D, F, N, H, V = 2, 5, 7, 11, 13, 2, 3, 17
# A model width that is even, for sines and cosines, and a multiple of N.
EVEN = 6
NAME = "top"
# What hides in a mask that is added to the logits: half of it, as -1e9 is, counts as 0.
HIDES = -0.7 * float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A layer to sweep over.

    Attributes:
      name: Name of the test cases and of the golden file.
      template: Config of the layer; `config` returns a copy.
      inputs: Arguments of the call by name; NumPy arrays are traced, the rest is static.
      positional: Arguments that are passed by position, before the others.
      wrong: Arguments in place of those of `inputs` that have to be refused with an error of the
        layer; or a text that says why there are none.
      streams: Random streams the call needs beside `params`.
      has_idle_params: Whether the outputs do not depend on the parameters.
      float32_outputs: Names of the outputs that are float32 whatever `fprop_dtype` is; or "all".
    """

    name: str
    template: Config
    inputs: Mapping[str, Any]
    wrong: Mapping[str, Any] | str
    positional: Sequence[Any] = ()
    streams: Sequence[str] = ()
    has_idle_params: bool = False
    float32_outputs: Sequence[str] | str = ()

    @property
    def layer_class(self) -> type[base_layer.BaseLayer]:
        """The class of the layer."""
        cls = fdl.get_callable(self.template)
        assert isinstance(cls, type) and issubclass(cls, base_layer.BaseLayer)
        return cls

    def config(self, **fields: Any) -> Config:
        """Returns a config of the layer, under `NAME`, with further fields set."""
        return self.template.clone().set(name=NAME, **fields)

    def arguments(self, wrong: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns positional and named arguments of the call, arrays as JAX arrays."""
        inputs = dict(self.inputs)
        if wrong:
            assert not isinstance(self.wrong, str)
            inputs |= self.wrong
        # One array that is passed twice stays one.
        made: dict[int, jax.Array] = {}

        def as_jax(leaf: Any) -> Any:
            if not isinstance(leaf, np.ndarray):
                return leaf
            return made.setdefault(id(leaf), jnp.asarray(leaf))

        return jax.tree.map(as_jax, (tuple(self.positional), inputs))


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ids(*shape: int, below: int = V) -> np.ndarray:
    """Token ids, or other integers."""
    return np.random.default_rng(1).integers(0, below, shape).astype(np.int32)


def paddings(batch: int = B, length: int = T) -> np.ndarray:
    """[B, T], 1 on the last position of the last row."""
    marks = np.zeros([batch, length], np.float32)
    marks[-1, -1] = 1.0
    return marks


def causal(length: int = T) -> np.ndarray:
    """[1, 1, T, T], hides later positions."""
    return np.triu(np.full([length, length], HIDES, np.float32), 1)[np.newaxis, np.newaxis]


def open_mask(target: int = T, source: int = S) -> np.ndarray:
    """[1, 1, T, S], hides nothing."""
    return np.zeros([1, 1, target, source], np.float32)


ENTRIES: list[Entry] = []


def add(template: Config, inputs: Mapping[str, Any], variant: str = "", **options: Any) -> None:
    """Appends an entry, named after its class and the variant."""
    name = fdl.get_callable(template).__name__ + (f"-{variant}" if variant else "")
    ENTRIES.append(Entry(name=name, template=template, inputs=inputs, **options))
