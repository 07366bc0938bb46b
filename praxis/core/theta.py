"""`self.theta.w`: the trainable variables of a layer, cast for computation."""

from typing import TYPE_CHECKING, Any

from praxis.core import variables

if TYPE_CHECKING:
    from praxis.core.layer import BaseLayer


class Theta:
    """View of one layer's trainable variables, by attribute or item, in `fprop_dtype`."""

    __slots__ = ("_module",)

    def __init__(self, module: "BaseLayer"):
        """Makes the view of a layer."""
        object.__setattr__(self, "_module", module)

    def __getattr__(self, name: str) -> Any:
        return variables.read_trainable(self._module, name)

    def __getitem__(self, name: str) -> Any:
        return variables.read_trainable(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"{self._module.path_text}: theta.{name} cannot be assigned; trainable variables "
            "change in the learner, and others through update_var."
        )


class ThetaDescriptor:
    """Gives each layer its Theta."""

    # Flax would run a layer's bookkeeping around each access; the view does what is needed.
    nowrap = True

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else Theta(layer)
