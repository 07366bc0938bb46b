"""The commands of `pax`, and how they tell mistakes."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest
import toy_experiment
from absl import flags

from paxml import cli, train
from paxml.launch.errors import guarded
from paxml.launch.jobs import parse_flags
from praxis import pax_fiddle
from praxis.layers import linears

TOY = "toy_experiment.Toy"


@pytest.fixture
def flag_values():
    """Flags as they were, afterwards."""
    saved = flags.FLAGS.is_parsed(), flags.FLAGS["mode"].default
    yield flags.FLAGS
    flags.FLAGS.unparse_flags()
    flags.FLAGS.set_default("mode", saved[1])
    flags.FLAGS(["test"])


def build_wrongly():
    pax_fiddle.Config(linears.Linear, input_dim=3)


def wait_for_nothing():
    train.train_and_evaluate(toy_experiment.Toy(), "/proc/none")


def test_a_mistake_ends_in_one_line_and_code_2(capsys):
    for call, text in [
        (build_wrongly, "Linear has no field 'input_dim'; did you mean 'input_dims'?"),
        (wait_for_nothing, "Cannot write to job_log_dir '/proc/none'"),
        (pathlib.Path("/not/here").read_text, "No such file or directory: '/not/here'"),
    ]:
        assert guarded("train", call) == 2
        error = capsys.readouterr().err
        assert error.startswith("pax train: error: ")
        assert text in error
        assert error.count("\n") == 1


def test_notes_of_an_error_are_told_too(capsys):
    def call():
        try:
            build_wrongly()
        except Exception as error:
            error.add_note("In the second layer.")
            raise

    assert guarded("train", call) == 2
    assert capsys.readouterr().err.endswith("name. In the second layer.\n")


def raise_in_user_code():
    raise ValueError("mine")


def fail_in_the_library():
    guarded(None, None)  # pyright: ignore[reportArgumentType]  # `None` is not callable


@pytest.mark.parametrize(
    ("call", "kind"), [(raise_in_user_code, ValueError), (fail_in_the_library, TypeError)]
)
def test_other_errors_keep_their_traceback(call, kind):
    """Of the user's own code; and of this library, where it did not raise on purpose."""
    with pytest.raises(kind):
        guarded("train", call)


def test_traceback_is_shown_when_asked_for():
    with pytest.raises(ValueError, match="here does not exist"):
        cli.main(["ckpt", "ls", "not/here", "--traceback"])
    assert cli.main(["ckpt", "ls", "not/here"]) == 2


def test_a_full_disk_is_told_in_one_line(capsys):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device", "/runs/x")

    assert guarded("train", write) == 2
    assert capsys.readouterr().err == (
        "pax train: error: [Errno 28] No space left on device: '/runs/x'\n"
    )


@pytest.mark.parametrize("command", ["train", "eval", "decode"])
def test_each_command_has_its_mode(command, flag_values):
    rest = parse_flags(command, ["pax", f"--exp={TOY}", "--set", "NUM=1", "--set=a.b=c"])
    assert rest == ["pax"]
    assert flag_values.mode == command
    assert flag_values.set == ["NUM=1", "a.b=c"]


def test_decoding_once_is_a_mode_of_decode(flag_values):
    parse_flags("decode", ["pax", "--mode=decode_once"])
    assert flag_values.mode == "decode_once"


@pytest.mark.parametrize(
    ("command", "flag", "message"),
    [
        ("train", "--job_logdir=x", "Unknown command line flag 'job_logdir'.*job_log_dir"),
        ("eval", "--mode=train", r"--mode=train is not one of `pax eval`, which runs eval\."),
        ("train", "--num_hosts=a", "num_hosts"),
    ],
)
def test_a_wrong_flag_is_named(command, flag, message, flag_values):
    with pytest.raises(flags.Error, match=message):
        parse_flags(command, ["pax", flag])


def test_help_of_a_job_shows_its_flags(capsys):
    assert cli.main(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: pax eval" in text
    assert "--summary_writers" in text
    assert "--compilation_cache_dir" in text


def test_list_of_a_module_that_is_not_there(capsys):
    assert cli.main(["list", "not_there.experiments"]) == 2
    assert "Could not import module 'not_there.experiments'" in capsys.readouterr().err


def test_describe(capsys):
    arguments = ["describe", TOY, "--devices=4", "--kind=H100", "--set", "BATCH=16"]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "params/w" in text
    assert "float32[16,3]" in text
    assert "memory of h100" in text
    assert cli.main([*arguments, "--set", "train.num_train_step=1"]) == 2
    assert "Did you mean 'num_train_steps'" in capsys.readouterr().err


def test_checkpoints_of_a_run(run_dir, capsys):
    assert cli.main(["ckpt", "ls", str(run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["0", "4", "8", "10"]
    assert cli.main(["ckpt", "show", str(run_dir), "--step=4"]) == 0
    text = capsys.readouterr().out
    assert "checkpoint_00000004, format 1.1" in text
    assert "mdl_vars.params.w" in text
    same = ["ckpt", "diff", str(run_dir), str(run_dir), "--steps", "4", "8"]
    assert cli.main(same) == 0
    assert "The same names, shapes and dtypes." in capsys.readouterr().out
    assert cli.main([*same, "--values"]) == 1
    assert "opt_states_0_0.count " in capsys.readouterr().out


def test_curves_of_a_run(run_dir, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "loss.png"
    assert cli.main(["plot", str(run_dir), str(run_dir), f"--output={picture}"]) == 0
    text = capsys.readouterr().out
    assert "eval_test_test" in text
    assert picture.stat().st_size > 10_000
    assert cli.main(["plot", str(run_dir), "--tag=lost"]) == 2
    assert "has the scalar 'lost'" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_of_a_job_from_the_shell(tmp_path):
    """The whole way: the console command, absl's `run`, and the exit code.

    The experiment is one of the working directory, which a console command is not told of.
    """
    root, tests = (pathlib.Path(str(one.__file__)).parent for one in (train, toy_experiment))
    environment = {**os.environ, "PYTHONPATH": str(root.parent)}
    command = [sys.executable, "-P", "-m", "paxml.cli", "train", f"--exp={TOY}"]
    done = subprocess.run(
        [*command, f"--job_log_dir={tmp_path}", "--set", "model.keep_probs=1"],
        env=environment,
        cwd=tests,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert line == (
        "pax train: error: --set=model.keep_probs=1: 'model', a config of Regression, has no "
        "field 'keep_probs'. Did you mean 'keep_prob'?"
    )
    assert list(tmp_path.iterdir()) == []
