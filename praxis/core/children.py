"""Making child layers from templates, and layers that several owners share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fiddle as fdl
from flax import linen as nn

from praxis.config.build import instantiate
from praxis.config.config import PaxConfig
from praxis.core.context import JaxContext

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer


def create_child(layer: "BaseLayer", name: str, params: Any, skip_clone: bool) -> Any:
    """Builds a child from its template, see `BaseLayer.create_child`."""
    _check_template(layer, name, params)
    _check_name(layer, name)
    template = params if skip_clone else params.clone()
    template.name = name
    layer.copy_base_hparams(layer, template)
    child = instantiate_layer(template, layer.scope_or_raise())
    layer.children[name] = child
    return child


def instantiate_layer(layer_p: PaxConfig, scope: Any) -> Any:
    """Builds a layer, or returns the one of the same `shared_weight_layer_id`.

    A shared layer lives directly under the root scope, under its id: the owners' names are not in
    the paths of its variables.

    Args:
      layer_p: Config of the layer.
      scope: Flax scope of the owner.

    Raises:
      ValueError: if a layer of that id exists and was built from another config.
    """
    shared_id = layer_p.shared_weight_layer_id
    if shared_id is None:
        return instantiate(layer_p)
    root = scope.root
    known = JaxContext.lookup_shared_layer(root, shared_id)
    if known is None:
        wrapper = instantiate(layer_p, name=shared_id, parent=root.push(shared_id))
        JaxContext.set_shared_layer(root, shared_id, wrapper, layer_p)
        return wrapper
    wrapper, built_from = known
    if not compatible_hparams(built_from, layer_p):
        raise ValueError(
            f"{wrapper.path_text}: two configs share shared_weight_layer_id = {shared_id!r} but "
            f"differ in {', '.join(_differences(built_from, layer_p))}. Make them equal or give "
            "them different ids."
        )
    return wrapper


def compatible_hparams(hparams1: Any, hparams2: Any) -> bool:
    """Returns whether two configs are equal but for `name`.

    Raises:
      ValueError: if one of them is no config.
    """
    if not isinstance(hparams1, fdl.Config) or not isinstance(hparams2, fdl.Config):
        raise ValueError(
            f"Expected two configs, got {type(hparams1).__name__} and {type(hparams2).__name__}."
        )
    return _without_name(hparams1) == _without_name(hparams2)


def get_template_fields(template: Any) -> list[str]:
    """Returns the names of all fields of a config, `name` and `parent` included.

    Raises:
      TypeError: if it is no config.
    """
    if not isinstance(template, fdl.Config):
        raise TypeError(f"Expected a config, got {type(template).__name__}: {template!r}.")
    return list(template.__signature_info__.parameters)


def is_sublayer_template_or_instance(val: Any) -> bool:
    """Returns whether a field's value is a layer, a layer's config, or a container of such."""
    if isinstance(val, Mapping):
        names_only = all(isinstance(key, str) for key in val)
        return bool(val) and names_only and all(map(is_sublayer_template_or_instance, val.values()))
    if isinstance(val, (list, tuple)):
        some = [item for item in val if item is not None]
        return bool(some) and all(map(is_sublayer_template_or_instance, some))
    return is_layer(val) or is_layer_config(val)


def is_layer(val: Any) -> bool:
    """Returns whether a value is a built Pax layer."""
    return isinstance(val, nn.Module) and hasattr(val, "copy_base_hparams")


def is_layer_config(val: Any) -> bool:
    """Returns whether a value is a config of a Pax layer."""
    if not isinstance(val, fdl.Buildable):
        return False
    target = fdl.get_callable(val)
    return isinstance(target, type) and hasattr(target, "copy_base_hparams")


def _check_template(layer: "BaseLayer", name: str, params: Any) -> None:
    if isinstance(params, fdl.Config):
        return
    hint = ""
    if isinstance(params, nn.Module):
        hint = (
            " It was built with its owner: annotate the field that holds it as a config, e.g. "
            "`child_tpl: pax_fiddle.Config[BaseLayer] = template_field(...)`."
        )
    kind = type(params).__name__
    if isinstance(params, type):
        kind, hint = "class", f" Write pax_fiddle.Config({params.__name__})."
    raise ValueError(
        f"{layer.path_text}: child {name!r} is made from a {kind}, expected a "
        f"pax_fiddle.Config.{hint}"
    )


def _check_name(layer: "BaseLayer", name: str) -> None:
    fields: Mapping[str, Any] = type(layer).__dataclass_fields__
    if name in fields and name != "parent":
        raise AttributeError(
            f"{layer.path_text}: child {name!r} has the name of a field of {type(layer).__name__}. "
            "Choose another name."
        )
    if name in layer.children:
        raise ValueError(f"{layer.path_text} has a child {name!r} already. Choose another name.")


def _without_name(config: fdl.Config) -> fdl.Config:
    copied = config.clone() if hasattr(config, "clone") else config
    copied.name = None
    return copied


def _differences(first: PaxConfig, second: PaxConfig) -> Sequence[str]:
    """Text of each field whose values differ."""
    if fdl.get_callable(first) is not fdl.get_callable(second):
        return [f"class ({fdl.get_callable(first)}, {fdl.get_callable(second)})"]
    names = [name for name in get_template_fields(first) if name not in ("name", "parent")]
    values = [(name, getattr(first, name), getattr(second, name)) for name in names]
    return [f"{name} ({one!r}, {other!r})" for name, one, other in values if one != other]
