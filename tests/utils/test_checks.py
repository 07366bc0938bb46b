"""Behaviour 36 of the utilities: checks and their messages."""

import dataclasses
import threading

import pytest

from praxis import asserts
from praxis.core.nested_map import NestedMap


@dataclasses.dataclass
class Settings:
    a: int = 1
    b: int = 2


p = Settings()
x, nothing = 3, None

FAILURES = [
    (lambda: asserts.none(x), "`x=3` must be `None`."),
    (lambda: asserts.not_none(nothing), "`nothing=None` must not be `None`."),
    (lambda: asserts.eq(p.a, p.b), "`p.a=1` must be equal to `p.b=2`."),
    (lambda: asserts.ne(p.a, p.a), "`p.a=1` must not be equal to `p.a=1`."),
    (lambda: asserts.le(p.b, p.a), "`p.b=2` must be less than or equal to `p.a=1`."),
    (lambda: asserts.lt(p.a, p.a), "`p.a=1` must be strictly less than `p.a=1`."),
    (lambda: asserts.ge(p.a, p.b), "`p.a=1` must be greater than or equal to `p.b=2`."),
    (lambda: asserts.gt(p.a, p.a), "`p.a=1` must be strictly greater than `p.a=1`."),
    (lambda: asserts.instance(x, str), "`x=3` must be of type `<class 'str'>`."),
    (lambda: asserts.subclass(int, str), f"`int={int}` must be a subclass of `{str}`."),
    (lambda: asserts.subclass(x, str), f"`x=3` must be a subclass of `{str}`."),
    (lambda: asserts.in_set(x, {"k": 1}), "`x=3` must be within `{'k': 1}`."),
    (
        lambda: asserts.between(x, 0, 1, left_strict=True),
        "`x=3` must be in the range `(0, 1]`.",
    ),
    (
        lambda: asserts.between(x, 0, 3, right_strict=True),
        "`x=3` must be in the range `[0, 3)`.",
    ),
    (lambda: asserts.eq(value2=p.b, value1=p.a), "`p.a=1` must be equal to `p.b=2`."),
    (lambda: asserts.eq(p.a, 2), "`p.a=1` must be equal to `2`."),
    (lambda: asserts.eq(max(p.a, 0), p.b), "`max(p.a, 0)=1` must be equal to `p.b=2`."),
    (lambda: asserts.eq("é", x), "`'é'` must be equal to `x=3`."),
    (lambda: asserts.eq(p.a, p.b, value_str2="the size"), "`p.a=1` must be equal to `the size`."),
    (lambda: asserts.none(x, value_str="y"), "`y` must be `None`."),
    (lambda: asserts.none(x, msg="Said so."), "Said so."),
    (lambda: asserts.eq(*(1, 2)), "`1` must be equal to `2`."),
]


@pytest.mark.parametrize(("fail", "message"), FAILURES, ids=[message for _, message in FAILURES])
def test_message_quotes_the_source_of_the_arguments(fail, message):
    """Behaviour 36."""
    with pytest.raises(ValueError) as error:
        fail()
    assert str(error.value) == message


def test_call_over_several_lines_shows_values_only():
    """Behaviour 36."""
    with pytest.raises(ValueError) as error:
        asserts.eq(
            p.a,
            p.b,
        )
    assert str(error.value) == "`1` must be equal to `2`."


def test_without_source_values_only():
    with pytest.raises(ValueError) as error:
        exec("asserts.eq(p.a, p.b)", {"asserts": asserts, "p": p})
    assert str(error.value) == "`1` must be equal to `2`."


def test_exception_type():
    with pytest.raises(KeyError, match="must be"):
        asserts.none(x, exception_type=KeyError)


def test_what_holds_passes():
    asserts.none(nothing)
    asserts.not_none(x)
    asserts.eq(p.a, 1)
    asserts.ne(p.a, p.b)
    asserts.le(p.a, p.a)
    asserts.lt(p.a, p.b)
    asserts.ge(p.a, p.a)
    asserts.gt(p.b, p.a)
    asserts.instance(x, (int, str))
    asserts.subclass(bool, int)
    asserts.in_set(x, {3})
    asserts.between(x, 3, 3)
    asserts.assert_same_structure(NestedMap(a=1, b=(2, [3])), {"b": ("x", [4]), "a": "y"})


@pytest.mark.parametrize(
    "other", [{"a": 1}, {"a": 1, "b": [2, 3]}, {"a": 1, "b": (2,)}, {"a": 1, "b": (2, {"c": 3})}]
)
def test_structures_that_differ(other):
    with pytest.raises(ValueError, match=r"Not the same structure.*'b'"):
        asserts.assert_same_structure({"a": 1, "b": (2, 3)}, other)


def fails():
    try:
        asserts.none(x)
    except ValueError:
        return True
    return False


def test_context_nests_and_restores():
    """Behaviour 36."""
    assert fails()
    with asserts.AssertsContext(enabled=False):
        assert not fails()
        with asserts.AssertsContext():
            assert fails() and asserts.AssertsContext.assertions_enabled()
        assert not fails() and not asserts.AssertsContext.assertions_enabled()
        asserts.assert_same_structure({}, {"a": 1})
    assert fails()


def test_context_is_per_thread():
    """Behaviour 36."""
    seen = []
    with asserts.AssertsContext(enabled=False):
        thread = threading.Thread(target=lambda: seen.append(fails()))
        thread.start()
        thread.join()
    assert seen == [True]
