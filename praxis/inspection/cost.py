"""Arithmetic and memory traffic of a traced computation, counted from its jaxpr."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# XLA counts these apart from the other arithmetic, one for each element.
_TRANSCENDENTAL = _words(
    "exp exp2 log log1p expm1 tanh sinh cosh sin cos tan asin acos atan atan2 pow sqrt rsqrt "
    "cbrt logistic erf erfc erf_inv lgamma digamma"
)
_ELEMENTWISE = _words(
    "add add_any sub mul div rem max min neg abs sign floor ceil round is_finite nextafter "
    "clamp and or xor not eq ne lt le gt ge select_n convert_element_type square integer_pow "
    "shift_left shift_right_logical shift_right_arithmetic population_count"
)
_REDUCTIONS = _words(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin "
    "cumsum cumprod cummax cummin cumlogsumexp reduce_window_sum reduce_window_max"
)
# Other operations move whole arrays through memory; those above fuse with their neighbours.
_MOVING = _words(
    "gather scatter scatter-add scatter_add scatter-mul dynamic_slice dynamic_update_slice sort "
    "concatenate top_k"
)
_MARK = re.compile(r"pax<(\d+)>")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a computation takes.

    Attributes:
      flops: Additions, multiplications, comparisons and so on; a multiply-add counts as two.
      transcendentals: Elements for which exp, tanh, sqrt and so on are worked out.
      num_bytes: Bytes read and written by products, convolutions, reductions, gathers and sorts,
        as if everything elementwise were fused with them. An estimate.
    """

    flops: float = 0.0
    transcendentals: float = 0.0
    num_bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.transcendentals + other.transcendentals,
            self.num_bytes + other.num_bytes,
        )

    def __mul__(self, times: float | int) -> "Cost":
        return Cost(self.flops * times, self.transcendentals * times, self.num_bytes * times)


def mark(index: int) -> str:
    """Returns the name for `jax.named_scope` under which `costs_by_mark` finds operations."""
    return f"pax<{index}>"


def costs_by_mark(jaxpr: core.ClosedJaxpr) -> dict[int | None, Cost]:
    """Adds up the cost of a computation by the innermost mark around each operation.

    The body of a scan counts as often as it runs, the body of a while loop once, of the branches
    of a conditional the most expensive. What nothing depends on is left out. Kernels written by
    hand count by their body.

    Args:
      jaxpr: As `jax.make_jaxpr` gives it.

    Returns:
      Costs by mark; under None what stands outside all of them.
    """
    costs: dict[int | None, Cost] = defaultdict(Cost)
    _add(jaxpr.jaxpr, None, 1, costs)
    return dict(costs)


def total_cost(jaxpr: core.ClosedJaxpr) -> Cost:
    """Returns the cost of a whole computation.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> product = jax.make_jaxpr(jnp.dot)(jnp.ones([2, 3]), jnp.ones([3, 5]))
      >>> total_cost(product).flops
      60.0
    """
    return sum(costs_by_mark(jaxpr).values(), Cost())


def _add(jaxpr: core.Jaxpr, owner: int | None, times: int, costs: dict[int | None, Cost]) -> None:
    for equation in _live(jaxpr):
        marks = _MARK.findall(str(equation.source_info.name_stack))
        inner = int(marks[-1]) if marks else owner
        repeated = times * _repeats(equation)
        if equation.primitive.name == "cond":
            branches = []
            for branch in equation.params["branches"]:
                own: dict[int | None, Cost] = defaultdict(Cost)
                _add(branch.jaxpr, inner, repeated, own)
                branches.append(own)
            for key, cost in max(branches, key=_weight).items():
                costs[key] = costs[key] + cost
            continue
        bodies = _bodies(equation)
        for body in bodies:
            _add(body, inner, repeated, costs)
        if not bodies:
            costs[inner] = costs[inner] + _cost(equation) * repeated


