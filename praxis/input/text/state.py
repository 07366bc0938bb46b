"""Position of an input in the global order, independent of the number of processes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from praxis.input import state as state_lib


class Position(NamedTuple):
    """Where a process, or all of them, are in the data.

    Attributes:
      batches: Global batches read.
      rows: State of the iterator of each row of the global batch, by its number as text.
      identity: What must not change between saving and restoring.
    """

    batches: int
    rows: dict[str, Any]
    identity: dict[str, Any]

    def encode(self) -> bytes:
        """As bytes."""
        return state_lib.encode(**self._asdict())


def decode(state: bytes) -> Position:
    """Reads what `Position.encode` wrote.

    Raises:
      ValueError: if the bytes are something else.
    """
    return Position(*state_lib.decode(state, *Position._fields))


def join(states: Sequence[bytes]) -> bytes:
    """The position of all processes from those of each.

    Raises:
      ValueError: if they are not of one moment of one run.
    """
    positions = [decode(state) for state in states]
    first = positions[0]
    for number, other in enumerate(positions):
        if (other.batches, other.identity) != (first.batches, first.identity):
            raise ValueError(
                f"the states are not of one moment of one run: state 0 is after {first.batches} "
                f"batches of {first.identity}, state {number} after {other.batches} batches of "
                f"{other.identity}."
            )
    rows = {row: state for position in positions for row, state in position.rows.items()}
    return Position(first.batches, rows, first.identity).encode()


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], owner: str) -> None:
    """Refuses a state of other data.

    Raises:
      ValueError: naming what differs.
    """
    changed = [name for name in now if saved.get(name) != now[name]]
    if changed:
        before = {name: saved.get(name) for name in changed}
        after = {name: now[name] for name in changed}
        raise ValueError(
            f"{owner}: the state was saved with {before}, but now the input has {after}."
        )


def own_rows(position: Position, rows: Sequence[int], owner: str) -> list[Any]:
    """The states of some rows.

    Raises:
      ValueError: if they are not all there.
    """
    missing = [row for row in rows if str(row) not in position.rows]
    if missing:
        saved = sorted(map(int, position.rows))
        raise ValueError(
            f"{owner}: the state holds the rows {saved} of the global batch, but this process "
            f"reads {list(rows)}. Give it the states of all processes that saved, joined by "
            "join_states."
        )
    return [position.rows[str(row)] for row in rows]
