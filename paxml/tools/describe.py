"""What training an experiment takes, worked out from shapes: nothing is allocated or computed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from paxml.experiment.base import BaseExperiment
from paxml.partitioning.mesh import DATA_AXIS
from paxml.program.batches import tokens_of
from paxml.summary.tables import num_parameters
from paxml.task.single_task import SingleTask
from paxml.trainer.dtypes import forward_dtype
from paxml.trainer.flops import train_step_flops
from paxml.trainer.forward import make_loss_fn
from paxml.trainer.init import create_train_state_metadata, get_train_input_specs_for_model_init
from paxml.trainer.types import TrainStateMetadata
from praxis import base_layer, pax_fiddle
from praxis.core.layer import BaseLayer
from praxis.inspection.hardware import Hardware, hardware_names, hardware_of
from praxis.inspection.table import Column, Table, count_text, size_text
from praxis.inspection.variables import variable_table


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while training.

    Attributes:
      variables: Weights and other variables.
      opt_state: The optimizer's arrays.
      gradients: Gradients of the trainable variables.
      activations: What the forward pass keeps for the backward pass, with rematerialization as
        configured. An estimate: split evenly over the devices, and the compiler may keep less, or
        need scratch space besides.
    """

    variables: float
    opt_state: float
    gradients: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.variables + self.opt_state + self.gradients + self.activations


@dataclasses.dataclass(frozen=True)
class Description:
    """What training an experiment takes.

    Attributes:
      experiment: Name of its class.
      num_params: Elements of all variables, trainable or not.
      num_trainable: Elements of the trainable ones.
      batch_size: Examples in a global batch.
      tokens_per_step: Tokens in a global batch, padding included; 0 if it holds none.
      batch: Shape and dtype of each array of a global batch by path.
      mesh: Size of each axis of the mesh by name.
      flops_per_step: The model's floating-point operations in one update, see `train_step_flops`.
      memory: Bytes on one device.
      hardware: The kind of device, if one was named.
      variables: Table of the variables.
    """

    experiment: str
    num_params: int
    num_trainable: int
    batch_size: int
    tokens_per_step: int
    batch: Mapping[str, str]
    mesh: Mapping[str, int]
    flops_per_step: float
    memory: Memory
    hardware: Hardware | None
    variables: Table

    @property
    def num_devices(self) -> int:
        """Devices of the mesh."""
        return math.prod(self.mesh.values())

    @property
    def fits(self) -> bool | None:
        """Whether the estimate is below the memory of a device; None if that is not known."""
        return None if self.hardware is None else self.memory.total <= self.hardware.memory_bytes

    @property
    def fastest_steps_per_sec(self) -> float | None:
        """Steps per second at the peak of all devices, which no run reaches; None if not known."""
        if self.hardware is None or not self.flops_per_step:
            return None
        return self.num_devices * self.hardware.peak_flops / self.flops_per_step

    def summary_table(self) -> Table:
        """Returns all but the variables as a table."""
        memory = self.memory
        rows = [
            ("parameters", f"{self.num_params:,} ({self.num_trainable:,} trainable)"),
            *((f"batch {path}", text) for path, text in self.batch.items()),
            ("examples per step", f"{self.batch_size:,}"),
            *([("tokens per step", f"{self.tokens_per_step:,}")] if self.tokens_per_step else []),
            ("FLOPs per step", count_text(self.flops_per_step)),
            ("mesh", " x ".join(f"{name} {size}" for name, size in self.mesh.items())),
            ("memory per device, about", size_text(memory.total)),
            ("  variables", size_text(memory.variables)),
            ("  optimizer state", size_text(memory.opt_state)),
            ("  gradients", size_text(memory.gradients)),
            ("  activations, estimate", size_text(memory.activations)),
        ]
        if self.hardware is not None:
            room = size_text(self.hardware.memory_bytes)
            verdict = "fits" if self.fits else "does not fit"
            rows.append((f"memory of {self.hardware.name}", f"{room}, {verdict}"))
        if fastest := self.fastest_steps_per_sec:
            rows.append(("steps/s at the peak", f"{fastest:.3g}"))
        return Table([Column("experiment"), Column(self.experiment)], rows)

    def __str__(self) -> str:
        return f"{self.variables}\n\n{self.summary_table()}"


