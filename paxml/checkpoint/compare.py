"""Whether saved arrays are those that a train state wants."""

from collections.abc import Iterable, Mapping

from paxml.checkpoint.health import SavedArray

_SHOWN = 20


class CheckpointMismatchError(ValueError):
    """The arrays of a checkpoint are not those of the model and the optimizer."""


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = sorted(lines)
    if not lines:
        return []
    more = [f"    ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"  {title} ({len(lines)}):", *(f"    {line}" for line in lines[:_SHOWN]), *more]


def tree_difference(saved: Mapping[str, SavedArray], wanted: Mapping[str, SavedArray]) -> str:
    """Lists what differs between two sets of named arrays; empty if nothing does.

    Args:
      saved: Arrays of the checkpoint, by name.
      wanted: Arrays of the train state, by name.
    """
    both = saved.keys() & wanted.keys()
    shapes = {name for name in both if saved[name].shape != wanted[name].shape}
    dtypes = {name for name in both - shapes if saved[name].dtype != wanted[name].dtype}
    return "\n".join(
        _section(
            "not in the checkpoint", (f"{n}: {wanted[n]}" for n in wanted.keys() - saved.keys())
        )
        + _section(
            "only in the checkpoint", (f"{n}: {saved[n]}" for n in saved.keys() - wanted.keys())
        )
        + _section("other shape", (f"{n}: saved {saved[n]}, wanted {wanted[n]}" for n in shapes))
        + _section("other dtype", (f"{n}: saved {saved[n]}, wanted {wanted[n]}" for n in dtypes))
    )


def check_fits(
    directory: str, saved: Mapping[str, SavedArray], wanted: Mapping[str, SavedArray]
) -> None:
    """Checks that a checkpoint holds exactly the wanted arrays.

    Raises:
      CheckpointMismatchError: listing by name what is missing, left over, or has another shape or
        dtype.
    """
    if difference := tree_difference(saved, wanted):
        raise CheckpointMismatchError(
            f"Checkpoint {directory} does not fit the train state:\n{difference}\n"
            "Undo the change of the model or the optimizer, or start in a new job_log_dir and "
            "load what still fits with init_from_checkpoint_rules."
        )
