"""The first value of a variable from its WeightHParams and a key, bit for bit as in old Pax."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.typing import DTypeLike

from praxis.core.weights import WeightHParams

Initializer = Callable[[jax.Array, Sequence[int], Any], jax.Array]

# Methods of users, by name.
_REGISTERED: dict[str, Initializer] = {}
_SPECIAL = ("constant", "delta_orthogonal")


def get_fan_in_fan_out(
    shape: Sequence[int],
    fan_in_axes: Sequence[int] | None = None,
    fan_out_axes: Sequence[int] | None = None,
) -> tuple[int | None, int | None]:
    """Returns the number of inputs and of outputs of a weight.

    Without axes, the convolution rule: the last two dims are inputs and outputs, and each counts
    once for every position of the dims before them.

    Args:
      shape: Shape of the weight.
      fan_in_axes: Axes whose product is the fan-in.
      fan_out_axes: Axes whose product is the fan-out.

    Returns:
      (fan-in, fan-out); both None for a scalar, both n for a vector of n.

    Raises:
      ValueError: if only one of the two lists of axes is given.
    """
    if not shape:
        return None, None
    if len(shape) == 1:
        return shape[0], shape[0]
    if (fan_in_axes is None) != (fan_out_axes is None):
        raise ValueError(
            f"fan_in_axes = {fan_in_axes} and fan_out_axes = {fan_out_axes} for shape "
            f"{list(shape)}: give both or neither."
        )
    if fan_in_axes is not None and fan_out_axes is not None:
        return (
            math.prod(shape[axis] for axis in fan_in_axes),
            math.prod(shape[axis] for axis in fan_out_axes),
        )
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


def scaled_orthogonal(
    key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Returns an orthogonal [rows, columns] matrix times max(sqrt(rows / columns), 1).

    The decomposition runs in float32 at least, since none exists for shorter floats.
    """
    rows, columns = shape
    wide = jnp.promote_types(dtype, jnp.float32)
    orthogonal = jax.nn.initializers.orthogonal(scale=1.0, column_axis=-1)(
        key, (rows, columns), wide
    )
    return (orthogonal * max(math.sqrt(rows / columns), 1.0)).astype(dtype)


