"""How many tokens to generate."""

import itertools
from collections.abc import Sequence

DecodeSteps = int | Sequence[int] | None


def decode_steps(max_decode_steps: DecodeSteps, seq_len: int) -> list[int]:
    """The numbers of tokens to generate after which caches grow; the last is the limit.

    Raises:
      ValueError: if they are not positive and increasing.
    """
    if max_decode_steps is None:
        return [seq_len]
    steps = [max_decode_steps] if isinstance(max_decode_steps, int) else list(max_decode_steps)
    if not steps or steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(
            f"sample_decode: max_decode_steps is {max_decode_steps}, expected at least 1 token, or "
            "an increasing list of such numbers."
        )
    return steps
