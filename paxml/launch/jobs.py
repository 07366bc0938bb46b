"""The commands that run an experiment: `pax train`, `pax eval`, `pax decode`."""

import sys
from collections.abc import Sequence

from absl import app, flags

from paxml.launch import flags as launch_flags
from paxml.launch.commands.common import import_from_working_directory
from paxml.launch.errors import EXIT_CODE, guarded
from paxml.launch.main import main as run_main
from paxml.launch.processes import ending_together

FLAGS = flags.FLAGS

# The modes that each command can run; the first is its own.
MODES = {"train": ("train",), "eval": ("eval",), "decode": ("decode", "decode_once", "infer")}

USAGE = """usage: pax {command} --exp=NAME --job_log_dir=DIR [--set PATH=VALUE ...] [--flag ...]

Does the same as `python -m paxml.main --mode={command}`.
"""


def run_job(command: str, arguments: Sequence[str], *, show_traceback: bool = False) -> int:
    """Runs an experiment in the mode of the command, by the flags of `paxml.main`.

    Args:
      command: `train`, `eval` or `decode`.
      arguments: The flags.
      show_traceback: Whether mistakes of the user are raised like any other error.

    Returns:
      The exit code, if it does not exit by itself.
    """
    if any(argument in ("-h", "--help", "-help") for argument in arguments):
        return guarded(command, lambda: _print_help(command))

    import_from_working_directory()

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return parse_flags(command, argv)
        except flags.Error as error:
            print(f"pax {command}: error: {error}", file=sys.stderr)
            sys.exit(EXIT_CODE)

    def main(argv: Sequence[str]) -> int | None:
        return ending_together(
            lambda: guarded(command, lambda: run_main(argv), show_traceback=show_traceback)
        )

    app.run(main, argv=[f"pax {command}", *arguments], flags_parser=parse)
    return 0


def _print_help(command: str) -> None:
    print(USAGE.format(command=command))
    print(FLAGS.module_help(launch_flags), flush=True)


def parse_flags(command: str, argv: Sequence[str]) -> list[str]:
    """Parses the flags of a command; returns the program's name and what is no flag.

    Raises:
      flags.Error: for a flag that does not exist, a wrong value, or a mode of another command.
    """
    modes = MODES[command]
    FLAGS.set_default("mode", modes[0])
    rest = FLAGS(list(argv))
    if FLAGS.mode not in modes:
        raise flags.Error(
            f"--mode={FLAGS.mode} is not one of `pax {command}`, which runs {', '.join(modes)}."
        )
    return rest