def _live(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """Returns the equations on which the outputs depend, in order."""
    needed = {var for var in jaxpr.outvars if isinstance(var, core.Var)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(var in needed for var in equation.outvars):
            kept.append(equation)
            needed.update(var for var in equation.invars if isinstance(var, core.Var))
    return kept[::-1]


def _weight(costs: dict[int | None, Cost]) -> float:
    total = sum(costs.values(), Cost())
    return total.flops + total.transcendentals


def _repeats(equation: core.JaxprEqn) -> int:
    """How often the body of an equation runs, over all devices."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        return params["mesh"].size
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _bodies(equation: core.JaxprEqn) -> Sequence[core.Jaxpr]:
    if equation.primitive.name.startswith(("scatter", "reduce")):
        return ()  # Their bodies say how two elements are combined.
    return [
        inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
        for inner in core.jaxprs_in_params(equation.params)
    ]


def _cost(equation: core.JaxprEqn) -> Cost:
    """Cost of an equation without a body."""
    name = equation.primitive.name
    out = sum(_size(var) for var in equation.outvars)
    moved = float(sum(_num_bytes(var) for var in [*equation.invars, *equation.outvars]))
    if name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        depth = math.prod(_shape(equation.invars[0])[dim] for dim in contracted)
        return Cost(flops=2.0 * out * depth, num_bytes=moved)
    if name == "conv_general_dilated":
        return Cost(flops=_convolution_flops(equation), num_bytes=moved)
    if name in _REDUCTIONS:
        # Each output takes one addition less than the elements that go into it.
        return Cost(flops=float(max(_size(equation.invars[0]) - out, out)), num_bytes=moved)
    if name in _TRANSCENDENTAL:
        return Cost(transcendentals=float(out))
    if name in _ELEMENTWISE:
        return Cost(flops=float(out))
    if name in _MOVING:
        return Cost(num_bytes=_moved_bytes(equation))
    return Cost()


def _moved_bytes(equation: core.JaxprEqn) -> float:
    """A gather or slice reads what it returns, an update writes what it is given."""
    name, sizes = equation.primitive.name, [_num_bytes(var) for var in equation.invars]
    if name == "dynamic_update_slice":
        return 2.0 * sizes[1]
    if name.startswith("scatter"):
        return 2.0 * sizes[2] + sizes[1]
    written = float(sum(_num_bytes(var) for var in equation.outvars))
    return 2.0 * written + (sizes[1] if name == "gather" else 0)


def _convolution_flops(equation: core.JaxprEqn) -> float:
    """Multiply-adds of a convolution, without those that meet padding."""
    params = equation.params
    numbers = params["dimension_numbers"]
    inputs, kernel = _shape(equation.invars[0]), _shape(equation.invars[1])
    outputs = _shape(equation.outvars[0])
    products = outputs[numbers.out_spec[0]] * outputs[numbers.out_spec[1]]
    products *= kernel[numbers.rhs_spec[1]]  # Input channels of a group.
    for axis, (low, _) in enumerate(params["padding"]):
        products *= _valid_products(
            inputs[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            outputs[numbers.out_spec[2 + axis]],
            low=low,
            stride=params["window_strides"][axis],
            inputs_dilation=params["lhs_dilation"][axis],
            kernel_dilation=params["rhs_dilation"][axis],
        )
    return 2.0 * products


def _valid_products(
    inputs: int,
    kernel: int,
    outputs: int,
    *,
    low: int,
    stride: int,
    inputs_dilation: int,
    kernel_dilation: int,
) -> int:
    """Pairs of an output and a kernel position, along one axis, that meet an input."""
    last = (inputs - 1) * inputs_dilation
    positions = (
        output * stride + offset * kernel_dilation - low
        for output in range(outputs)
        for offset in range(kernel)
    )
    return sum(0 <= at <= last and at % inputs_dilation == 0 for at in positions)


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(var.aval.shape)


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _num_bytes(var: Any) -> int:
    dtype = getattr(var.aval, "dtype", None)
    if dtype is None:
        return 0
    extended = jnp.issubdtype(dtype, jax.dtypes.extended)  # Random keys.
    return _size(var) * (8 if extended else dtype.itemsize)
