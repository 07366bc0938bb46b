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
from paxml.tools.compile_step import CompiledStep
from paxml.tools.roofline import Roofline, roofline
from paxml.tools.traffic import Traffic, estimate_traffic
from paxml.trainer.dtypes import forward_dtype
from paxml.trainer.flops import train_step_cost
from paxml.trainer.forward import make_loss_fn
from paxml.trainer.init import create_train_state_metadata, get_train_input_specs_for_model_init
from paxml.trainer.types import TrainStateMetadata
from praxis import base_layer, pax_fiddle
from praxis.core.layer import BaseLayer
from praxis.inspection.hardware import Hardware, hardware_names, hardware_of
from praxis.inspection.table import Column, Table, count_text, size_text
from praxis.inspection.variables import variable_table
from praxis.utils import trees

# From this size on an array that is not split is worth a line.
LARGE_ARRAY_BYTES = 32 * 2**20


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
      flops_per_step: The model's floating-point operations in one update, see `train_step_cost`.
      memory: Bytes on one device.
      hardware: The kind of device, if one was named.
      variables: Table of the variables.
      traffic: Estimate of what a device sends in a step.
      whole_arrays: Bytes of the large arrays of the state that are not split, by path, on a mesh of
        several devices.
      roofline: The shortest time of a step, if a kind of device was named. Of what is sent, the
        compiled program counts if there is one.
      compiled: What the compiled program holds and sends, if it was compiled.
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
    traffic: Traffic | None = None
    whole_arrays: Mapping[str, float] = dataclasses.field(default_factory=dict)
    roofline: Roofline | None = None
    compiled: CompiledStep | None = None

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
        if self.num_devices > 1:
            rows += self._rows_of_mesh()
        if self.compiled is not None:
            rows += [
                ("compiled program, state and batch", size_text(self.compiled.argument_bytes)),
                ("  scratch, as on a CPU", size_text(self.compiled.temporary_bytes)),
                ("  sent by a device", size_text(self.compiled.sent_bytes)),
            ]
        if self.roofline is not None:
            rows += _rows_of_roofline(self.roofline)
        return Table([Column("experiment"), Column(self.experiment)], rows)

    def _rows_of_mesh(self) -> list[tuple[str, str]]:
        """What devices send, and what each of them holds whole."""
        rows = []
        if (traffic := self.traffic) is not None:
            rows = [
                ("sent by a device, estimate", size_text(traffic.total)),
                ("  to gather weights", size_text(traffic.gather_weights)),
                ("  to sum gradients", size_text(traffic.reduce_gradients)),
                ("  to sum activations", size_text(traffic.reduce_activations)),
            ]
        for path, num_bytes in self.whole_arrays.items():
            rows.append((f"NOT SPLIT {path}", f"{size_text(num_bytes)} on each device"))
        return rows

    def collectives_table(self) -> Table | None:
        """Returns what the compiled program sends, largest first; None if it was not compiled."""
        return None if self.compiled is None else self.compiled.table()

    def __str__(self) -> str:
        tables = [self.variables, self.summary_table(), self.collectives_table()]
        return "\n\n".join(str(table) for table in tables if table is not None)


def _rows_of_roofline(found: Roofline) -> list[tuple[str, str]]:
    return [
        ("time of a step, at least", f"{found.step:.3g} s, bound by {found.bound}"),
        ("  without any overlap", f"{found.serial:.3g} s"),
        ("  arithmetic", f"{found.compute:.3g} s"),
        ("  memory, estimate", f"{found.memory:.3g} s"),
        ("  network, fast links", f"{found.network:.3g} s"),
        ("utilization, at most", f"{found.utilization:.0%}"),
    ]


def mesh_of(experiment: BaseExperiment, devices: int | None = None) -> dict[str, int]:
    """Size of each mesh axis of an experiment by name; see `describe`."""
    return _mesh(pax_fiddle.instantiate(experiment.task()).model, devices)


def describe(
    experiment: BaseExperiment,
    *,
    devices: int | None = None,
    kind: str | None = None,
    compiled: CompiledStep | None = None,
) -> Description:
    """Works out what training an experiment takes.

    The shapes of a batch come from its input specs provider, which by default opens the training
    input and looks at one batch.

    Args:
      experiment: The experiment.
      devices: Number of devices, for a model without a mesh of its own; None: 1.
      kind: Kind of device, such as `h100` or JAX's own name of it; None: not known.
      compiled: The compiled step, from `paxml.tools.compile_step.compile_apart`; None: what devices
        send each other is estimated.

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
    cost = train_step_cost(task.model, specs)
    num_devices = math.prod(mesh.values())
    memory = Memory(
        variables=_shard_bytes(shapes.mdl_vars, splits.mdl_vars, mesh),
        opt_state=_shard_bytes(shapes.opt_states, splits.opt_states, mesh),
        gradients=_shard_bytes(shapes.mdl_vars[trainable], splits.mdl_vars[trainable], mesh),
        activations=_saved_bytes(task, metadata) / num_devices,
    )
    batch_size, tokens = leaves[0][1].shape[0], tokens_of(specs)
    params = metadata.var_weight_hparams[trainable]
    hparams, structure = jax.tree.flatten(params)
    traffic = estimate_traffic(
        list(zip(hparams, structure.flatten_up_to(splits.mdl_vars[trainable]), strict=True)),
        mesh,
        _batch_axes(task, mesh),
        num_tokens=tokens or batch_size,
        fprop_bytes=jnp.dtype(forward_dtype(task.model)).itemsize,
    )
    found = None
    if hardware is not None:
        sent = traffic.total if compiled is None else compiled.sent_bytes
        found = roofline(
            hardware,
            flops=cost.flops / num_devices,
            # The optimizer reads and writes weights and its state, and reads gradients.
            memory_bytes=cost.num_bytes / num_devices
            + 2 * (memory.variables + memory.opt_state)
            + memory.gradients,
            sent_bytes=sent,
        )
    return Description(
        experiment=type(experiment).__name__,
        num_params=num_parameters(metadata.var_weight_hparams),
        num_trainable=num_parameters(params),
        batch_size=batch_size,
        tokens_per_step=tokens,
        batch={
            jax.tree_util.keystr(path, simple=True, separator="/"): _array_text(leaf)
            for path, leaf in leaves
        },
        mesh=mesh,
        flops_per_step=cost.flops,
        memory=memory,
        hardware=hardware,
        variables=variable_table(metadata.var_weight_hparams),
        traffic=traffic,
        whole_arrays=_whole_arrays(shapes, splits, mesh),
        roofline=found,
        compiled=compiled,
    )


def _batch_axes(task: SingleTask, mesh: Mapping[str, int]) -> list[str]:
    """The axes over which the model splits the batch."""
    mapping = task.train.inputs_split_mapping or {}
    for key in ("map_2d", "map_1d"):
        if split := mapping.get(key):
            return [split[0]] if isinstance(split[0], str) else list(split[0] or ())
    return list(mesh)


def _whole_arrays(shapes: Any, splits: Any, mesh: Mapping[str, int]) -> dict[str, float]:
    """Bytes of large arrays that all devices hold whole, by path; the largest first."""
    if math.prod(mesh.values()) == 1:
        return {}
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    found = {}
    for (path, leaf), split in zip(leaves, structure.flatten_up_to(splits), strict=True):
        size = math.prod(leaf.shape)
        num_bytes = size * jnp.dtype(leaf.dtype).itemsize
        if num_bytes >= LARGE_ARRAY_BYTES and _shard_size(leaf.shape, split, mesh) == size:
            found[trees.path_text(path)] = float(num_bytes)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


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
