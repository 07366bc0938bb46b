"""In which precision the forward pass computes."""

from typing import Any

import jax
import jax.numpy as jnp

from praxis import base_layer


def forward_dtype(model: base_layer.BaseLayer) -> Any:
    """The dtype of a model's forward pass; one left unset is the dtype of its variables.

    Raises:
      ValueError: if it is neither float32 nor bfloat16.
    """
    given = model.fprop_dtype if model.fprop_dtype is not None else model.dtype
    try:
        dtype = jnp.dtype(given)
    except TypeError:
        dtype = None
    if dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(
            f"{type(model).__name__} {model.name!r}: fprop_dtype is {given!r}, expected float32 or "
            "bfloat16. Set fprop_dtype in the config of the model, e.g. jnp.bfloat16."
        )
    return dtype


def cast_variables(mdl_vars: Any, var_weight_hparams: Any, fprop_dtype: Any) -> Any:
    """Variables in bfloat16 for a bfloat16 forward pass, but for those that forbid it."""
    if fprop_dtype != jnp.bfloat16:
        return mdl_vars

    def cast(leaf: jax.Array, hparams: base_layer.WeightHParams) -> jax.Array:
        if base_layer.var_disallow_bfloat16_conversion(hparams):
            return leaf
        return _narrowed(leaf)

    return jax.tree.map(cast, mdl_vars, var_weight_hparams)


def cast_inputs(inputs: Any, fprop_dtype: Any) -> Any:
    """Every float32 array of a batch in bfloat16, weights and paddings too."""
    return jax.tree.map(_narrowed, inputs) if fprop_dtype == jnp.bfloat16 else inputs


def cast_input_specs(specs: Any, fprop_dtype: Any) -> Any:
    """As `cast_inputs`, for shapes."""

    def cast(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        narrow = fprop_dtype == jnp.bfloat16 and spec.dtype == jnp.float32
        return jax.ShapeDtypeStruct(spec.shape, jnp.bfloat16 if narrow else spec.dtype)

    return jax.tree.map(cast, specs)


def widen(tree: Any) -> Any:
    """Every bfloat16 array in float32, for what leaves a step."""

    def cast(leaf: Any) -> Any:
        is_narrow = getattr(leaf, "dtype", None) == jnp.bfloat16
        return leaf.astype(jnp.float32) if is_narrow else leaf

    return jax.tree.map(cast, tree)


def cast_like(tree: Any, like: Any) -> Any:
    """Each leaf in the dtype of its counterpart."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf).astype(other.dtype), tree, like)


def _narrowed(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf
