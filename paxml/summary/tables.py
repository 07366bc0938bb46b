"""The variables of a model as text, for logs and event files."""

from typing import Any

from praxis.core.tables import variable_table


def parameter_table(var_weight_hparams: Any) -> str:
    """Returns the table of `praxis.inspection.variable_table` as plain text."""
    return str(variable_table(var_weight_hparams))
