"""Which checkpoints are kept (trainer behaviours 91 and 92)."""

import datetime
from typing import NamedTuple

import pytest
from orbax.checkpoint import checkpoint_managers

from paxml.checkpoint.retention import parse_duration, preservation_policy


class Info(NamedTuple):
    step: int
    time: datetime.datetime
    metrics: None = None


def kept(steps, policy):
    """Saves hourly and deletes after each save what the policy gives up."""
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    left = []
    for hour, step in enumerate(steps):
        time = start + datetime.timedelta(hours=hour)
        left.append(Info(step, time))
        keep = policy.should_preserve(left, context=checkpoint_managers.PreservationContext())
        left = [info for info, stays in zip(left, keep, strict=True) if stays]
    return [info.step for info in left]


@pytest.mark.parametrize(
    ("max_to_keep", "hours", "expected"),
    [
        (2, 2, [0, 2000, 4000, 6000, 8000, 9000]),
        (2, None, [8000, 9000]),
        (None, None, list(range(0, 10_000, 1000))),
        (1, 5, [0, 5000, 9000]),
    ],
)
def test_newest_and_spaced_in_time(max_to_keep, hours, expected):
    interval = None if hours is None else datetime.timedelta(hours=hours)
    policy = preservation_policy(max_to_keep, interval)
    assert kept(range(0, 10_000, 1000), policy) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("12h", 43200), ("1d", 86400), ("30", 30), ("7s", 7), ("", None)],
)
def test_durations(text, seconds):
    duration = parse_duration(text)
    assert (duration and duration.total_seconds()) == seconds


@pytest.mark.parametrize("text", ["1h30", "5x", "90ms", "h", "-1h", "1.5h"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=f"Duration '{text}' is not digits followed by"):
        parse_duration(text)
