"""Texts about the model, written once at the start of a run."""

import textwrap
from collections.abc import Mapping
from typing import Any

import jax

from paxml.summary.tables import parameter_table
from paxml.summary.writers.base import SummaryWriter


def pretty_format_iters(input_str: str) -> str:
    """Returns digits in groups of three, with spaces between.

    Example:
      >>> pretty_format_iters("1234567")
      '1 234 567'
    """
    first = len(input_str) % 3
    groups = [input_str[start : start + 3] for start in range(first, len(input_str), 3)]
    return " ".join([input_str[:first], *groups] if first else groups)


def pretty_repr_shapes(
    replicated_vars: Any, is_vars_replicated: bool = False, with_dtype: bool = False
) -> str:
    """Returns a line `path: AxB` for each variable.

    Args:
      replicated_vars: Tree of arrays or shapes.
      is_vars_replicated: Whether a first axis over devices is left out.
      with_dtype: Whether the dtype follows.
    """
    lines = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(replicated_vars):
        shape = leaf.shape[1:] if is_vars_replicated else leaf.shape
        text = "x".join(map(str, shape)) or "scalar"
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        lines.append(f"{name}: {text}, {leaf.dtype}" if with_dtype else f"{name}: {text}")
    return "\n".join(lines)


def pretty_repr(values: Any, num_spaces: int = 4) -> str:
    """Returns a nested dict as text, a key a line, indented by `num_spaces` a level."""
    if not isinstance(values, Mapping):
        return repr(values)
    lines = []
    for key, value in values.items():
        text = pretty_repr(value, num_spaces)
        if isinstance(value, Mapping):
            lines += [f"{key}:", textwrap.indent(text, " " * num_spaces)]
        else:
            lines.append(f"{key}: {text}")
    return "\n".join(lines)


def pretty_repr_provenance(provenance: Any) -> str:
    """Returns a line `path: origin` for each entry of a tree that says where values came from."""
    lines = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(provenance):
        lines.append(f"{jax.tree_util.keystr(path, simple=True, separator='/')}: {leaf}")
    return "\n".join(lines)


def write_model_provenance(
    train_summary_writer: SummaryWriter, train_state_provenance: Any
) -> None:
    """Writes where the variables and the optimizer states came from."""
    for tag, tree in (
        ("Model vars provenance", train_state_provenance.mdl_vars),
        ("Opt states provenance", train_state_provenance.opt_states),
    ):
        train_summary_writer.add_text(tag, _verbatim(pretty_repr_provenance(tree)), 0)


def write_model_structure(
    train_summary_writer: SummaryWriter, train_state: Any, is_vars_replicated: bool = False
) -> None:
    """Writes the variables of a model, one a line, as the text `Model`."""
    text = pretty_repr_shapes(train_state.mdl_vars, is_vars_replicated)
    # Markdown would run the lines together.
    train_summary_writer.add_text("Model", _verbatim(text), 0)


def write_parameter_table(train_summary_writer: SummaryWriter, var_weight_hparams: Any) -> None:
    """Writes the table of variables as the text `Parameters`."""
    train_summary_writer.add_text("Parameters", _verbatim(parameter_table(var_weight_hparams)), 0)


def write_total_num_params(train_summary_writer: SummaryWriter, total_num_params: int) -> None:
    """Writes the number of parameters as the text `Total Num Params`."""
    text = pretty_format_iters(str(total_num_params))
    train_summary_writer.add_text("Total Num Params", text, 0)


def write_global_batch_size(train_summary_writer: SummaryWriter, global_batch_size: int) -> None:
    """Writes the batch size over all processes as the text `Global batch size`."""
    text = pretty_format_iters(str(global_batch_size))
    train_summary_writer.add_text("Global batch size", text, 0)


def _verbatim(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