def describe(
    experiment: BaseExperiment, *, devices: int | None = None, kind: str | None = None
) -> Description:
    """Works out what training an experiment takes.

    The shapes of a batch come from its input specs provider, which by default opens the training
    input and looks at one batch.

    Args:
      experiment: The experiment.
      devices: Number of devices, for a model without a mesh of its own; None: 1.
      kind: Kind of device, such as `h100` or JAX's own name of it; None: not known.

    Raises:
      ValueError: for an unknown kind, or if the model's own mesh has another number of devices.
    """
    hardware = _hardware(kind)
    task = pax_fiddle.instantiate(experiment.task())
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    mesh = _mesh(task.model, devices)
    metadata = create_train_state_metadata(task, specs)
    shapes, splits = metadata.padded_global_shapes, metadata.partition_specs
    assert shapes is not None
    assert splits is not None
    trainable = base_layer.PARAMS
    leaves = jax.tree_util.tree_leaves_with_path(specs)
    return Description(
        experiment=type(experiment).__name__,
        num_params=num_parameters(metadata.var_weight_hparams),
        num_trainable=num_parameters(metadata.var_weight_hparams[trainable]),
        batch_size=leaves[0][1].shape[0],
        tokens_per_step=tokens_of(specs),
        batch={
            jax.tree_util.keystr(path, simple=True, separator="/"): _array_text(leaf)
            for path, leaf in leaves
        },
        mesh=mesh,
        flops_per_step=train_step_flops(task.model, specs),
        memory=Memory(
            variables=_shard_bytes(shapes.mdl_vars, splits.mdl_vars, mesh),
            opt_state=_shard_bytes(shapes.opt_states, splits.opt_states, mesh),
            gradients=_shard_bytes(shapes.mdl_vars[trainable], splits.mdl_vars[trainable], mesh),
            activations=_saved_bytes(task, metadata) / math.prod(mesh.values()),
        ),
        hardware=hardware,
        variables=variable_table(metadata.var_weight_hparams),
    )


def _hardware(kind: str | None) -> Hardware | None:
    found = None if kind is None else hardware_of(kind)
    if kind is not None and found is None:
        raise ValueError(f"No kind of device {kind!r} is known. Known are {hardware_names()}.")
    return found


def _mesh(model: BaseLayer, devices: int | None) -> dict[str, int]:
    """The mesh of a model by axis; without one, all devices split the batch."""
    if devices is not None and devices < 1:
        raise ValueError(f"{devices} devices: expected at least 1.")
    shape = model.mesh_shape
    if shape is None:
        return {DATA_AXIS: devices or 1}
    names = model.mesh_axis_names or [f"axis {index}" for index in range(len(shape))]
    mesh = dict(zip(names, map(int, shape), strict=True))
    size = math.prod(mesh.values())
    if devices is not None and devices != size:
        raise ValueError(
            f"The model's own mesh, {' x '.join(f'{name} {n}' for name, n in mesh.items())}, has "
            f"{size} devices, but {devices} are asked for. Change the mesh, e.g. with "
            "--set=model.ici_mesh_shape=[1,2,4], or leave the number out."
        )
    return mesh


def _shard_bytes(shapes: Any, splits: Any, mesh: Mapping[str, int]) -> float:
    """Bytes that one device holds of a tree of arrays."""
    leaves, structure = jax.tree.flatten(shapes)
    return float(
        sum(
            _shard_size(leaf.shape, split, mesh) * jnp.dtype(leaf.dtype).itemsize
            for leaf, split in zip(leaves, structure.flatten_up_to(splits), strict=True)
        )
    )


def _shard_size(shape: tuple[int, ...], split: Any, mesh: Mapping[str, int]) -> int:
    size = 1
    for dim, axes in zip(shape, (*split, *[None] * (len(shape) - len(split))), strict=True):
        names = () if axes is None else (axes,) if isinstance(axes, str) else axes
        size *= math.ceil(dim / math.prod(mesh[name] for name in names))
    return size


def _saved_bytes(task: SingleTask, metadata: TrainStateMetadata) -> float:
    """Bytes of what the forward pass on a global batch keeps for the backward pass."""
    loss_fn = make_loss_fn(
        task,
        var_weight_hparams=metadata.var_weight_hparams,
        fprop_dtype=forward_dtype(task.model),
    )

    def backward(mdl_vars: Any, batch: Any, key: jax.Array) -> Any:
        params = mdl_vars[base_layer.PARAMS]
        return jax.vjp(
            lambda own: loss_fn({**mdl_vars, base_layer.PARAMS: own}, batch, key)[0], params
        )[1]

    state = metadata.unpadded_global_shapes
    assert state is not None
    jaxpr = jax.make_jaxpr(backward)(
        state.mdl_vars, metadata.input_shape_dtype, jax.random.PRNGKey(0)
    ).jaxpr
    given = set(jaxpr.invars)
    # Once each, and without what is there anyway: weights and batch.
    kept = {var for var in jaxpr.outvars if isinstance(var, core.Var) and var not in given}
    avals: list[Any] = [var.aval for var in kept]
    return float(sum(math.prod(aval.shape) * jnp.dtype(aval.dtype).itemsize for aval in avals))


def _array_text(leaf: Any) -> str:
    return f"{jnp.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
