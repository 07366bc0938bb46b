"""Names for array types, nested trees of them, and optional run-time type checking."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jaxtyping
import numpy as np

from praxis.core.nested_map import NestedMap

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

JTensor = jax.Array
PRNGKey = JTensor
NpTensor = np.ndarray
ShapeDtypeStruct = jax.ShapeDtypeStruct
PartitionSpec = jax.sharding.PartitionSpec
ArrayLike = jax.typing.ArrayLike

Nested = T | tuple[Any, ...] | list[Any] | dict[str, Any] | NestedMap
NestedBool = Nested[bool]
NestedInt = Nested[int]
NestedJTensor = Nested[JTensor]
NestedNpTensor = Nested[NpTensor]
NestedPartitionSpec = Nested[PartitionSpec]
NestedShapeDtypeStruct = Nested[ShapeDtypeStruct]
NestedShapeDtypeLike = Nested[ShapeDtypeStruct | JTensor | NpTensor]

SummaryDict = dict[str, JTensor]
LogicalAxisRules = Sequence[tuple[str, str | tuple[str, ...] | None]]


class _StandIn(type):
    """Metaclass whose classes accept instances of the types in `accepted`."""

    accepted: tuple[type, ...] = ()

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.accepted)


class JaxArrayT(metaclass=_StandIn):
    """In `isinstance`: a JAX array, or the ShapeDtypeStruct that stands for one."""

    accepted = (jax.Array, jax.ShapeDtypeStruct)


class ArrayT(metaclass=_StandIn):
    """In `isinstance`: a JAX or NumPy array, or the ShapeDtypeStruct that stands for one."""

    accepted = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


Array = JTensor | NpTensor
Float = jaxtyping.Float
Int = jaxtyping.Int
Bool = jaxtyping.Bool
Shaped = jaxtyping.Shaped


def typed(fn: F) -> F:
    """Checks the annotations of `fn` at each call, where beartype is installed.

    Without beartype the function is returned as it is and costs nothing.
    """
    if importlib.util.find_spec("beartype") is None:
        return fn
    import beartype

    return jaxtyping.jaxtyped(typechecker=beartype.beartype)(fn)
