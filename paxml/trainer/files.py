"""Text files about a run, in its log directory."""

import json
from typing import Any

import jax
from absl import logging
from etils import epath

from paxml.summary.tables import num_parameters, parameter_table
from paxml.summary.texts import pretty_repr_provenance
from paxml.train_states import TrainStateProvenance
from paxml.trainer.types import TrainStateMetadata
from praxis import base_hyperparams, base_layer


def write_post_init_model_hparams_file(
    model: base_layer.BaseLayer,
    train_state_metadata: TrainStateMetadata,
    job_log_dir: epath.PathLike | None,
    do_eval: bool = False,
) -> None:
    """Writes the config of every layer as built, and the `WeightHParams` of every variable."""
    if job_log_dir is None or jax.process_index() != 0:
        return
    text = post_init_text(model, train_state_metadata, do_eval)
    write_text(job_log_dir, "post_init_model_params.txt", text)


def post_init_text(
    model: base_layer.BaseLayer, train_state_metadata: TrainStateMetadata, do_eval: bool = False
) -> str:
    """The config of every layer as built, and the `WeightHParams` of every variable."""
    configs = model.abstract_init_with_mdl_config(
        train_state_metadata.input_shape_dtype, do_eval=do_eval
    )
    to_text = base_hyperparams.nested_struct_to_text
    return f"{to_text(configs)}\n{to_text(train_state_metadata.var_weight_hparams)}"


def write_train_provenance_file(
    train_state_provenance: TrainStateProvenance, job_log_dir: epath.PathLike | None
) -> None:
    """Writes where each first value came from; a file that exists stays as it is."""
    name = "train_state_provenance.txt"
    if job_log_dir is not None and not (epath.Path(job_log_dir) / name).exists():
        write_text(job_log_dir, name, pretty_repr_provenance(vars(train_state_provenance)))


def write_parameter_table_file(var_weight_hparams: Any, job_log_dir: epath.PathLike) -> None:
    """Writes shape, dtype, number of elements, size and sharding of every variable, with totals.

    A line in the log says how many parameters there are, and where the table is.
    """
    if jax.process_index() != 0:
        return
    path = write_text(job_log_dir, "parameters.txt", f"{parameter_table(var_weight_hparams)}\n")
    logging.info("%s parameters, table in %s", f"{num_parameters(var_weight_hparams):,}", path)


def write_input_specs(specs: Any, job_log_dir: epath.PathLike) -> None:
    """Writes shapes and dtypes of a batch as JSON."""
    write_text(job_log_dir, "input_specs.json", input_specs_text(specs))


def input_specs_text(specs: Any) -> str:
    """Shapes and dtypes of a batch as JSON."""
    tree = jax.tree.map(
        lambda x: {"_array": {"shape": list(x.shape), "dtype": str(x.dtype)}}, dict(specs)
    )
    return json.dumps(tree, indent=1, sort_keys=True)


def write_text(job_log_dir: epath.PathLike, name: str, text: str) -> epath.Path:
    """Writes a file in the log directory, in the first process only; returns its path.

    Under its name the file is whole at any moment, also if the process is killed.
    """
    path = epath.Path(job_log_dir) / name
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{name}.partial")
        partial.write_text(text)
        partial.replace(path)
    return path
