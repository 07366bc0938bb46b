"""A finished run that all jobs of these tests look at."""

import pytest
import toy_decoding

from paxml import train

EMA = 0.9


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Ten steps with a moving average; checkpoints 0, 4, 8, 10, evaluated at 5 and 10."""
    directory = tmp_path_factory.mktemp("trained")
    train.train_and_evaluate(toy_decoding.variant(EMA=EMA), directory, False, True)
    return directory


@pytest.fixture
def make(trained, tmp_path):
    """Makes a log directory that holds some checkpoints of the run."""

    def link(*steps):
        (tmp_path / "checkpoints").mkdir()
        for step in steps:
            publish(trained, tmp_path, step)
        return tmp_path

    return link


@pytest.fixture
def publish_next(trained, tmp_path):
    """Makes one more checkpoint appear, whole, as training does."""
    return lambda step: publish(trained, tmp_path, step)


def publish(trained, directory, step):
    name = f"checkpoint_{step:08d}"
    (directory / "checkpoints" / name).symlink_to(trained / "checkpoints" / name)
