"""`pax new`: an experiment to start from."""

import argparse
from collections.abc import Sequence

from paxml.tools.new import class_name, write_experiment

NEXT = """wrote {experiment}
wrote {test}

Next, from {directory}:
  pax train --exp={module}.{cls} --job_log_dir=runs/{module} --eval_on_test
  pytest {test_name}
"""


def new_experiment(arguments: Sequence[str]) -> int:
    """Writes the two files and says what to do with them."""
    parser = argparse.ArgumentParser(
        prog="pax new",
        description="Writes an experiment and tests of it, which work as they are.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the module, such as my_experiment")
    parser.add_argument("--dir", default=".", help="where to write; default: here")
    options = parser.parse_args(arguments)
    experiment, test = write_experiment(options.name, options.dir)
    print(
        NEXT.format(
            experiment=experiment,
            test=test,
            directory=experiment.resolve().parent,
            module=options.name,
            cls=class_name(options.name),
            test_name=test.name,
        ),
        end="",
    )
    return 0
