"""Optimizers over a mesh of eight devices: the numbers of one device, states laid out like weights.

All optimizers share one program on one device and one on the mesh.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from optimizer_cases import OPTIMIZERS, build

from praxis import base_layer

AXES = ("data", "mdl")
SPLIT = {"w": ["data", "mdl"], "b": ["mdl"], "scale": []}
VARIABLES: Any = {
    "layer": {
        name: base_layer.WeightHParams(shape, dtype=jnp.float32, tensor_split_dims_mapping=split)
        for (name, split), shape in zip(SPLIT.items(), ([6, 8], [4], []), strict=True)
    }
}
STEPS = 3


class Run(NamedTuple):
    params: Any
    state: Any


@pytest.fixture(scope="module")
def transforms() -> Any:
    return {
        name: build(cls, **fields).get_grad_transformation(VARIABLES)
        for name, (cls, fields) in OPTIMIZERS.items()
    }


def shardings(specs: Any, mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda spec: NamedSharding(
            mesh, base_layer.to_partition_spec(spec.full_split_dims_mapping, mesh.axis_names)
        ),
        specs,
    )


@pytest.fixture(scope="module")
def runs(transforms) -> Any:
    """Variables and states of all optimizers on one device and on the mesh."""
    rng = np.random.default_rng(0)

    def values() -> Any:
        return jax.tree.map(lambda v: jnp.float32(rng.standard_normal(v.shape)), VARIABLES)

    def train(params: Any, grads: Any) -> dict[str, Run]:
        out = {}
        for name, transform in transforms.items():

            def step(carry: Run, grad: Any, transform: Any = transform) -> tuple[Run, None]:
                updates, state = transform.update(grad, carry.state, carry.params)
                return Run(optax.apply_updates(carry.params, updates), state), None

            out[name], _ = jax.lax.scan(step, Run(params, transform.init(params)), grads)
        return out

    params, grads = (
        values(),
        jax.tree.map(lambda *x: jnp.stack(x), *(values() for _ in range(STEPS))),
    )
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), AXES)
    like = shardings(VARIABLES, mesh)
    results = {
        name: Run(like, shardings(transform.init_partition_spec(VARIABLES), mesh))
        for name, transform in transforms.items()
    }
    distribute = jax.jit(train, in_shardings=(like, None), out_shardings=results)
    both = jax.jit(train)(params, grads), distribute(params, grads)
    jax.config.update("jax_disable_most_optimizations", before)
    return both


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mesh_gives_the_numbers_of_one_device(runs, name):
    single, mesh = (run[name] for run in runs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
        single.params,
        mesh.params,
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_is_sharded_like_the_weights(runs, name):
    """What has the shape of a weight is in as many pieces as it; nothing of its size is whole."""
    _, run = runs[1][name]
    weights = runs[1][name].params["layer"]
    by_shape = {weight.shape: weight.sharding for weight in weights.values()}
    moments = [leaf for leaf in jax.tree.leaves(run) if leaf.shape == weights["w"].shape]
    for moment in moments:
        assert moment.sharding.is_equivalent_to(by_shape[moment.shape], moment.ndim)
        assert moment.addressable_shards[0].data.shape == (3, 2)
    assert moments or name in ("sgd", "adafactor")
    assert all(leaf.size < 48 for leaf in jax.tree.leaves(run) if leaf.shape != (6, 8))
