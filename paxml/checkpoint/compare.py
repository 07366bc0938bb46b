"""Whether saved arrays are those that a train state wants."""

from collections.abc import Iterable, Mapping

from paxml.checkpoint.health import SavedArray
from paxml.checkpoint.suggest import loading_rule

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
    directory: str,
    saved: Mapping[str, SavedArray],
    wanted: Mapping[str, SavedArray],
    *,
    saved_unpadded: Mapping[str, SavedArray],
    wanted_unpadded: Mapping[str, SavedArray],
) -> set[str]:
    """Checks that a checkpoint holds exactly the wanted arrays.

    Args:
      directory: Of the checkpoint, for the message.
      saved: Arrays of the checkpoint, by name.
      wanted: Arrays of the train state, as it is padded now.
      saved_unpadded: Variables of the checkpoint before padding, as far as it says.
      wanted_unpadded: Arrays of the train state before padding; empty if nothing is known of it.

    Returns:
      The names of those that have to be cut or filled with zeros, for another mesh than they were
      saved from.

    Raises:
      CheckpointMismatchError: listing by name what is missing, left over, or has another shape or
        dtype.
    """
    padded = differently_padded(
        saved, wanted, saved_unpadded=saved_unpadded, wanted_unpadded=wanted_unpadded
    )
    # Padding can make two different sizes equal.
    really = {
        name: array
        for name, array in saved_unpadded.items()
        if name in saved and array != wanted_unpadded.get(name, array)
    }
    found = {**saved, **{name: wanted[name] for name in padded}, **really}
    if difference := tree_difference(found, wanted):
        raise CheckpointMismatchError(
            f"Checkpoint {directory} does not fit the train state:\n{difference}\n"
            "Undo the change of the model or the optimizer, or start in a new job_log_dir and "
            f"load what still fits:\n{loading_rule(directory, found, wanted)}"
        )
    return padded


def differently_padded(
    saved: Mapping[str, SavedArray],
    wanted: Mapping[str, SavedArray],
    *,
    saved_unpadded: Mapping[str, SavedArray],
    wanted_unpadded: Mapping[str, SavedArray],
) -> set[str]:
    """Names of arrays that differ only in the zeros at their end, which another mesh asked for.

    The checkpoint says what the variables were before padding. The optimizer's arrays are known by
    their sizes: a size may differ as that of some variable does.

    Args:
      saved: Arrays of the checkpoint, by name.
      wanted: Arrays of the train state, as it is padded now.
      saved_unpadded: Variables of the checkpoint before padding, as far as it says.
      wanted_unpadded: Arrays of the train state before padding.
    """
    differ = {
        name
        for name in saved.keys() & wanted.keys() & wanted_unpadded.keys()
        if saved[name].shape != wanted[name].shape
        and saved[name].dtype == wanted[name].dtype
        and len(saved[name].shape) == len(wanted[name].shape)
    }
    variables = {name for name in differ if saved_unpadded.get(name) == wanted_unpadded[name]}
    known = {sizes for name in variables for sizes in _sizes(saved[name], wanted_unpadded[name])}
    others = {
        name
        for name in differ - saved_unpadded.keys()
        if all(
            size == unpadded or (size, unpadded) in known
            for size, unpadded in _sizes(saved[name], wanted_unpadded[name])
        )
    }
    return variables | others


def _sizes(saved: SavedArray, unpadded: SavedArray) -> list[tuple[int, int]]:
    return list(zip(saved.shape, unpadded.shape, strict=True))
