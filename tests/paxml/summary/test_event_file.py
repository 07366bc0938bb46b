"""Event files that survive the end of the process (behaviour 38 for the trainer)."""

import pytest

from paxml.summary.event_file import EventFileWriter
from paxml.summary.events import read_scalars


def test_flush_returns_when_everything_is_in_the_file(tmp_path):
    writer = EventFileWriter(tmp_path, flush_secs=1000.0)
    for step in range(100):
        writer.add_scalar("loss", step / 4, step)
    writer.flush()
    assert read_scalars(tmp_path, "loss") == {step: step / 4 for step in range(100)}
    writer.close()
    writer.close()


def test_two_starts_in_a_second_do_not_overwrite_each_other(tmp_path):
    for step in range(3):
        with EventFileWriter(tmp_path, flush_secs=1000.0) as writer:
            writer.add_scalar("loss", float(step), step)
    assert len(list(tmp_path.iterdir())) == 3
    assert read_scalars(tmp_path, "loss") == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_full_disk_is_an_error_with_the_name_of_the_file(tmp_path):
    """Nothing waits for ever, as it would for a thread that has ended."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = EventFileWriter(tmp_path, flush_secs=1000.0)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        for step in range(50):
            writer.add_scalar("loss", 1.0, step)
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/events\.out\.tfevents"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.close()


def test_without_a_disk_nothing_is_written(tmp_path):
    with EventFileWriter(tmp_path / "none", flush_secs=1.0, write_to_disk=False) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert not (tmp_path / "none").exists()
