"""Which common values each layer of a model ends up with, and which ancestor they came from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fiddle as fdl
from flax import linen as nn

from praxis.config.build import build
from praxis.config.text import leaf_text
from praxis.core import abstract, inherit, names
from praxis.core.context import JaxContext
from praxis.core.weights import WeightInit, is_default_param_init
from praxis.inspection.table import Column, Table, without_empty_columns

Path = tuple[str, ...]

_PATH = "_inspected_path"


@dataclasses.dataclass(frozen=True)
class InheritedValue:
    """A common field of one layer.

    Attributes:
      path: Path of the layer below the outermost one; empty for that one.
      kind: Name of its class.
      field: Name of the field.
      value: Its value once the layer runs.
      origin: Path of the layer on which the value was set; None: it is the default.
    """

    path: Path
    kind: str
    field: str
    value: Any
    origin: Path | None


def inherited_values(
    config: fdl.Buildable,
    *args: Any,
    method: Callable[..., Any] | str | None = None,
    **kwargs: Any,
) -> list[InheritedValue]:
    """Builds a layer, initialises it on shapes, and says where its common fields come from.

    The fields are those that a layer takes over from its parent where nobody set them: `dtype`,
    `fprop_dtype`, `params_init`, those of the mesh, and `skip_lp_regularization`.

    Args:
      config: Config of a layer.
      *args: Arrays or ShapeDtypeStructs for the method; other values are passed on.
      method: The method that is run; None: `__call__`.
      **kwargs: Further arguments of the method.

    Returns:
      Every field of every layer that ran, from the outermost layer down.
    """
    sources: dict[Path, dict[str, Path]] = {}
    layers: dict[Path, Any] = {}

    def note(source: Any, target: Any, taken: Sequence[str]) -> None:
        path = _target_path(source, target)
        if isinstance(target, fdl.Buildable):
            vars(target)[_PATH] = path  # Copies of the config keep it.
        for name in taken:
            sources.setdefault(path, {})[name] = _path_of(source)

    def intercept(run: Any, run_args: Any, run_kwargs: Any, context: Any) -> Any:
        module = context.module
        if hasattr(module, "copy_base_hparams") and module.scope is not None:
            layers.setdefault(tuple(module.path), module)
        return run(*run_args, **run_kwargs)

    with inherit.listening(note), nn.intercept_methods(intercept):
        layer = build(config)
        abstract.abstract_init(
            layer,
            args,
            kwargs,
            context=JaxContext.HParams(),
            mutable=names.DEFAULT_INIT_MUTABLE_LIST,
            method=method,
            capture_intermediates=False,
        )
    return [
        InheritedValue(
            path,
            type(module).__name__,
            field,
            getattr(module, field),
            _origin(path, field, sources, layers),
        )
        for path, module in layers.items()
        for field in inherit.INHERITED
    ]


def inheritance_table(
    config: fdl.Buildable,
    *args: Any,
    method: Callable[..., Any] | str | None = None,
    **kwargs: Any,
) -> Table:
    """Lists the common fields of each layer; after each value, the layer on which it was set.

    A default has nothing after it. Fields that are unset everywhere are left out.

    Args:
      config: As `inherited_values`.
      *args: As `inherited_values`.
      method: As `inherited_values`.
      **kwargs: As `inherited_values`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> from praxis.layers import linears
      >>> config = pax_fiddle.Config(linears.FeedForward, name="ff", input_dims=3, output_dims=5)
      >>> config.set(fprop_dtype=jnp.bfloat16, has_bias=False)  # doctest: +ELLIPSIS
      <PaxConfig...
      >>> print(inheritance_table(config, jax.ShapeDtypeStruct([2, 3], jnp.float32)))
      layer             class        dtype    fprop_dtype     params_init
      ----------------  -----------  -------  --------------  -----------
      ff                FeedForward  float32  bfloat16  (ff)  xavier(1)
      ff/linear         Linear       float32  bfloat16  (ff)  xavier(1)
      ff/linear/einsum  EinsumOp     float32  bfloat16  (ff)  xavier(1)
      ff/activation     ReLU         float32  bfloat16  (ff)  xavier(1)
    """
    root = getattr(config, "name", None) or "(root)"
    rows: dict[Path, list[str]] = {}
    for entry in inherited_values(config, *args, method=method, **kwargs):
        row = rows.setdefault(entry.path, ["/".join((root, *entry.path)), entry.kind])
        origin = "" if entry.origin is None else f"  ({'/'.join((root, *entry.origin))})"
        row.append(_value_text(entry.value) + origin if entry.value is not None else "")
    columns = [Column("layer"), Column("class"), *map(Column, inherit.INHERITED)]
    shown = without_empty_columns(columns, list(rows.values()), [""] * len(columns))
    return dataclasses.replace(shown, totals=None)


def _path_of(holder: Any) -> Path:
    """Path of a layer, or of the layer that a config becomes."""
    if isinstance(holder, nn.Module):
        return tuple(holder.path) if holder.scope is not None else ()
    return vars(holder).get(_PATH, ())


def _target_path(source: Any, target: Any) -> Path:
    if isinstance(target, nn.Module):
        # Its constructor is running, before Flax binds it to its parent.
        return (*_path_of(source), target.name) if target.name else _path_of(source)
    if isinstance(source, nn.Module):
        shared = target.shared_weight_layer_id
        return (shared,) if shared is not None else (*_path_of(source), target.name)
    return (*_path_of(source), _name_in(source, target) or "?")


def _name_in(holder: Any, wanted: fdl.Buildable) -> str | None:
    """Name that Flax gives to what a config in a field, list or dict becomes."""
    if holder is wanted:
        return ""
    if isinstance(holder, fdl.Buildable):
        children = [(str(key), value) for key, value in holder.__arguments__.items()]
    elif isinstance(holder, Mapping):
        children = [(f"_{key}", value) for key, value in holder.items()]
    elif isinstance(holder, list | tuple):
        children = [(f"_{index}", value) for index, value in enumerate(holder)]
    else:
        return None
    for name, child in children:
        below = _name_in(child, wanted)
        if below is not None:
            return name + below
    return None


def _origin(
    path: Path, field: str, sources: Mapping[Path, Mapping[str, Path]], layers: Mapping[Path, Any]
) -> Path | None:
    while field in sources.get(path, {}):
        path = sources[path][field]
    layer = layers.get(path)
    if layer is None or _is_default(layer, field):
        return None
    # Nobody set it: `fprop_dtype` is `dtype` then.
    if field == "fprop_dtype" and vars(layer).get("_fprop_dtype_is_own", False):
        return _origin(path, "dtype", sources, layers)
    return path


def _is_default(layer: Any, field: str) -> bool:
    value = getattr(layer, field)
    if field == "params_init":
        return is_default_param_init(value)
    if field == "fprop_dtype" and vars(layer).get("_fprop_dtype_is_own", False):
        return False
    return value == type(layer).__dataclass_fields__[field].default


def _value_text(value: Any) -> str:
    if isinstance(value, WeightInit):
        return f"{value.method}({value.scale:g})"
    return getattr(value, "__name__", None) or leaf_text(value)
