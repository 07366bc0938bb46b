"""Names of experiments (behaviours 51, 52, 116)."""

import importlib
import sys
import types

import pytest

from paxml.experiment import lookup, registry


@pytest.fixture
def fresh(monkeypatch):
    """An empty registry."""
    new = registry.Registry()
    monkeypatch.setattr(registry, "REGISTRY", new)
    monkeypatch.setattr(lookup, "SHIPPED", ())
    return new


def make(name, module="zoo.lm.params.cloud", **body):
    return type(name, (), {"__module__": module, **body})


@pytest.mark.parametrize(
    "key",
    ["Big", "cloud.Big", "params.cloud.Big", "lm.params.cloud.Big", "zoo.lm.params.cloud.Big"],
)
def test_every_ending_of_the_path_finds_the_class(fresh, key):
    big = registry.register(make("Big"))
    assert registry.get(key) is big


def test_the_part_params_may_be_left_out_in_one_form_only(fresh):
    big = registry.register(make("Big"))
    assert registry.get("lm.cloud.Big") is big
    assert registry.get("zoo.lm.cloud.Big") is None
    assert registry.get("ig") is None


def test_an_ambiguous_name_lists_the_full_ones(fresh):
    first = registry.register(make("Big"))
    registry.register(make("Big", "zoo.bert"))
    with pytest.raises(ValueError, match=r"'Big' is ambiguous.*zoo\.bert\.Big, zoo\.lm\.params"):
        registry.get("Big")
    assert registry.get("cloud.Big") is first


def test_a_name_is_taken_once_unless_overwriting(fresh):
    registry.register(make("Big"), tags=["old"])
    with pytest.raises(ValueError, match=r"already registered as 'zoo\.lm\.params\.cloud\.Big'"):
        registry.register(make("Big"))
    again = registry.register(make("Big"), tags=["new"], allow_overwrite=True)
    assert registry.get("Big") is again
    assert registry.get_registry_tags("zoo.lm.params.cloud.Big") == ["new"]
    third = registry.register(make("Big", _allow_overwrite=True))
    assert registry.get_all() == {"zoo.lm.params.cloud.Big": third}
    assert registry.get_registry_tags("nothing") == []


def test_a_module_may_be_reloaded(fresh, tmp_path, monkeypatch):
    source = (
        "from paxml import experiment_registry\n"
        "@experiment_registry.register(tags=['a'])\n"
        "class Reloaded: pass\n"
    )
    (tmp_path / "reloaded_zoo.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_zoo")
    try:
        assert registry.get("Reloaded") is module.Reloaded
        first = module.Reloaded
        importlib.reload(module)
        assert registry.get("Reloaded") is module.Reloaded is not first
    finally:
        del sys.modules["reloaded_zoo"]


def test_an_unknown_name_suggests_near_ones(fresh):
    registry.register(make("LmCloudSpmd2B"))
    message = r"Could not find experiment 'LmCloudSpmd3B'.*Did you mean zoo.*\.LmCloudSpmd2B"
    with pytest.raises(ValueError, match=message):
        lookup.get_experiment("LmCloudSpmd3B")


def test_an_unknown_module_is_named(fresh):
    registry.register(make("Other"))
    message = r"Could not import module 'no_such\.module'\. Registered are zoo.*\.Other"
    with pytest.raises(ValueError, match=message):
        lookup.get_experiment("no_such.module.Zebra")


def test_a_name_with_its_module_needs_no_import(fresh, tmp_path, monkeypatch):
    source = "from paxml import experiment_registry as r\n@r.register\nclass Fresh: pass\n"
    (tmp_path / "fresh_zoo.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup.get_experiment("fresh_zoo.Fresh").__name__ == "Fresh"
    del sys.modules["fresh_zoo"]


def test_a_module_that_lacks_a_package_names_the_package(fresh, tmp_path, monkeypatch):
    (tmp_path / "needy_zoo.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"'needy_zoo' imports 'no_such_package'"):
        lookup.get_experiment("needy_zoo.Any")


def test_an_error_inside_the_module_is_shown_as_it_is(fresh, tmp_path, monkeypatch):
    (tmp_path / "broken_zoo.py").write_text("raise KeyError('inside')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyError, match="inside"):
        lookup.get_experiment("broken_zoo.Any")


def test_entry_points_are_loaded_before_giving_up(fresh, monkeypatch):
    point = types.SimpleNamespace(load=lambda: registry.register(make("FromPackage")))
    monkeypatch.setattr(lookup.importlib.metadata, "entry_points", lambda *, group: [point])
    assert lookup.get_experiment("FromPackage").__name__ == "FromPackage"
