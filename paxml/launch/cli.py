"""The console command `pax`."""

import sys
from collections.abc import Callable, Sequence

from paxml.launch.commands.checkpoints import look_at_checkpoints
from paxml.launch.commands.experiments import describe_experiment, list_experiments
from paxml.launch.commands.launch import launch
from paxml.launch.commands.new import new_experiment
from paxml.launch.commands.plot import plot_runs
from paxml.launch.errors import guarded
from paxml.launch.jobs import MODES, run_job

USAGE = """usage: pax COMMAND ...

  pax train  --exp=NAME --job_log_dir=DIR [--flag=value ...]  train an experiment
  pax eval   --exp=NAME --job_log_dir=DIR [--flag=value ...]  evaluate its checkpoints
  pax decode --exp=NAME --job_log_dir=DIR [--flag=value ...]  decode with its checkpoints
  pax launch --processes=N COMMAND ...                        one of these in N processes here
  pax list [MODULE ...] [--tag=TAG]                           show the registered experiments
  pax describe NAME [--devices=N] [--kind=KIND]               parameters, FLOPs and memory
  pax ckpt ls|show|diff DIR ...                               look at checkpoints
  pax plot DIR ...                                            compare the losses of runs
  pax new NAME                                                write an experiment to start from

train, eval, decode and describe take --set PATH=VALUE: a setting of the experiment (--set
NUM_STEPS=20) or a field of its task's config (--set train.learner.optimizer.learning_rate=0.1).
`pax COMMAND --help` shows all options. Mistakes are told in one line; --traceback shows more.
"""

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "launch": launch,
    "list": list_experiments,
    "describe": describe_experiment,
    "ckpt": look_at_checkpoints,
    "plot": plot_runs,
    "new": new_experiment,
}
_TRACEBACK = "--traceback"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code, 2 for a mistake of the user."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != _TRACEBACK]
    show_traceback = arguments != given
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in MODES:
        return run_job(command, rest, show_traceback=show_traceback)
    if command in COMMANDS:
        call = COMMANDS[command]
        return guarded(command, lambda: call(rest), show_traceback=show_traceback)
    is_help = command in ("-h", "--help", "help")
    if command and not is_help:
        print(f"pax: there is no command {command!r}.", file=sys.stderr)
    print(USAGE, end="", file=sys.stdout if is_help else sys.stderr)
    return 0 if is_help else 2
