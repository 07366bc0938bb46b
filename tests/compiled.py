"""What a compiled program keeps in memory."""

import re
from typing import Any

import numpy as np


def largest_array(compiled: Any) -> int:
    """Number of elements of the largest array in a compiled program."""
    shapes = set(re.findall(r"[a-z]\w*\[([\d,]+)\]", compiled.as_text()))
    return max(int(np.prod([int(size) for size in shape.split(",")])) for shape in shapes)


def temporary_bytes(compiled: Any) -> int:
    """What a compiled program allocates besides its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes
