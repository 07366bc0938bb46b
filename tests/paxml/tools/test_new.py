"""`pax new` writes files that work as they are."""

import importlib
import pathlib

import pytest

from paxml import cli
from paxml.experiment import registry
from paxml.tools.new import write_experiment


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Both modules, imported from where they were written."""
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    write_experiment("two_moons", tmp_path / "mine")
    importlib.invalidate_caches()
    return importlib.import_module("two_moons"), importlib.import_module("test_two_moons")


@pytest.mark.slow
def test_the_written_tests_pass_on_the_written_experiment(written, tmp_path):
    experiment, tests = written
    assert registry.get("two_moons.TwoMoons") is experiment.TwoMoons
    tests.test_size()
    tests.test_run(tmp_path / "run")
    for module in written:
        text = pathlib.Path(module.__file__).read_text()
        assert "paxml.tools.template" not in text
        assert "my_experiment" not in text.lower()


def test_the_command_says_what_to_do_next(tmp_path, capsys):
    assert cli.main(["new", "mine", f"--dir={tmp_path}"]) == 0
    assert "pax train --exp=mine.Mine --job_log_dir=runs/mine" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Upper", "2nd", "a-b", "class", "a.b"])
def test_a_name_that_is_no_module(name, tmp_path):
    with pytest.raises(ValueError, match=f"'{name}' cannot be the name of a module"):
        write_experiment(name, tmp_path)


def test_nothing_is_written_over(tmp_path):
    first, second = write_experiment("mine", tmp_path)
    first.unlink()
    second.write_text("precious")
    with pytest.raises(ValueError, match=r"test_mine\.py exists already"):
        write_experiment("mine", tmp_path)
    assert not first.exists()
    assert second.read_text() == "precious"
