"""Looking at layers and configs: tables of variables, costs, values and where they come from."""

from praxis.config.python_text import to_python as config_to_python
from praxis.config.serialize import from_json as config_from_json
from praxis.config.serialize import to_json as config_to_json
from praxis.config.text import diff_text
from praxis.inspection.configs import config_diff, config_table
from praxis.inspection.cost import Cost, total_cost
from praxis.inspection.inherited import InheritedValue, inheritance_table, inherited_values
from praxis.inspection.layers import LayerCost, layer_costs, layer_table
from praxis.inspection.table import Column, Table, count_text, size_text
from praxis.inspection.variables import variable_table
from praxis.inspection.view import ConfigView, config_view

__all__ = [
    "Column",
    "ConfigView",
    "Cost",
    "InheritedValue",
    "LayerCost",
    "Table",
    "config_diff",
    "config_from_json",
    "config_table",
    "config_to_json",
    "config_to_python",
    "config_view",
    "count_text",
    "diff_text",
    "inheritance_table",
    "inherited_values",
    "layer_costs",
    "layer_table",
    "size_text",
    "total_cost",
    "variable_table",
]
