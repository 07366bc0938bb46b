"""What each layer makes and takes, from one abstract call: nothing is allocated or computed."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import linen as nn

from praxis.core import abstract, boxed, names
from praxis.core.context import JaxContext
from praxis.inspection.cost import Cost, costs_by_mark, mark
from praxis.inspection.table import Column, Table, count_text, size_text

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer

_MUTABLE = (
    names.NON_TRAINABLE,
    names.AUX_LOSS,
    names.DECODE_CACHE,
    names.PREFIX_DECODE_CACHE,
    *names.NON_PAX_VAR_COLLECTION,
)
_STREAMS = (names.PARAMS, names.RANDOM, names.NON_PAX_RNG_KEY)

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer in an abstract call.

    Attributes:
      path: Path below the outermost layer, as in the tree of variables; empty for that layer.
      kind: Name of its class.
      method: The method that was called; of several, `__call__` or the first.
      output: Its result, arrays as ShapeDtypeStructs.
      num_params: Elements of its trainable variables and those of its children.
      own: Cost without the children.
      total: Cost with the children; of a layer in a loop, for all its rounds.
    """

    path: Path
    kind: str
    method: str
    output: Any
    num_params: int
    own: Cost
    total: Cost


@dataclasses.dataclass(frozen=True)
class _Call:
    path: Path
    kind: str
    method: str
    entered: bool
    output: Any = None


def layer_costs(
    layer: "BaseLayer",
    *args: Any,
    method: Callable[..., Any] | str | None = None,
    variables: Mapping[str, Any] | None = None,
    do_eval: bool = True,
    **kwargs: Any,
) -> list[LayerCost]:
    """Runs a layer on shapes and says what each layer in it makes and takes.

    Args:
      layer: A layer outside of init and apply.
      *args: Arrays or ShapeDtypeStructs; other values are passed on as they are.
      method: The method that is run; None: `__call__`.
      variables: Arrays or ShapeDtypeStructs, where `init` by the same call does not make them, as
        with `extend_step` on a cache.
      do_eval: Whether the layer is run as in evaluation, without dropout.
      **kwargs: Further arguments of the method.

    Returns:
      The outermost layer, then the others in the order of their first call.
    """
    context = JaxContext.HParams(do_eval=do_eval)
    if variables is None:
        variables = abstract.abstract_init(
            layer,
            args,
            kwargs,
            context=context,
            mutable=[*names.DEFAULT_INIT_MUTABLE_LIST, *_MUTABLE],
            method=method,
            capture_intermediates=False,
        )
    unboxed: dict[str, Any] = boxed.maybe_unbox_value(variables)
    calls: list[_Call] = []
    arrays, arguments = abstract.split_arrays(args, kwargs)

    def run(variables: Any, keys: Any, arrays: Any) -> Any:
        run_args, run_kwargs = arguments(arrays)
        return layer.apply(
            variables, *run_args, rngs=keys, method=method, mutable=list(_MUTABLE), **run_kwargs
        )

    keys = {stream: jax.random.PRNGKey(0) for stream in _STREAMS}
    with JaxContext.new_context(hparams=context), nn.intercept_methods(_recorder(calls)):
        jaxpr = jax.make_jaxpr(run)(unboxed, keys, arrays)
    return _by_layer(calls, costs_by_mark(jaxpr), unboxed.get(names.PARAMS, {}))


