"""What a config needs to know about a callable, worked out once for each."""

import dataclasses
import difflib
import functools
import inspect
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import fiddle as fdl
from fiddle import signatures

from praxis.config import annotations, metadata

_CACHE: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class CallableFacts:
    """Parameters of a callable as a config sees them.

    Attributes:
      name: Short name for messages.
      parameters: The signature's parameters by name.
      names: Parameters that can be given by keyword, in order.
      open_ended: The callable takes any keyword.
      initializers: What a config fills in, by field; see `metadata.FieldMetadata`.
      tags: Tags from field helpers and from `Annotated`, by parameter.
      factories: Fields whose default comes from a plain `default_factory`.
      hints: Resolved annotations by parameter.
      is_layer: Whether it inherits the common fields of layers (see `build`).
    """

    name: str
    parameters: Mapping[str, inspect.Parameter]
    names: tuple[str, ...]
    open_ended: bool
    initializers: Mapping[str, Callable[[], Any]]
    tags: Mapping[str, frozenset[Any]]
    factories: frozenset[str]
    hints: Mapping[str, Any]
    is_layer: bool

    def holds_template(self, key: str | int) -> bool:
        """Returns whether the argument stored under `key` stays a config when its owner is built.

        Args:
          key: Name of the argument, or its position where it has no name.

        Raises:
          TypeError, ValueError: as `annotations.is_template_annotation`.
        """
        decided = self._template_decisions
        if key not in decided:
            name = self._parameter_name(key)
            decided[key] = (
                name is not None
                and name in self.hints
                and annotations.is_template_annotation(
                    self.hints[name], field=name, owner=self.name
                )
            )
        return decided[key]

    @functools.cached_property
    def _template_decisions(self) -> dict[str | int, bool]:
        return {}

    def _parameter_name(self, key: str | int) -> str | None:
        """Returns the parameter that takes `key`: itself, or `*args`, or `**kwargs`."""
        if isinstance(key, int):
            ordered = list(self.parameters.values())
            if key < len(ordered) and ordered[key].kind is inspect.Parameter.POSITIONAL_ONLY:
                return ordered[key].name
            return self._parameter_of_kind(inspect.Parameter.VAR_POSITIONAL)
        if key in self.names:
            return key
        return self._parameter_of_kind(inspect.Parameter.VAR_KEYWORD)

    def _parameter_of_kind(self, kind: Any) -> str | None:
        return next((p.name for p in self.parameters.values() if p.kind is kind), None)

    def accepts(self, name: str) -> bool:
        """Returns whether `name` can be given by keyword."""
        return self.open_ended or name in self.names

    def wrong_name(self, name: str) -> str:
        """Returns the message for a name that is no parameter: the nearest one, then all."""
        near = difflib.get_close_matches(name, self.names, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        valid = ", ".join(self.names) or "none"
        return f"{self.name} has no field {name!r}{guess} Valid names: {valid}."


def callable_facts(target: Callable[..., Any]) -> CallableFacts:
    """Returns the facts of a class or function, from a cache where it can be a key."""
    try:
        facts = _CACHE.get(target)
    except TypeError:  # Not hashable, or no weak references to it.
        return _work_out(target)
    if facts is None:
        facts = _CACHE[target] = _work_out(target)
    return facts


def short_name(target: Any) -> str:
    """Returns the name of a callable for messages."""
    return getattr(target, "__name__", None) or str(target)


def _work_out(target: Callable[..., Any]) -> CallableFacts:
    parameters = signatures.get_signature(target).parameters
    keyword_kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    hints = annotations.resolve_annotations(target)
    tags: dict[str, frozenset[Any]] = {
        name: found
        for name, hint in hints.items()
        if name in parameters and (found := _annotated_tags(hint))
    }
    initializers, factories = {}, set()
    for dc_field in _fields(target):
        if dc_field.name not in parameters:
            continue
        entry = metadata.field_metadata(dc_field)
        if entry.tags:
            tags[dc_field.name] = tags.get(dc_field.name, frozenset()) | frozenset(entry.tags)
        if entry.buildable_initializer is not None:
            initializers[dc_field.name] = entry.buildable_initializer
        if dc_field.default_factory is not dataclasses.MISSING:
            factories.add(dc_field.name)
    return CallableFacts(
        name=short_name(target),
        parameters=parameters,
        names=tuple(p.name for p in parameters.values() if p.kind in keyword_kinds),
        open_ended=any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()),
        initializers=initializers,
        tags=tags,
        factories=frozenset(factories),
        hints=hints,
        is_layer=inspect.isclass(target) and hasattr(target, "copy_base_hparams"),
    )


def _fields(target: Any) -> Collection[dataclasses.Field]:
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        return dataclasses.fields(target)
    return ()


def _annotated_tags(hint: Any) -> frozenset[Any]:
    return frozenset(
        extra
        for extra in getattr(hint, "__metadata__", ())
        if inspect.isclass(extra) and issubclass(extra, fdl.Tag)
    )
