"""Shapes, shardings and padding of batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from praxis import base_input, base_layer, pax_fiddle


def check_unique_names(inputs: Sequence[base_input.BaseInput]) -> None:
    """Refuses two inputs of one name: they would write to the same place.

    Raises:
      ValueError: naming the name.
    """
    names = [one.name for one in inputs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Input names {repeated} are used more than once among {names}. Give each input of an "
            "experiment its own name."
        )


def get_inputs_shape_dtype(
    input_config: pax_fiddle.Config[base_input.BaseInput],
) -> tuple[Any, Any]:
    """Specs of a padded batch of this process, and of the global batch.

    This opens the input.
    """
    provider = base_input.DatasetInputSpecsProvider(input_p=input_config)
    specs = provider.get_input_specs()
    return specs, global_specs(specs)


def global_specs(specs: Any) -> Any:
    """From the batch of one process to that of all."""

    def grow(spec: Any) -> jax.ShapeDtypeStruct:
        shape = tuple(spec.shape)
        if shape:
            shape = (shape[0] * jax.process_count(), *shape[1:])
        return jax.ShapeDtypeStruct(shape, spec.dtype)

    return jax.tree.map(grow, specs)


def shard_on_batch_dim_partition_spec(mesh_names: Sequence[str], x: Any) -> PartitionSpec:
    """Splits the batch over all axes of the mesh; scalars are replicated."""
    return PartitionSpec(tuple(mesh_names)) if len(x.shape) else PartitionSpec()


def get_input_partition_specs(mesh_axis_names: Sequence[str], inputs_shape_dtype: Any) -> Any:
    """The same for every array of a batch."""
    return jax.tree.map(
        lambda x: shard_on_batch_dim_partition_spec(mesh_axis_names, x), inputs_shape_dtype
    )


def reshard_input_based_on_rank_fn(
    mapping_dict: Mapping[str, Any] | None, mesh_names: Sequence[str], x: jax.Array
) -> jax.Array:
    """Constrains an input array to the split given for its rank.

    Args:
      mapping_dict: From `map_1d`, `map_2d`, ... to a split of the dimensions; None leaves all
        arrays as they are, an entry None those of its rank.
      mesh_names: Names of the mesh axes.
      x: The array, inside a compiled step.

    Raises:
      ValueError: if there is no entry for the rank, or it does not fit the array or the mesh.
    """
    if mapping_dict is None or x.ndim == 0:
        return x
    key = f"map_{x.ndim}d"
    if key not in mapping_dict:
        raise ValueError(
            f"train.inputs_split_mapping has no entry {key!r}, but the batch has an array of rank "
            f"{x.ndim} with shape {x.shape}. It has {sorted(mapping_dict)}; add {key!r}, None to "
            "leave such arrays as they are."
        )
    split = mapping_dict[key]
    if split is None:
        return x
    try:
        return base_layer.maybe_shard(x, split, mesh_names)
    except ValueError as error:
        raise ValueError(f"train.inputs_split_mapping.{key}: {error}") from error


def adjust_input_params_for_small_batch(
    input_p: pax_fiddle.Config[base_input.BaseInput], global_mesh: Mesh
) -> pax_fiddle.Config[base_input.BaseInput]:
    """A config whose batches divide evenly over the devices of this process.

    Raises:
      NotImplementedError: for several processes with a batch above the number of devices of each
        that is not a multiple of it.
    """
    if input_p.experimental_remote_input:
        return input_p
    batch_size = input_p.cls.get_batch_size(input_p)
    local_devices = len(global_mesh.local_devices)
    every_process_feeds = input_p.num_infeed_hosts == jax.process_count()
    if batch_size % local_devices == 0 and every_process_feeds:
        return input_p
    if batch_size > local_devices and batch_size % local_devices and jax.process_count() > 1:
        raise NotImplementedError(
            f"Input {input_p.name!r}: batch size {batch_size} of each process is not a multiple of "
            f"its {local_devices} devices. Choose a multiple."
        )
    copy = input_p.clone()
    copy.batch_padding_size = -batch_size % local_devices
    if jax.process_count() == 1:
        return copy
    copy.infeed_host_index = jax.process_index() % input_p.num_infeed_hosts
    copy.custom_device_order = _real_rows_first(global_mesh, batch_size, input_p.num_infeed_hosts)
    return copy


def to_global_arrays(batch: Any, mesh: Mesh, specs: Any) -> Any:
    """Places the rows of this process on its devices, as part of global arrays."""
    return jax.tree.map(
        lambda x, spec: jax.make_array_from_process_local_data(NamedSharding(mesh, spec), x),
        batch,
        specs,
    )


def _real_rows_first(mesh: Mesh, batch_size: int, num_infeed_hosts: int) -> list[int]:
    """Device ids, those that hold examples of a feeding process before those with padding."""
    used, unused = [], []
    for device in mesh.devices.flat:
        rank = [d.id for d in mesh.devices.flat if d.process_index == device.process_index].index(
            device.id
        )
        real = rank < batch_size and device.process_index < num_infeed_hosts
        (used if real else unused).append(device.id)
    return used + unused
