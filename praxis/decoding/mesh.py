"""Decoding with parameters and caches sharded otherwise than in the call over the prefixes."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import PartitionSpec

from praxis import base_layer, py_utils


def maybe_decode_mesh_transpose(
    model: Any, mesh_transpose: dict[str, str] | None
) -> AbstractContextManager[Any]:
    """A context in which annotations name other mesh axes; nothing changes without renaming.

    Args:
      model: Not read; the context holds for all layers.
      mesh_transpose: Real mesh axis by the annotated one.
    """
    del model
    if not mesh_transpose:
        return contextlib.nullcontext()
    context = base_layer.JaxContext.top()
    hparams = base_layer.JaxContext.HParams() if context is None else context.hparams.clone()
    hparams.mesh_axes_transpose = mesh_transpose
    return base_layer.JaxContext.new_context(hparams=hparams)


def maybe_reshard_mdl_for_decode(
    model: Any,
    mesh_transpose: dict[str, str] | None,
    model_var_pspecs: Any,
    transform_decode_state_fn: Callable[..., Any],
) -> Any:
    """A model with the same variables, sharded with renamed mesh axes.

    Args:
      model: The model, a layer inside `apply`.
      mesh_transpose: Real mesh axis by the annotated one. None: returns `model` itself.
      model_var_pspecs: A tree of PartitionSpecs like the parameters.
      transform_decode_state_fn: (model, fn), which replaces the caches; their annotations are
        renewed with it.

    Returns:
      A layer of its own, whose changed caches `model` does not see.

    Raises:
      ValueError: if there are no `model_var_pspecs`.
    """
    if not mesh_transpose:
        return model
    if model_var_pspecs is None:
        raise ValueError(
            f"{model.path_text}: decode_loop_mesh_axes_transpose = {mesh_transpose} needs "
            "model_var_pspecs, a tree of PartitionSpecs of the parameters, which is None."
        )
    key = model.next_prng_key() if model.has_rng(base_layer.RANDOM) else None
    layer, variables = model.unbind()
    variables = dict(variables)

    def reshard(param: jax.Array, spec: PartitionSpec) -> jax.Array:
        param = py_utils.with_sharding_constraint(param, spec)
        renamed = (base_layer.transpose_one_axis(axis, mesh_transpose) for axis in spec)
        return py_utils.with_sharding_constraint(param, PartitionSpec(*renamed))

    specs = model_var_pspecs
    if base_layer.PARAMS in specs and base_layer.PARAMS in variables:
        specs = specs[base_layer.PARAMS]
    variables[base_layer.PARAMS] = jax.tree.map(reshard, variables[base_layer.PARAMS], specs)
    rngs = {} if key is None else {base_layer.RANDOM: key}
    resharded = layer.bind(variables, rngs=rngs, mutable=True)
    transform_decode_state_fn(resharded, lambda x, batch_dim, time_dim: x)
    return resharded
