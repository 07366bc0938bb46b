"""Settings that hold for all layers of a call: evaluation, summary verbosity, mesh axes."""

import contextvars
import dataclasses
import weakref
from typing import Any

from praxis.config.copying import copy_tree

# A context variable, not a thread local: the same for threads, and async tasks keep theirs apart.
_STACK: contextvars.ContextVar[tuple["JaxContext", ...]] = contextvars.ContextVar(
    "praxis_jax_context", default=()
)

# Root scope -> id -> (layer, config). Scopes live as long as one init or apply.
_SHARED_LAYERS: weakref.WeakKeyDictionary[Any, dict[str, tuple[Any, Any]]] = (
    weakref.WeakKeyDictionary()
)


class JaxContext:
    """One frame of settings; `with JaxContext.new_context(hparams=...)` makes it current."""

    @dataclasses.dataclass
    class HParams:
        """The settings.

        Attributes:
          do_eval: Evaluation: no dropout, no update of statistics. None counts as False.
          summary_verbosity: Summaries of greater verbosity are dropped.
          mesh_axes_transpose: Real mesh axis by the name used in annotations.
          self_reflect_configs: Layers write their config into the collection `hyper_params`.
        """

        do_eval: bool | None = None
        summary_verbosity: int = 3
        mesh_axes_transpose: dict[str, str] | None = None
        self_reflect_configs: bool = False

        def clone(self) -> "JaxContext.HParams":
            """Returns an independent copy."""
            return copy_tree(dataclasses.replace(self), {})

    def __init__(self, hparams: "JaxContext.HParams") -> None:
        """Makes a context that is not current yet.

        Args:
          hparams: The settings. The context keeps a copy.
        """
        self._hparams = hparams.clone()
        self._summaries: dict[str, Any] = {}

    @property
    def hparams(self) -> "JaxContext.HParams":
        """The settings."""
        return self._hparams

    @property
    def do_eval(self) -> bool | None:
        """Whether this is an evaluation; None if nobody said."""
        return self._hparams.do_eval

    @property
    def summary_verbosity(self) -> int:
        """Greatest verbosity of a summary that is kept."""
        return self._hparams.summary_verbosity

    @property
    def self_reflect_configs(self) -> bool:
        """Whether layers write their config into the collection `hyper_params`."""
        return self._hparams.self_reflect_configs

    @property
    def summary_dict(self) -> dict[str, Any]:
        """The summaries of `add_global_summary`, live."""
        return self._summaries

    @staticmethod
    def lookup_shared_layer(root_scope: Any, shared_layer_id: str) -> tuple[Any, Any] | None:
        """Returns (layer, config) of a shared layer under a root scope, or None."""
        return _SHARED_LAYERS.get(root_scope, {}).get(shared_layer_id)

    @staticmethod
    def set_shared_layer(
        root_scope: Any, shared_layer_id: str, wrapper: Any, layer_hparams: Any
    ) -> None:
        """Remembers a shared layer and the config it was built from."""
        _SHARED_LAYERS.setdefault(root_scope, {})[shared_layer_id] = (wrapper, layer_hparams)

    @staticmethod
    def top() -> "JaxContext | None":
        """Returns the current context, or None."""
        stack = _STACK.get()
        return stack[-1] if stack else None

    @staticmethod
    def has_context() -> bool:
        """Returns whether there is a current context."""
        return bool(_STACK.get())

    @staticmethod
    def new_context(*, hparams: "JaxContext.HParams | None" = None) -> "JaxContext":
        """Returns a context to enter.

        Args:
          hparams: Its settings; None: those of the current context, else the defaults.
        """
        current = JaxContext.top()
        if hparams is None:
            hparams = current.hparams if current else JaxContext.HParams()
        return JaxContext(hparams)

    def __enter__(self) -> "JaxContext":
        _STACK.set((*_STACK.get(), self))
        return self

    def __exit__(self, *exception: object) -> None:
        stack = _STACK.get()
        if not stack or stack[-1] is not self:
            raise RuntimeError("A JaxContext is left that is not the innermost one.")
        _STACK.set(stack[:-1])


def cur_jax_context() -> JaxContext:
    """Returns the current context.

    Raises:
      RuntimeError: if there is none.
    """
    context = JaxContext.top()
    if context is None:
        raise RuntimeError("There is no JaxContext: enter one, `with JaxContext.new_context():`.")
    return context
