"""`pax ckpt`: what is in the checkpoints of a run."""

import argparse
from collections.abc import Sequence

from paxml.launch.commands.common import show, use_host_only
from paxml.tools.checkpoints import (
    arrays_diff,
    arrays_table,
    checkpoints_table,
    find_checkpoint,
    format_text,
    list_checkpoints,
)


def look_at_checkpoints(arguments: Sequence[str]) -> int:
    """Lists checkpoints, shows the arrays of one, or what differs between two."""
    options = _parser().parse_args(arguments)
    use_host_only()
    if options.action == "ls":
        show(checkpoints_table(list_checkpoints(options.directory)))
        return 0
    if options.action == "show":
        path = find_checkpoint(options.directory, options.step)
        print(format_text(path))
        show(arrays_table(path))
        return 0
    before = find_checkpoint(options.before, options.steps[0] if options.steps else None)
    after = find_checkpoint(options.after, options.steps[1] if options.steps else None)
    table = arrays_diff(before, after, values=options.values)
    print(f"{format_text(before)}\n{format_text(after)}")
    if table.rows:
        show(table)
        return 1
    what = "names, shapes, dtypes and values" if options.values else "names, shapes and dtypes"
    print(f"The same {what}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pax ckpt", description="Looks at checkpoints; uses no accelerator."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    where = "job_log_dir, its checkpoints directory, or one checkpoint"

    ls = actions.add_parser("ls", help="steps, sizes and whether they are complete")
    ls.add_argument("directory", metavar="DIR", help=where)

    show_one = actions.add_parser("show", help="names, shapes and dtypes of the arrays")
    show_one.add_argument("directory", metavar="DIR", help=where)
    show_one.add_argument("--step", type=int, help="which step; the default is the newest")

    diff = actions.add_parser("diff", help="what differs between two; exit code 1 if anything does")
    diff.add_argument("before", metavar="DIR", help=where)
    diff.add_argument("after", metavar="OTHER_DIR", help=where)
    diff.add_argument(
        "--steps", type=int, nargs=2, metavar="N", help="which steps; the default is the newest"
    )
    diff.add_argument("--values", action="store_true", help="compare the values, too")
    return parser
