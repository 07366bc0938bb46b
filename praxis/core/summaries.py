"""Names and shapes of summaries, and summaries that belong to no layer."""

import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from praxis.core.context import JaxContext, cur_jax_context


class SummaryType(enum.Enum):
    """What a summary shows. The aggregate types are safe to show for sensitive data."""

    SCALAR = 1
    IMAGE = 2
    AGGREGATE_SCALAR = 3
    AGGREGATE_IMAGE = 4
    TEXT = 5
    AUDIO = 6
    VIDEO = 7
    HISTOGRAM = 8


class AuxLossStruct(struct.PyTreeNode):
    """A loss that a layer adds to that of the model.

    Attributes:
      value: The loss.
      weight: Its weight.
    """

    value: Any
    weight: Any


def get_summary_type_suffix(summary_type: SummaryType) -> str:
    """Returns the end of the key of summaries of a type."""
    return "_" + summary_type.name.lower()


def get_summary_type_from_key(key: str) -> SummaryType:
    """Returns the type that the end of a key tells.

    Raises:
      ValueError: if no type's suffix ends the key.
    """
    # `a_aggregate_scalar` ends in two suffixes, of which the longer is meant.
    for kind in sorted(SummaryType, key=lambda kind: -len(kind.name)):
        if key.endswith(get_summary_type_suffix(kind)):
            return kind
    known = ", ".join(get_summary_type_suffix(kind) for kind in SummaryType)
    raise ValueError(f"Summary key {key!r} has no type: expected it to end in one of {known}.")


def trim_summary_type_from_key(key: str) -> str:
    """Returns the name in a key, without its type."""
    return key.removesuffix(get_summary_type_suffix(get_summary_type_from_key(key)))


def get_summary_base_type(summary_type: SummaryType) -> SummaryType:
    """Returns the type without "aggregate"."""
    return {
        SummaryType.AGGREGATE_SCALAR: SummaryType.SCALAR,
        SummaryType.AGGREGATE_IMAGE: SummaryType.IMAGE,
    }.get(summary_type, summary_type)


def is_kept(verbosity: int) -> bool:
    """Returns whether a summary of this verbosity is kept here."""
    context = JaxContext.top()
    return context is None or verbosity <= context.summary_verbosity


def evaluated(name: str, tensor: Any, summary_type: SummaryType) -> Any:
    """Returns the tensor of a summary with a batch dim where its type has one.

    Args:
      name: For messages.
      tensor: [B, height, width, channels] for images, [B, time, channels] for audio; the batch dim
        may be missing. A function is called for it.
      summary_type: What the summary shows.

    Raises:
      ValueError: if the rank does not fit the type.
    """
    tensor = tensor() if callable(tensor) else tensor
    rank = {SummaryType.IMAGE: 4, SummaryType.AUDIO: 3}.get(get_summary_base_type(summary_type))
    if rank is None:
        return tensor
    given = jnp.shape(tensor)
    if len(given) == rank - 1:
        tensor = tensor[None]
    elif len(given) != rank:
        raise ValueError(
            f"Summary {name!r} of type {summary_type.name} has shape {given}, expected rank "
            f"{rank - 1} or {rank}."
        )
    return tensor


def add_global_summary(
    name: str,
    tensor: Any | Callable[[], Any],
    summary_type: SummaryType = SummaryType.SCALAR,
    verbosity: int = 2,
) -> None:
    """Adds a summary to the current JaxContext; a repeated name gets a number.

    Args:
      name: Name without the suffix of its type.
      tensor: The value, or a function that returns it, called only when it is kept.
      summary_type: What it shows.
      verbosity: It is dropped when the context's `summary_verbosity` is less.

    Raises:
      RuntimeError: if there is no JaxContext.
    """
    summaries = cur_jax_context().summary_dict
    if not is_kept(verbosity):
        return
    tensor = evaluated(name, tensor, summary_type)
    if jnp.issubdtype(jnp.result_type(tensor), jnp.floating):
        tensor = jnp.asarray(tensor, jnp.float32)
    suffix, number = get_summary_type_suffix(summary_type), 0
    key = name + suffix
    while key in summaries:
        number += 1
        key = f"{name}{number}{suffix}"
    summaries[key] = tensor


def all_global_summaries() -> dict[str, jax.Array]:
    """Returns the live dict of the current context's summaries."""
    return cur_jax_context().summary_dict


def clear_global_summary() -> None:
    """Forgets the current context's summaries."""
    cur_jax_context().summary_dict.clear()
