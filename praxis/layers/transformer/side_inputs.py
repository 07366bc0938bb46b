"""Arguments of repeated calls, of which some arrays are other ones in each call."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax


def _same(x: Any) -> Any:
    return x


def is_array(leaf: Any) -> bool:
    """Whether an argument is an array, or stands for one."""
    return hasattr(leaf, "shape")


@dataclasses.dataclass(frozen=True)
class SideInputs:
    """A tree of arguments, with some of its leaves marked.

    Attributes:
      leaves: The leaves of the tree.
      structure: Its structure.
      marked: Positions of the marked leaves.
    """

    leaves: Sequence[Any]
    structure: Any
    marked: Sequence[int]

    @classmethod
    def of(cls, arguments: Any, mark: Callable[[Any], bool]) -> "SideInputs":
        """Marks the leaves of a tree for which `mark` is true."""
        leaves, structure = jax.tree.flatten(arguments)
        return cls(leaves, structure, [i for i, leaf in enumerate(leaves) if mark(leaf)])

    @property
    def own(self) -> list[Any]:
        """The marked leaves."""
        return [self.leaves[i] for i in self.marked]

    def fill(self, own: Sequence[Any], shared: Callable[[Any], Any] = _same) -> Any:
        """The tree, with `own` for the marked leaves, and `shared` of each other array."""
        filled = [shared(leaf) if is_array(leaf) else leaf for leaf in self.leaves]
        for i, leaf in zip(self.marked, own, strict=True):
            filled[i] = leaf
        return jax.tree.unflatten(self.structure, filled)
