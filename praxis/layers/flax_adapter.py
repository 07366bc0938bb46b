"""Flax modules as layers.

The variables of the module are those of plain Flax, under the name `cld`, with the same first
values; the adapter adds the metadata that a trainer needs. The module draws random numbers from
the streams it names itself, e.g. `dropout`, which the caller has to supply.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from praxis import base_layer, pytypes
from praxis.utils.flax_boxes import convert_to_boxed_params


class _InternalBaseFlaxAdapter(base_layer.BaseLayer):
    """Base of the adapters: forwards calls to the module `self.cld`.

    Attributes:
      logical_axes_rules: Pairs of a logical axis name of the module and a mesh axis or None. They
        are active around each call, and give the variables their sharding. Needs a mesh.
    """

    logical_axes_rules: pytypes.LogicalAxisRules | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the module."""
        return self.call_method("__call__", *args, **kwargs)

    def call_method(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the module by name.

        Raises:
          ValueError: if there are `logical_axes_rules` but no mesh, or the module has no such
            method.
        """
        module = self._wrapped_module()
        if not callable(getattr(module, method_name, None)):
            raise ValueError(
                f"{self.path_text}: the wrapped {type(module).__name__} has no method "
                f"{method_name!r}."
            )
        with self._axis_rules():
            if not self.is_initializing():
                return getattr(module, method_name)(*args, **kwargs)
            return self._call_boxing(module, method_name, *args, **kwargs)

    def _wrapped_module(self) -> nn.Module:
        return self.cld

    def _axis_rules(self) -> contextlib.AbstractContextManager[None]:
        if self.logical_axes_rules is None:
            return contextlib.nullcontext()
        if self.mesh_shape is None:
            raise ValueError(
                f"{self.path_text}: logical_axes_rules is set but there is no mesh. Set "
                "ici_mesh_shape and mesh_axis_names, or leave out the rules."
            )
        return nn.logical_axis_rules(self.logical_axes_rules)

    def _call_boxing(self, module: nn.Module, method_name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method that may create variables, and boxes these."""

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return getattr(module, method_name)(*args, **kwargs)

        # Boxes of an earlier call: the module may give axis names only when it makes a variable.
        earlier: dict[tuple[str, ...], Any] = {}

        def unbox(variables: dict[str, Any]) -> dict[str, Any]:
            for path, leaf in flatten_dict(variables).items():
                if isinstance(leaf, base_layer.BoxedParam):
                    earlier[path] = leaf
            return base_layer.maybe_unbox_value(variables)

        def box(variables: dict[str, Any]) -> dict[str, Any]:
            leaves = flatten_dict(variables)
            kept = {path: leaves[path] for path in earlier.keys() & leaves.keys()}
            leaves |= {path: earlier[path].replace_boxed(leaf) for path, leaf in kept.items()}
            return convert_to_boxed_params(
                unflatten_dict(leaves), self.logical_axes_rules, self.mesh_shape
            )

        mapped = nn.map_variables(
            call,
            mapped_collections=True,
            trans_in_fn=unbox,
            trans_out_fn=box,
            mutable=True,
        )
        return mapped(module, *args, **kwargs)


class FlaxModuleAdapterBase(_InternalBaseFlaxAdapter):
    """Adapter whose subclass says how to make the module, in `_build_wrapped_module`.

    Variables:
      cld: as in the module
    """

    def setup(self) -> None:
        self.cld = self._build_wrapped_module()

    def _build_wrapped_module(self) -> nn.Module:
        raise NotImplementedError(
            f"{type(self).__name__} {self.name!r} does not define _build_wrapped_module, which "
            "makes the module to adapt."
        )


class FlaxModuleAdapter(FlaxModuleAdapterBase):
    """Adapter for the module that a function makes.

    Attributes:
      module_factory_method: Called without arguments in setup, returns the module. Required.

    Variables:
      cld: as in the module

    Raises:
      ValueError: during setup, if there is no factory.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> dense = functools.partial(nn.Dense, 5)
      >>> config = pax_fiddle.Config(FlaxModuleAdapter, module_factory_method=dense)
      >>> layer = pax_fiddle.build(config)
      >>> variables = layer.init(jax.random.PRNGKey(0), jnp.ones([2, 3]))
      >>> variables["params"]["cld"]["kernel"].shape
      (3, 5)
    """

    module_factory_method: Callable[[], nn.Module] | None = None

    def _build_wrapped_module(self) -> nn.Module:
        if self.module_factory_method is None:
            raise ValueError(
                f"{self.path_text}: module_factory_method is None, expected a function without "
                "arguments that returns a Flax module."
            )
        return self.module_factory_method()


class DirectFlaxModuleAdapter(_InternalBaseFlaxAdapter):
    """Adapter for a module that the config holds, as a module or as a config of one.

    Attributes:
      cld: The module. Required.

    Variables:
      cld: as in the module

    Raises:
      TypeError: in a call, if `cld` is not a module.
    """

    cld: nn.Module | None = None

    def _wrapped_module(self) -> nn.Module:
        if not isinstance(self.cld, nn.Module):
            raise TypeError(
                f"{self.path_text}: cld is a {type(self.cld).__name__}, expected a Flax module or "
                "a config of one."
            )
        return self.cld


class EncoderDecoderFlaxModuleAdaptor(FlaxModuleAdapter):
    """Adapter for a module with the methods `encode`, `decode` and `compute_logits`."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `encode` of the module."""
        return self.call_method("encode", *args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `decode` of the module."""
        return self.call_method("decode", *args, **kwargs)

    def compute_logits(self, *args: Any, **kwargs: Any) -> Any:
        """Calls `compute_logits` of the module."""
        return self.call_method("compute_logits", *args, **kwargs)
