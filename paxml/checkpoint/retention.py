"""Which checkpoints are kept."""

import datetime
import re

from orbax.checkpoint import checkpoint_managers

_DURATION = re.compile(r"(\d+)([smhd]?)")
_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> datetime.timedelta | None:
    """Reads a duration such as '90m'.

    Args:
      text: Digits and a unit out of s, m, h, d; without unit they are seconds. Empty means never.

    Raises:
      ValueError: if the text is none of these.

    Example:
      >>> parse_duration("12h")
      datetime.timedelta(seconds=43200)
    """
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"Duration {text!r} is not digits followed by one of s, m, h, d. Write '90m' or '12h'."
        )
    return datetime.timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})


def preservation_policy(
    max_to_keep: int | None, keep_time_interval: datetime.timedelta | None
) -> checkpoint_managers.AnyPreservationPolicy:
    """Keeps the newest checkpoints, and older ones at a minimal distance in time.

    Args:
      max_to_keep: How many of the newest are kept; None keeps all.
      keep_time_interval: Also kept are the first checkpoint, and each that was written at least
        this long after the last one kept for this reason. None: no such ones.
    """
    policies: list[checkpoint_managers.PreservationPolicy] = [
        checkpoint_managers.LatestN(max_to_keep)
    ]
    if keep_time_interval is not None:
        seconds = int(keep_time_interval.total_seconds())
        policies.append(checkpoint_managers.EveryNSeconds(seconds))
    return checkpoint_managers.AnyPreservationPolicy(policies)
