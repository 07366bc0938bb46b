"""Behaviours 31-34 and 47 of the utilities: meshes, sharding, arrays over devices."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from praxis import base_input, py_utils
from praxis.core.nested_map import NestedMap


def mesh_of(*shape):
    count = int(np.prod(shape))
    names = ("data", "mdl")[: len(shape)]
    return Mesh(np.array(jax.devices()[:count]).reshape(shape), names)


@pytest.mark.parametrize(
    ("spec", "shape", "want"),
    [
        (PartitionSpec("data"), (5, 3), [1, 0]),
        (PartitionSpec(("data", "mdl"), None), (5, 3), [3, 0]),
        (PartitionSpec(None, "mdl"), (5, 3), [0, 1]),
        (PartitionSpec("data", "mdl"), (2, 4), [0, 0]),
        (PartitionSpec(), (5, 3), [0, 0]),
    ],
)
def test_uneven_paddings(spec, shape, want):
    """Behaviour 31."""
    assert py_utils.get_uneven_sharding_paddings(spec, shape, (2, 4), ("data", "mdl")) == want


def test_uneven_paddings_of_an_unknown_axis():
    with pytest.raises(ValueError, match=r"names the mesh axes \['x'\], but the mesh has \['data'"):
        py_utils.get_uneven_sharding_paddings(PartitionSpec("x"), (2,), (2, 4), ("data", "mdl"))


def test_pad_and_slice_round_trip():
    """Behaviour 31: on eight devices."""
    xs = {
        "w": jnp.arange(15.0).reshape(5, 3),
        "even": jnp.ones([2, 4]),
        "none": jnp.zeros([0]),
        "masked": optax.MaskedNode(),
        "bprop": py_utils.BpropMaskedNode(),
    }
    specs = dict.fromkeys(xs, PartitionSpec("data", "mdl"))
    shapes = {name: getattr(x, "shape", ()) for name, x in xs.items()}
    with jax.set_mesh(mesh_of(2, 4)):

        @jax.jit
        def pad(xs):
            return py_utils.maybe_pad_uneven_sharding(xs, specs, shapes, (2, 4), ("data", "mdl"))

        padded = pad(xs)
        assert padded["w"].shape == (6, 4) and padded["none"].shape == (0,)
        assert padded["w"].sharding.shard_shape((6, 4)) == (3, 1)
        np.testing.assert_array_equal(padded["w"][5:], 0)
        np.testing.assert_array_equal(padded["w"][:, 3:], 0)
        back = py_utils.maybe_slice_uneven_sharding(padded, specs, shapes)
    assert jax.tree.structure(back) == jax.tree.structure(xs)
    jax.tree.map(np.testing.assert_array_equal, back, xs)


@pytest.mark.parametrize("by", ["pspecs", "one pspec", "sharding"])
def test_make_array(by):
    """Behaviour 32: on four devices."""
    mesh = mesh_of(4)
    batch = NestedMap(x=np.arange(24).reshape(8, 3), y=np.arange(8))
    shapes = jax.tree.map(py_utils.get_global_input_shape_dtype, batch)
    spec = PartitionSpec("data")
    fields = {
        "pspecs": {"pspecs": NestedMap(x=spec, y=spec)},
        "one pspec": {"pspecs": spec},
        "sharding": {"sharding": NamedSharding(mesh, spec)},
    }[by]
    arrays = py_utils.make_array(batch, shapes, mesh, **fields)
    jax.tree.map(np.testing.assert_array_equal, arrays, batch)
    assert arrays.x.sharding.shard_shape(arrays.x.shape) == (2, 3)
    np.testing.assert_array_equal(arrays.x.addressable_data(3), batch.x[6:])


def test_make_array_errors():
    """Behaviour 32."""
    mesh, spec = mesh_of(4), PartitionSpec("data")
    x = np.zeros([6, 3])
    shape = py_utils.get_global_input_shape_dtype(x)
    with pytest.raises(ValueError, match=r"shape \(6, 3\) cannot be split on axis 0 over 4 local"):
        py_utils.make_array(x, shape, mesh, spec)
    for fields in ({}, {"pspecs": spec, "sharding": NamedSharding(mesh, spec)}):
        with pytest.raises(ValueError, match="exactly one of pspecs and sharding"):
            py_utils.make_array(x, shape, mesh, **fields)


@pytest.mark.parametrize("shape", [(8,), (2, 4), (1, 4, 2)])
def test_device_mesh(shape):
    mesh = py_utils.create_device_mesh(shape)
    assert mesh.shape == shape
    assert list(mesh.flat) == jax.devices()
    assert py_utils.create_device_mesh(shape, [1] * len(shape)).shape == shape


def test_device_mesh_errors():
    """Behaviour 33."""
    message = r"ici_mesh_shape \[1, 3\] needs 3 devices, 8 found. Shapes that fit: \[1, 8\], \[2, 4"
    with pytest.raises(ValueError, match=message):
        py_utils.create_device_mesh([1, 3])
    message = r"ici_mesh_shape \[1, 4\] and dcn_mesh_shape \[2, 1\] ask for 2 slices.*no slices"
    with pytest.raises(ValueError, match=message):
        py_utils.create_device_mesh([1, 4], [2, 1])
    with pytest.raises(ValueError, match=r"\[8\] and dcn_mesh_shape \[2, 1\] have different ranks"):
        py_utils.create_device_mesh([8], [2, 1])


def test_unreplicate():
    """Behaviour 34."""
    mesh = mesh_of(2, 4)
    x = np.arange(8.0)
    tree = {
        "replicated": jax.device_put(x, NamedSharding(mesh, PartitionSpec())),
        "sharded": jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))),
        "single": jnp.asarray(x),
        "scalar": jax.device_put(3.0, NamedSharding(mesh, PartitionSpec())),
        "number": 4,
    }
    got = py_utils.maybe_unreplicate_for_fully_replicated(tree)
    np.testing.assert_array_equal(got["replicated"], x)
    assert len(got["replicated"].sharding.device_set) == 1
    for name in ("sharded", "single", "scalar", "number"):
        assert got[name] is tree[name]
    first = py_utils.maybe_unreplicate_for_first_shard(tree)
    np.testing.assert_array_equal(first["sharded"], x[:4])
    np.testing.assert_array_equal(first["replicated"], x)


def test_constraint_needs_a_mesh():
    x = jnp.ones([4, 2])
    assert not py_utils.global_mesh_defined()
    assert py_utils.with_sharding_constraint(x, PartitionSpec("data")) is x
    with jax.set_mesh(mesh_of(2, 4)):
        assert py_utils.global_mesh_defined()
        y = py_utils.with_sharding_constraint(x, PartitionSpec("data"))
        assert y.sharding.shard_shape(y.shape) == (2, 2)
    assert not py_utils.global_mesh_defined()


@pytest.mark.filterwarnings("ignore:.*with mesh:DeprecationWarning")
def test_older_mesh_context_counts():
    with mesh_of(8):
        assert py_utils.global_mesh_defined()
    assert not py_utils.global_mesh_defined()


def test_reshapes_of_the_batch():
    x = np.arange(48).reshape(16, 3)
    assert py_utils.reshard(x).shape == (8, 2, 3)
    np.testing.assert_array_equal(py_utils.unshard(py_utils.reshard(x)), x)
    assert py_utils.reshape_with_outer_batch_size(x, 2).shape == (2, 8, 3)
    with pytest.raises(ValueError, match=r"shape \(16, 3\) cannot be split on axis 0 into 5 equal"):
        py_utils.reshape_with_outer_batch_size(x, 5)


def test_rbg_default_generator():
    previous = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    try:
        py_utils.set_globally_use_rbg_prng_key()
        assert jax.random.PRNGKey(0).shape == (4,)
    finally:
        jax.config.update("jax_default_prng_impl", previous)


def test_backend_and_barrier_of_one_process():
    assert not py_utils.is_tpu()
    py_utils.sync_global_devices("alone")


def test_input_makes_global_arrays():
    mesh = mesh_of(4)
    reader = base_input.BaseInput.config(batch_size=8).Instantiate()
    batch = NestedMap(x=np.arange(8))
    arrays = reader.reshard_for_spmd(batch, mesh, NestedMap(x=PartitionSpec("data")))
    np.testing.assert_array_equal(arrays.x, batch.x)
    assert reader.reshard_for_pmap(batch).x.shape == (8, 1)


def test_custom_device_order_moves_the_rows():
    """The rows stay on the devices of their place in the mesh; the order says where they count."""
    mesh = mesh_of(4)
    config = base_input.BaseInput.config(batch_size=8, custom_device_order=[0, 2, 1, 3])
    batch = NestedMap(x=np.arange(8))
    arrays = config.Instantiate().reshard_for_spmd(batch, mesh, NestedMap(x=PartitionSpec("data")))
    np.testing.assert_array_equal(arrays.x, [0, 1, 4, 5, 2, 3, 6, 7])
    by_device = {shard.device.id: np.asarray(shard.data) for shard in arrays.x.addressable_shards}
    np.testing.assert_array_equal(by_device[1], [2, 3])

    wrong = config.set(custom_device_order=[0, 1, 2]).Instantiate()
    with pytest.raises(ValueError, match=r"custom_device_order is \[0, 1, 2\].*\[0, 1, 2, 3\]"):
        wrong.reshard_for_spmd(batch, mesh, None)


WORKER = """
import sys, jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
rank = int(sys.argv[1])
jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=rank)
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from praxis import base_input, py_utils
mesh = Mesh(np.array(jax.devices()), ("data",))
reader = base_input.NumpyInput.config(
    batch_size=2, data={"x": np.arange(4)}, num_infeed_hosts=2, infeed_host_index=rank
).Instantiate()
batch = reader.get_next()
arrays = reader.reshard_for_spmd(batch, mesh, type(batch)(x=PartitionSpec("data")))
assert arrays.x.shape == (4,), arrays.x.shape
everything = multihost_utils.process_allgather(arrays.x, tiled=True)
np.testing.assert_array_equal(everything, [0, 2, 1, 3])
py_utils.sync_global_devices("done")
"""


@pytest.mark.slow
def test_global_array_from_two_processes():
    """Behaviour 47."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), port],
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
