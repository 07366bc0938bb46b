"""Looking at layers: tables of variables and configs."""

from praxis.core.tables import Column, Table, config_table, size_text, variable_table

__all__ = ["Column", "Table", "config_table", "size_text", "variable_table"]
