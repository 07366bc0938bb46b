"""The command line (behaviours 39, 51, 53, 54, 118)."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest
import toy_experiment
from absl import app, flags
from absl.testing import flagsaver
from jax.experimental.compilation_cache import compilation_cache

from paxml import cli, main, train
from paxml.experiment import lookup, registry
from paxml.launch import main as launch
from paxml.launch.train import writable_directory

ROOT = pathlib.Path(train.__file__).parents[1]
TESTS = pathlib.Path(toy_experiment.__file__).parent


class Untouched(toy_experiment.Toy):
    def task(self):
        raise AssertionError("The directory is checked first.")


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


@pytest.mark.slow
def test_a_run_from_the_command_line_without_tensorflow(tmp_path):
    code = (
        "import sys, runpy\n"
        "sys.modules['tensorflow'] = sys.modules['torch'] = sys.modules['clu'] = None\n"
        f"sys.argv = ['paxml.main', '--exp=toy_experiment.Toy', '--job_log_dir={tmp_path}']\n"
        "runpy.run_module('paxml.main', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "starting task toy at step 0" in done.stderr
    assert "step 10/10" in done.stderr
    assert "orbax" not in done.stderr.lower()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "_internal_artifacts",
        "checkpoints",
        "summaries",
        "experiment_cls_vars.txt",
        "model_params.txt",
        "parameters.txt",
        "post_init_model_params.txt",
        "train_state_provenance.txt",
    }


def test_without_exp_or_job_log_dir_the_flag_is_named():
    with flagsaver.flagsaver(exp=None), pytest.raises(app.UsageError, match="--exp is missing"):
        main.create_experiment_config()
    with (
        flagsaver.flagsaver(exp="toy_experiment.Toy", job_log_dir=None),
        pytest.raises(app.UsageError, match="--job_log_dir is missing"),
    ):
        main.main(["paxml.main"])
    with pytest.raises(app.UsageError, match=r"Too many arguments: \['train'\]"):
        main.main(["paxml.main", "train"])


def test_an_unknown_experiment_suggests_a_near_one():
    with (
        flagsaver.flagsaver(exp="Toi"),
        pytest.raises(ValueError, match=r"'Toi'.*toy_experiment\.Toy"),
    ):
        main.create_experiment_config()


def test_flags_of_the_decoding_modes_are_refused_in_training(tmp_path):
    with (
        flagsaver.flagsaver(mode="train", restore_checkpoint_dir="somewhere"),
        pytest.raises(ValueError, match=r"--restore_checkpoint_dir belongs to the decoding modes"),
    ):
        main.run_experiment(toy_experiment.Toy(), None, tmp_path)


def test_a_log_directory_that_cannot_be_written_is_named_at_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ValueError, match=r"Cannot write to job_log_dir '.*file/run'"):
        writable_directory(blocked / "run")
    with pytest.raises(ValueError, match=r"Cannot write to job_log_dir '.*file/run'"):
        train.train_and_evaluate(Untouched(), blocked / "run")


def test_a_changed_config_keeps_the_one_before(tmp_path, caplog):
    train.write_hparams_file(toy_experiment.Toy(), tmp_path)
    train.write_hparams_file(toy_experiment.Toy(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model_params.txt"]
    train.write_hparams_file(toy_experiment.variant(STEPS=11), tmp_path)
    assert "num_train_steps : 11" in (tmp_path / "model_params.txt").read_text()
    assert "num_train_steps : 10" in (tmp_path / "model_params.txt.1").read_text()
    assert "The config differs from the last start" in caplog.text


def test_hardware_random_numbers_stay_off_on_a_cpu():
    before = jax.random.key(0).dtype
    with flagsaver.flagsaver(globally_use_hardware_rng=True):
        launch.set_up_jax()
    assert jax.random.key(0).dtype == before


def test_list_shows_names_and_tags(capsys):
    assert cli.main(["list", "--import", "toy_experiment", "--tag", "toy"]) == 0
    assert capsys.readouterr().out == "toy_experiment.Toy  [toy]\n"
    assert cli.main(["list", "--import", "toy_experiment", "--tag", "none"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "experiments has the tag 'none'" in captured.err


def test_list_without_experiments_says_how_to_name_one(monkeypatch, capsys):
    monkeypatch.setattr(registry, "REGISTRY", registry.Registry())
    monkeypatch.setattr(lookup, "SHIPPED", ())
    assert cli.main(["list"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No experiment is registered" in captured.err
    assert "pax list my_package.experiments" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [([], 2, "pax COMMAND"), (["fly"], 2, "no command 'fly'"), (["--help"], 0, "pax COMMAND")],
    ids=str,
)
def test_usage(arguments, code, text, capsys):
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert text in captured.out + captured.err


def test_compiled_programs_are_kept_where_the_flag_says(tmp_path):
    before = {
        name: getattr(jax.config, name)
        for name in (
            "jax_compilation_cache_dir",
            "jax_persistent_cache_min_compile_time_secs",
            "jax_enable_compilation_cache",
        )
    }
    try:
        compilation_cache.reset_cache()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_enable_compilation_cache", True)
        with flagsaver.flagsaver(compilation_cache_dir=str(tmp_path)):
            launch.set_up_jax()
        jax.jit(lambda x: x * 7 + 3)(jax.numpy.ones([11])).block_until_ready()
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
