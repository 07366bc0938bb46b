"""The variables of a model as text, for logs, files and event files."""

import math
from typing import Any

import jax

from praxis.core.weights import WeightHParams
from praxis.inspection.variables import variable_table


def parameter_table(var_weight_hparams: Any) -> str:
    """Returns the table of `praxis.inspection.variable_table` as plain text."""
    return str(variable_table(var_weight_hparams))


def num_parameters(var_weight_hparams: Any) -> int:
    """Returns the number of elements of all variables, each layer of a stack counted.

    Args:
      var_weight_hparams: Tree of `WeightHParams`.
    """
    leaves = jax.tree.leaves(
        var_weight_hparams, is_leaf=lambda leaf: isinstance(leaf, WeightHParams)
    )
    return sum(math.prod(leaf.full_shape) for leaf in leaves)
