"""One short run that the commands look at."""

import pytest
import toy_experiment
from absl import flags
from absl.testing import flagsaver

from paxml import main
from praxis.inspection import hardware


class Profiled(toy_experiment.Toy):
    """Toy with a profile, and speeds often enough to be seen in ten steps."""

    def task(self):
        task = super().task()
        task.train.set(
            compute_steps_per_sec_interval_steps=2,
            profiler_capture_step=3,
            profiler_num_steps=1,
            profiler_min_duration_sec=0.0,
        )
        return task


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """Directory of a run with both kinds of summaries, on devices whose peak is known."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])
    directory = tmp_path_factory.mktemp("run")
    with (
        pytest.MonkeyPatch.context() as patch,
        flagsaver.flagsaver(
            mode="train",
            job_log_dir=str(directory),
            eval_on_test=True,
            summary_writers=["tensorboard", "jsonl"],
        ),
    ):
        patch.setitem(hardware._BY_KIND, "cpu", hardware.Hardware("cpu", 1e9, 1e9, 1e9, 1e9))
        main.run(Profiled())
    return directory
