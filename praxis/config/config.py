"""Pax configs: Fiddle configs that know layers, templates and strict field names."""

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar

import fiddle as fdl
from fiddle import history as fiddle_history

from praxis.config import build, callables, copying, equality, transfer

# In place of `Self`, which beartype knows in decorated classes only.
Own = TypeVar("Own")
T = TypeVar("T")

# The history of a config names the user's line, not lines of these files.
for _file in ("auto.py", "build.py", "config.py", "fields.py", "transfer.py"):
    fiddle_history.add_exclude_location(f"praxis/config/{_file}")


class CloneAndSetMixin:
    """Gives any class `clone` and a chainable `set`."""

    def clone(self: Own) -> Own:
        """Returns a deep copy."""
        return copy.deepcopy(self)

    def set(self: Own, **kwargs: Any) -> Own:
        """Sets attributes and returns the object itself."""
        for name, value in kwargs.items():
            setattr(self, name, value)
        return self

    def Set(self: Own, **kwargs: Any) -> Own:
        """Old name of `set`."""
        own: Any = self
        return own.set(**kwargs)


class PaxBuildable(CloneAndSetMixin):
    """What the three kinds of Pax config add to those of Fiddle."""

    __arguments__: dict[Any, Any]
    __fn_or_cls__: Any

    def __init__(self, fn_or_cls: Any, /, *args: Any, **kwargs: Any):
        """Configures a class or function.

        Args:
          fn_or_cls: The class or function.
          *args: Positional arguments; layers take none.
          **kwargs: Arguments by name.

        Raises:
          TypeError: if an argument does not fit the signature, or a layer gets positional ones.
          ValueError: if `fn_or_cls` is itself a config.
        """
        _check_callable(type(self).__name__, fn_or_cls)
        self.__init_callable__(fn_or_cls)
        facts = callables.callable_facts(fn_or_cls)
        _check_arguments(facts, args, kwargs)
        # Fiddle's own constructor resolves all annotations each time; `facts` keeps the outcome.
        history = fiddle_history.History()
        history.add_new_value("__fn_or_cls__", fn_or_cls)
        vars(self).update(__argument_history__=history, __argument_tags__=copying.new_tags())
        if args:
            kwargs = self.__signature_info__.signature_binding(fn_or_cls, *args, **kwargs)
        for key, value in kwargs.items():
            self._arguments_set_value(key, value)
        self._fill_in(facts)

    def _fill_in(self, facts: callables.CallableFacts) -> None:
        """Adds the tags of the fields, and the defaults that are configs, where none was given."""
        for name, tags in facts.tags.items():
            self.__argument_tags__[name].update(tags)
            self.__argument_history__.add_updated_tags(name, self.__argument_tags__[name])
        for name, make in facts.initializers.items():
            if name not in self.__arguments__:
                self._arguments_set_value(name, self._adapt_default(facts, name, make()))

    def _adapt_default(self, facts: callables.CallableFacts, name: str, value: Any) -> Any:
        """Returns a default as this kind of config holds it."""
        return value

    def __getattr__(self, name: str) -> Any:
        arguments = vars(self).get("__arguments__", {})
        if name in arguments:
            return arguments[name]
        if name.startswith("__"):  # Python's own protocols, asked also of half-made objects.
            raise AttributeError(name)
        facts = callables.callable_facts(self.__fn_or_cls__)
        if name not in facts.names:
            hint = ""
            if hasattr(self.__fn_or_cls__, name):
                hint = f" {facts.name} has an attribute of that name: build the config first."
            raise AttributeError(facts.wrong_name(name) + hint)
        if name in facts.factories:
            raise ValueError(
                f"{facts.name}.{name} is not set, and its default comes from a default_factory, "
                "which runs when the config is built. Set the field to read it."
            )
        default = facts.parameters[name].default
        if default is inspect.Parameter.empty:
            raise AttributeError(f"{facts.name}.{name} is required and has not been set.")
        return default

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cls":
            object.__setattr__(self, name, value)
            return
        facts = callables.callable_facts(self.__fn_or_cls__)
        if not facts.accepts(name):
            raise AttributeError(facts.wrong_name(name))
        self._arguments_set_value(name, value)

    def __copy__(self: Any) -> Any:
        return copying.copy_node(self, dict(self.__arguments__))

    def __deepcopy__(self: Own, memo: dict[int, Any]) -> Own:
        return copying.copy_tree(self, memo)

    def __eq__(self, other: object) -> bool:
        return equality.equal_trees(self, other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # Configs can change.

    @property
    def cls(self) -> Any:
        """The class or function; assigning another is `update_callable`."""
        return self.__fn_or_cls__

    @cls.setter
    def cls(self, new_callable: Any) -> None:
        transfer.update_callable(self, new_callable)

    def set(self: Any, **kwargs: Any) -> Any:
        """Sets fields and returns the config itself.

        Raises:
          AttributeError: if a name is no field; then none has been set.
        """
        build.assign_fields(self, kwargs)
        return self


class PaxConfig(PaxBuildable, fdl.Config[T], Generic[T]):
    """A config that builds an object: `PaxConfig(Layer, dims=8)`.

    Its attributes are the parameters of the class or function. `PaxConfig[Layer]` as an annotation
    marks a field that holds a template.
    """

    def Instantiate(self, **kwargs: Any) -> Any:
        """Builds the object, with some fields set first; this config keeps its values."""
        return build.instantiate(self, **kwargs)

    @property
    def mesh_shape(self) -> Any:
        """Devices along each mesh axis over all slices, or None where no mesh is set.

        Raises:
          AttributeError: if this is not the config of a layer.
          ValueError: if the lengths of the shapes and of `mesh_axis_names` differ.
        """
        if "ici_mesh_shape" not in callables.callable_facts(self.__fn_or_cls__).names:
            raise AttributeError("mesh_shape")
        return _mesh_shape(self)

    def copy_fields_from(
        self, source: "PaxConfig", missing_fields_in_self: Collection[str] = ()
    ) -> None:
        """Copies all fields but `parent` from another config; see `transfer.copy_fields_from`."""
        transfer.copy_fields_from(self, source, missing_fields_in_self)


class PaxPartial(PaxBuildable, fdl.Partial[T], Generic[T]):
    """A config that builds a function, `functools.partial` of the class or function.

    Sub-configs given are built once; those of default fields are built for each call.
    """

    def _adapt_default(self, facts: callables.CallableFacts, name: str, value: Any) -> Any:
        return _made_for_each_call(facts, name, value)


class PaxArgFactory(PaxBuildable, fdl.ArgFactory[T], Generic[T]):
    """A config of an argument that the enclosing `PaxPartial` makes anew for each call."""

    def _adapt_default(self, facts: callables.CallableFacts, name: str, value: Any) -> Any:
        return _made_for_each_call(facts, name, value)


def _check_callable(kind: str, given: Any) -> None:
    if not callable(given) and not isinstance(given, fdl.Buildable):  # Fiddle refuses configs.
        raise TypeError(
            f"{kind} takes a class or function first, got {given!r} of type {type(given).__name__}."
        )


def _check_arguments(
    facts: callables.CallableFacts, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    if args and facts.is_layer:
        raise TypeError(
            f"{facts.name} is a layer and takes no positional arguments, got {len(args)}. "
            f"Name the fields, e.g. Config({facts.name}, {facts.names[0]}=...)."
        )
    for name in kwargs:
        if not facts.accepts(name):
            raise TypeError(
                f"Cannot bind arguments to {facts.name}: got an unexpected keyword argument "
                f"{name!r}. {facts.wrong_name(name)}"
            )


def _made_for_each_call(facts: callables.CallableFacts, name: str, value: Any) -> Any:
    """Turns the configs of a default into argument factories; templates stay."""
    if build.contains_config(value) and facts.holds_template(name):
        return value
    return _as_factories(value, f"{facts.name}.{name}")


def _as_factories(value: Any, field: str) -> Any:
    if isinstance(value, list | dict) and not value:
        return PaxArgFactory(type(value))
    if isinstance(value, list | tuple):
        return type(value)(_as_factories(element, field) for element in value)
    if isinstance(value, dict):
        return {key: _as_factories(element, field) for key, element in value.items()}
    if isinstance(value, fdl.Partial) and any(
        isinstance(inner, fdl.Config) for inner in value.__arguments__.values()
    ):
        raise ValueError(
            f"Unable to safely replace {field}: its default is a partial that holds a config, "
            "which another partial cannot build anew for each call. Set the field explicitly."
        )
    if isinstance(value, fdl.Config):
        arguments = {key: _as_factories(v, field) for key, v in value.__arguments__.items()}
        return copying.copy_node(value, arguments, kind=PaxArgFactory)
    return value


def _mesh_shape(config: Any) -> Any:
    ici, dcn, names = config.ici_mesh_shape, config.dcn_mesh_shape, config.mesh_axis_names
    if ici is None:
        return None
    lengths = {"ici_mesh_shape": ici, "mesh_axis_names": names}
    if dcn is not None:
        lengths["dcn_mesh_shape"] = dcn
    if any(value is None or len(value) != len(ici) for value in lengths.values()):
        raise ValueError(
            f"{callables.short_name(config.cls)}: one entry for each mesh axis is expected in each "
            f"of {lengths}."
        )
    return (
        ici if dcn is None else [inside * across for inside, across in zip(ici, dcn, strict=True)]
    )
