"""Modules imported on first use (core behaviour 98)."""

import inspect
import sys
from typing import Any

import pytest

from praxis.lazy_loader import LazyLoader

NAME = "xml.dom.pulldom"  # Nothing else imports it.


@pytest.fixture
def unloaded():
    sys.modules.pop(NAME, None)
    yield
    sys.modules.pop(NAME, None)


def test_first_use_imports_and_replaces_the_global(unloaded, caplog):
    """Behaviour 98."""
    module_globals = {}
    lazy: Any = LazyLoader("pulldom", module_globals, NAME, warning="pulldom is slow")
    module_globals["pulldom"] = lazy
    assert repr(lazy) == f"<LazyLoader {NAME} as pulldom>"
    assert inspect.unwrap(lazy) is None
    assert lazy.START_ELEMENT == "START_ELEMENT"
    assert module_globals["pulldom"] is sys.modules[NAME]
    assert repr(lazy) == f"<LazyLoader {NAME} as pulldom>"
    assert lazy.END_ELEMENT == "END_ELEMENT"
    assert [record.message for record in caplog.records] == ["pulldom is slow"]


def test_nothing_is_imported_before_use(unloaded):
    """Behaviour 98."""
    lazy: Any = LazyLoader("pulldom", {}, NAME)
    repr(lazy)
    inspect.unwrap(lazy)
    assert lazy.__module__ == "pulldom"
    assert NAME not in sys.modules
    assert "START_ELEMENT" in dir(lazy)
    assert NAME in sys.modules


def test_missing_module_fails_at_first_use():
    """Behaviour 98."""
    lazy: Any = LazyLoader("missing", {}, "no_such_module")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = lazy.attribute