def scaled_delta_orthogonal(
    key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """Returns zeros but for a scaled orthogonal matrix at the centre of the leading dims.

    Xiao et al., "Dynamical Isometry and a Mean Field Theory of CNNs", 2018, arXiv:1806.05393.

    Args:
      key: PRNG key.
      shape: Up to three spatial dims, then rows and columns.
      dtype: A floating type.

    Raises:
      ValueError: if the rank is not 2 to 5.
    """
    if not 2 <= len(shape) <= 5:
        raise ValueError(f"delta_orthogonal has ranks 2 to 5, got shape {list(shape)}.")
    matrix = scaled_orthogonal(key, shape[-2:], dtype)
    if len(shape) == 2:
        return matrix
    centre = tuple((size - 1) // 2 for size in shape[:-2])
    return jnp.zeros(shape, dtype).at[centre].set(matrix)


def init_var(var_p: WeightHParams, prng_key: jax.Array, var_full_name: str) -> jax.Array:
    """Returns the first value of a variable.

    Args:
      var_p: Declaration of the variable, with `init` and `dtype` filled in.
      prng_key: Key of this variable alone.
      var_full_name: Path of the variable, for messages.

    Returns:
      An array of `var_p.shape` and `var_p.dtype`.

    Raises:
      ValueError: if the shape has a zero dim or a stack prefix, the method is unknown, or method,
        scale, shape and dtype do not go together.
    """
    init, shape, dtype = var_p.init, tuple(var_p.shape), var_p.dtype
    if init is None:
        raise ValueError(f"Variable {var_full_name!r} has no initializer: set WeightHParams.init.")
    if any(size <= 0 for size in shape):
        raise ValueError(
            f"Variable {var_full_name!r} has shape {list(shape)}: every dim must be at least 1. "
            "Is a required size of the layer's config missing?"
        )
    if var_p.repeat_prefix:
        raise ValueError(
            f"Variable {var_full_name!r} has repeat_prefix {var_p.repeat_prefix} before it is "
            "stacked; leave the field to the stacking layer."
        )
    if init.method == "constant":
        # A NumPy number would widen bfloat16 variables, and a Python one does not.
        value = init.scale.item() if isinstance(init.scale, np.generic) else init.scale
        return _constant(value, shape, dtype, var_full_name)
    if init.method == "delta_orthogonal":
        if len(shape) < 2:
            logging.warning(
                "%s: delta_orthogonal has no meaning for shape %s, gaussian is used.",
                var_full_name,
                shape,
            )
            return float(init.scale) * jax.random.normal(prng_key, shape, dtype)
        return scaled_delta_orthogonal(prng_key, shape, dtype)
    if init.method in _REGISTERED:
        return float(init.scale) * _REGISTERED[init.method](prng_key, shape, dtype)
    if init.method not in _DRAW:
        known = ", ".join(sorted([*_DRAW, *_REGISTERED, *_SPECIAL]))
        raise ValueError(
            f"Variable {var_full_name!r}: initializer method {init.method!r} is unknown, expected "
            f"one of {known}. Methods of your own are added with register_init_method."
        )
    scale, draw = _scale(var_p, var_full_name), _DRAW[init.method]
    return scale * draw(prng_key, shape, dtype)


def register_init_method(method: str, function: Initializer) -> None:
    """Makes `WeightInit(method, scale)` start variables at `scale * function(key, shape, dtype)`.

    Args:
      method: Name that no other function has.
      function: Takes a key, a shape and a dtype, as those of `jax.nn.initializers`.

    Raises:
      ValueError: if the name is taken by another function.

    Example:
      >>> register_init_method("lecun_normal", jax.nn.initializers.lecun_normal())
      >>> from praxis.core.weights import WeightInit
      >>> init = WeightInit("lecun_normal", 1.0)  # For params_init, or for one variable.
    """
    if method in (*_DRAW, *_SPECIAL) or _REGISTERED.get(method, function) is not function:
        raise ValueError(
            f"Initializer method {method!r} has a function already. Choose another name."
        )
    _REGISTERED[method] = function


def var_init_scale(var_p: WeightHParams, var_key: str | None = None) -> float:
    """Returns the scale of a variable at its start, by which some optimizers scale updates.

    For xavier it is the limit of the uniform draw, not its standard deviation.

    Raises:
      NotImplementedError: for methods other than gaussian, gaussian_sqrt_fanin and xavier.
    """
    init = var_p.init
    if init is None or init.method not in ("gaussian", "gaussian_sqrt_fanin", "xavier"):
        method = None if init is None else init.method
        raise NotImplementedError(
            f"The scale of initializer {method!r} is not defined (variable {var_key or '?'}), only "
            "those of gaussian, gaussian_sqrt_fanin and xavier."
        )
    return _scale(var_p, var_key or "")


def _uniform(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, minval=-1.0, maxval=1.0)


def _truncated(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    return jax.random.truncated_normal(key, lower=-2.0, upper=2.0, shape=shape, dtype=dtype)


_DRAW: dict[str, Callable[..., jax.Array]] = {
    "gaussian": jax.random.normal,
    "gaussian_sqrt_dim": jax.random.normal,
    "gaussian_sqrt_fanin": jax.random.normal,
    "gaussian_sqrt_fanout": jax.random.normal,
    "gaussian_sqrt_fanavg": jax.random.normal,
    "uniform": _uniform,
    "uniform_sqrt_dim": _uniform,
    "uniform_sqrt_fanavg": _uniform,
    "uniform_unit_scaling": _uniform,
    "xavier": _uniform,
    "truncated_gaussian": _truncated,
    "truncated_gaussian_sqrt_dim": _truncated,
    "truncated_gaussian_sqrt_fanin": _truncated,
    "truncated_gaussian_sqrt_fanout": _truncated,
}


def _scale(var_p: WeightHParams, name: str) -> float:
    """The Python float by which the draw is multiplied."""
    assert var_p.init is not None
    method, scale, shape = var_p.init.method, float(var_p.init.scale), tuple(var_p.shape)
    if method.endswith("_sqrt_dim"):
        if len(shape) > 2:
            logging.warning("%s: %s looks at the first dim of %s only.", name, method, shape)
        return scale / math.sqrt(shape[0] if shape else 1)
    if method == "uniform_unit_scaling":
        return scale * math.sqrt(3 / max(1, math.prod(shape[:-1])))
    fan_in, fan_out = get_fan_in_fan_out(shape, var_p.fan_in_axes, var_p.fan_out_axes)
    if fan_in is None or fan_out is None:
        # A scalar has no fans; those of a vector of one are the least surprising for xavier.
        return scale * math.sqrt(3) if method == "xavier" else scale
    if method == "xavier" or method == "uniform_sqrt_fanavg":
        return scale * math.sqrt(6 / (fan_in + fan_out))
    if method == "gaussian_sqrt_fanavg":
        return scale * math.sqrt(2 / (fan_in + fan_out))
    if method.endswith("_sqrt_fanin"):
        return scale / math.sqrt(fan_in)
    if method.endswith("_sqrt_fanout"):
        return scale / math.sqrt(fan_out)
    return scale


def _constant(scale: float | int | bool, shape: Sequence[int], dtype: DTypeLike, name: str):
    kind = jnp.dtype(dtype)
    if jnp.issubdtype(kind, jnp.integer) and not isinstance(scale, numbers.Integral):
        raise ValueError(
            f"Variable {name!r} of dtype {kind.name} starts at {scale!r}: expected an int, e.g. "
            "WeightInit.Constant(0)."
        )
    if kind == jnp.bool_:
        return jnp.full(shape, bool(scale))
    if kind.name in ("int4", "uint4"):  # No arithmetic exists for them.
        return jnp.full(shape, scale, jnp.int8).astype(dtype)
    return scale + jnp.zeros(shape, dtype)
