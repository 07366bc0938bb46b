"""Checks of values whose messages quote the source text of the arguments."""

import ast
import contextvars
import dataclasses
import itertools
import linecache
import sys
from collections.abc import Collection, Mapping
from types import CodeType, FrameType
from typing import Any

import jax

_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar("checks_enabled", default=True)


@dataclasses.dataclass
class AssertsContext:
    """Switches the checks of this module on or off inside a `with` block.

    Blocks nest, the innermost wins; a block has no effect on other threads.

    Attributes:
      enabled: Whether the checks raise.
    """

    enabled: bool = True

    def __post_init__(self) -> None:
        self._tokens: list[contextvars.Token[bool]] = []

    def __enter__(self) -> "AssertsContext":
        self._tokens.append(_enabled.set(self.enabled))
        return self

    def __exit__(self, *error: object) -> None:
        _enabled.reset(self._tokens.pop())

    @staticmethod
    def assertions_enabled() -> bool:
        """Whether the checks raise in this thread."""
        return _enabled.get()


def _call_text(code: CodeType, instruction: int) -> str | None:
    """Source text of the call at an instruction; None if unavailable or over several lines."""
    positions = next(itertools.islice(code.co_positions(), instruction // 2, None))
    line, end_line, column, end_column = positions
    if line is None or line != end_line or column is None or end_column is None:
        return None
    text = linecache.getline(code.co_filename, line)
    # Columns count bytes of UTF-8.
    return text.encode()[column:end_column].decode() or None


def _caller() -> FrameType | None:
    """The frame that called the check: the first outside this file and run-time type checkers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__ and not module.startswith(("jaxtyping", "beartype")):
            return frame
        frame = frame.f_back
    return None


def _argument_texts(names: tuple[str, ...]) -> dict[str, str]:
    """Source texts of the named arguments, as far as the call of the check shows them."""
    frame = _caller()
    if frame is None:
        return {}
    text = _call_text(frame.f_code, frame.f_lasti)
    if text is None:
        return {}
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError:
        return {}
    if not isinstance(call, ast.Call) or any(isinstance(arg, ast.Starred) for arg in call.args):
        return {}
    nodes = dict(zip(names, call.args, strict=False))
    nodes.update({word.arg: word.value for word in call.keywords if word.arg in names})
    # A literal says its own value.
    segments = {
        name: ast.get_source_segment(text, node)
        for name, node in nodes.items()
        if not isinstance(node, ast.Constant)
    }
    return {name: segment for name, segment in segments.items() if segment}


def _fail(
    template: str,
    values: dict[str, Any],
    replacements: dict[str, str | None],
    msg: str | None,
    exception_type: type[BaseException],
) -> None:
    """Raises, unless switched off; `template` has a place for the text of each value."""
    if not AssertsContext.assertions_enabled():
        return
    if msg is None:
        texts = _argument_texts(tuple(values))
        sides = {}
        for name, value in values.items():
            shown = repr(value)
            side = f"{texts[name]}={shown}" if name in texts else shown
            sides[name] = replacements.get(name) or side
        msg = template.format(**sides)
    raise exception_type(msg)


def none(
    value: Any,
    *,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value is None."""
    if value is not None:
        _fail(
            "`{value}` must be `None`.", {"value": value}, {"value": value_str}, msg, exception_type
        )


def not_none(
    value: Any,
    *,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value is something else than None."""
    if value is None:
        _fail(
            "`{value}` must not be `None`.",
            {"value": value},
            {"value": value_str},
            msg,
            exception_type,
        )


def eq(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 == value2`."""
    if value1 != value2:
        template = "`{value1}` must be equal to `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def ne(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 != value2`."""
    if value1 == value2:
        template = "`{value1}` must not be equal to `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def le(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 <= value2`."""
    if not value1 <= value2:
        template = "`{value1}` must be less than or equal to `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def lt(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 < value2`."""
    if not value1 < value2:
        template = "`{value1}` must be strictly less than `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def ge(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 >= value2`."""
    if not value1 >= value2:
        template = "`{value1}` must be greater than or equal to `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def gt(
    value1: Any,
    value2: Any,
    *,
    value_str1: str | None = None,
    value_str2: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless `value1 > value2`."""
    if not value1 > value2:
        template = "`{value1}` must be strictly greater than `{value2}`."
        texts = {"value1": value_str1, "value2": value_str2}
        _fail(template, {"value1": value1, "value2": value2}, texts, msg, exception_type)


def instance(
    value: Any,
    instances: type | tuple[type, ...],
    *,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value is an instance of one of the types."""
    if not isinstance(value, instances):
        _fail(
            f"`{{value}}` must be of type `{instances}`.",
            {"value": value},
            {"value": value_str},
            msg,
            exception_type,
        )


def subclass(
    value: Any,
    subclasses: type | tuple[type, ...],
    *,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value is a class and a subclass of one of the types."""
    if not (isinstance(value, type) and issubclass(value, subclasses)):
        _fail(
            f"`{{value}}` must be a subclass of `{subclasses}`.",
            {"value": value},
            {"value": value_str},
            msg,
            exception_type,
        )


def in_set(
    value: Any,
    elements: Collection[Any],
    *,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value is one of the elements."""
    if value not in elements:
        _fail(
            "`{value}` must be within `" + _escape(elements) + "`.",
            {"value": value},
            {"value": value_str},
            msg,
            exception_type,
        )


def _escape(value: Any) -> str:
    """Text of a value inside a template."""
    return repr(value).replace("{", "{{").replace("}", "}}")


def between(
    value: Any,
    min_value: Any,
    max_value: Any,
    *,
    left_strict: bool = False,
    right_strict: bool = False,
    value_str: str | None = None,
    msg: str | None = None,
    exception_type: type[BaseException] = ValueError,
) -> None:
    """Raises unless the value lies in a range; a strict side excludes its bound."""
    above = min_value < value if left_strict else min_value <= value
    below = value < max_value if right_strict else value <= max_value
    if not (above and below):
        left, right = "(" if left_strict else "[", ")" if right_strict else "]"
        bounds = f"{left}{min_value}, {max_value}{right}"
        template = "`{value}` must be in the range `" + bounds + "`."
        _fail(template, {"value": value}, {"value": value_str}, msg, exception_type)


def _is_mapping(node: Any) -> bool:
    return isinstance(node, Mapping)


def _plain(tree: Any) -> Any:
    """Dicts of any kind as plain dicts, and 0 for each leaf."""
    return jax.tree.map(
        lambda node: (
            {key: _plain(value) for key, value in node.items()} if _is_mapping(node) else 0
        ),
        tree,
        is_leaf=_is_mapping,
    )


def assert_same_structure(
    x: Any, y: Any, msg: str | None = None, exception_type: type[BaseException] = ValueError
) -> None:
    """Raises unless two trees have the same structure.

    Leaves are ignored, and all kinds of dict count as the same.
    """
    left, right = jax.tree.structure(_plain(x)), jax.tree.structure(_plain(y))
    if left != right and AssertsContext.assertions_enabled():
        raise exception_type(msg or f"Not the same structure: {left} and {right}.")