def layer_table(
    layer: "BaseLayer",
    *args: Any,
    method: Callable[..., Any] | str | None = None,
    variables: Mapping[str, Any] | None = None,
    do_eval: bool = True,
    max_depth: int | None = None,
    **kwargs: Any,
) -> Table:
    """Lists the layers that a call runs: output, parameters, arithmetic and memory traffic.

    Each row counts the layers below too. `FLOPs` leaves out exp, tanh, sqrt and the like, as XLA
    does; `traffic` is an estimate, see `praxis.inspection.cost.Cost`.

    Args:
      layer: A layer outside of init and apply.
      *args: As `layer_costs`.
      method: As `layer_costs`.
      variables: As `layer_costs`.
      do_eval: As `layer_costs`.
      max_depth: Layers deeper than this are left out, though counted; 0: the outermost alone.
      **kwargs: Further arguments of the method.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> config = pax_fiddle.Config(linears.Linear, name="up", input_dims=3, output_dims=5)
      >>> x = jax.ShapeDtypeStruct([2, 3], jnp.float32)
      >>> print(layer_table(pax_fiddle.build(config), x, max_depth=0))
      layer  class   output        params  FLOPs  traffic
      -----  ------  ------------  ------  -----  -------
      up     Linear  float32[2,5]      15     60    124 B
    """
    found = layer_costs(layer, *args, method=method, variables=variables, do_eval=do_eval, **kwargs)
    root = layer.name or "(root)"
    rows = [
        (
            "/".join((root, *entry.path)),
            entry.kind + ("" if entry.method == "__call__" else f".{entry.method}"),
            shapes_text(entry.output),
            f"{entry.num_params:,}",
            count_text(entry.total.flops),
            size_text(entry.total.num_bytes),
        )
        for entry in found
        if max_depth is None or len(entry.path) <= max_depth
    ]
    titles = ("layer", "class", "output")
    numbers = ("params", "FLOPs", "traffic")
    columns = [*map(Column, titles), *(Column(title, is_number=True) for title in numbers)]
    return Table(columns, rows)


def shapes_text(tree: Any) -> str:
    """Returns dtype and shape of the arrays in a tree.

    Example:
      >>> import jax.numpy as jnp
      >>> shapes_text((jnp.ones([2, 3]), None, jnp.zeros([], int)))
      'float32[2,3], int32[]'
    """
    leaves = jax.tree.leaves(tree)
    texts = [
        f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        if hasattr(leaf, "shape")
        else type(leaf).__name__
        for leaf in leaves[:4]
    ]
    return ", ".join([*texts, f"... {len(leaves)} in all"] if len(leaves) > 4 else texts)


def _recorder(calls: list[_Call]) -> Callable[..., Any]:
    """Makes an interceptor that notes each call and marks the operations inside."""
    running: list[Path] = []

    def intercept(
        run: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module: Any = context.module
        # Methods that setup calls for its own purposes compute nothing.
        if context.method_name == "setup" or module._state.in_setup or module.scope is None:
            return run(*args, **kwargs)
        index, path = len(calls), tuple(module.path)
        # Bodies of loops are methods to Flax, but not of the class.
        entered = running[-1:] != [path] and hasattr(type(module), context.method_name)
        call = _Call(path, type(module).__name__, context.method_name, entered)
        calls.append(call)
        running.append(path)
        try:
            with jax.named_scope(mark(index)):
                output = run(*args, **kwargs)
        finally:
            running.pop()
        calls[index] = dataclasses.replace(call, output=jax.tree.map(_shape_only, output))
        return output

    return intercept


def _shape_only(leaf: Any) -> Any:
    # Inside a vmap or scan this is the shape that one round sees.
    is_array = isinstance(leaf, jax.Array | np.ndarray)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array else leaf


def _by_layer(calls: list[_Call], costs: dict[int | None, Cost], params: Any) -> list[LayerCost]:
    shown: dict[Path, _Call] = {}
    own: dict[Path, Cost] = {}
    for index, call in enumerate(calls):
        shown[call.path] = max(shown.get(call.path, call), call, key=_preference)
        own[call.path] = own.get(call.path, Cost()) + costs.get(index, Cost())
    own[()] = own.get((), Cost()) + costs.get(None, Cost())

    def below(path: Path) -> Cost:
        inside = (cost for other, cost in own.items() if other[: len(path)] == path)
        return sum(inside, Cost())

    return [
        LayerCost(
            path, call.kind, call.method, call.output, _count(params, path), own[path], below(path)
        )
        for path, call in shown.items()
    ]


def _preference(call: _Call) -> tuple[bool, bool, bool]:
    """Of several calls of a layer, `__call__` from outside is shown; of equals, the first."""
    own = call.method == "__call__"
    return call.entered, own, own or not call.method.startswith("_")


def _count(params: Any, path: Path) -> int:
    for part in path:
        params = params.get(part, {}) if isinstance(params, Mapping) else {}
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
