"""Training from the command line: `python -m paxml.main --exp=NAME --job_log_dir=DIR`."""

from absl import app

from paxml.experiment.lookup import get_experiment
from paxml.launch.main import (
    create_experiment_config,
    main,
    run,
    run_experiment,
    wait_with_random_jitter,
)
from paxml.launch.processes import ending_together

__all__ = [
    "create_experiment_config",
    "get_experiment",
    "main",
    "run",
    "run_experiment",
    "wait_with_random_jitter",
]

if __name__ == "__main__":
    app.run(lambda argv: ending_together(lambda: main(argv)))
