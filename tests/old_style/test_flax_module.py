"""Plain Flax modules inside layers, through the adapters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from praxis import base_layer, pax_fiddle
from praxis.layers import flax_adapter, linears

KEY = jax.random.PRNGKey(0)
X = jnp.ones([2, 3])


class FlaxMlp(nn.Module):
    """Dense, batch norm, dropout, dense."""

    hidden: int
    out: int
    train: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(self.hidden)(x))
        x = nn.Dropout(0.5, deterministic=not self.train)(nn.relu(x))
        return nn.Dense(self.out)(x)


class Wrapped(base_layer.BaseLayer):
    """A Flax module between two layers."""

    mlp_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(
        flax_adapter.FlaxModuleAdapter
    )
    dim: int = 0

    def setup(self):
        self.create_child("mlp", self.mlp_tpl)
        head_p = pax_fiddle.Config(linears.Linear, input_dims=self.dim, output_dims=1)
        self.create_child("head", head_p)

    def __call__(self, x):
        return self.head(self.mlp(x))


def test_adapter_with_a_factory():
    p = pax_fiddle.Config(Wrapped, name="net", dim=4)
    p.mlp_tpl.module_factory_method = lambda: FlaxMlp(hidden=5, out=4)
    layer = base_layer.instantiate(p)
    rngs = {"params": KEY, "dropout": KEY}
    variables = layer.init(rngs, X)
    assert variables["params"]["mlp"]["cld"]["Dense_0"]["kernel"].shape == (3, 5)
    out, updated = layer.apply(variables, X, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert out.shape == (2, 1)
    changed = jax.tree.map(
        lambda a, b: bool((a != b).any()), updated["batch_stats"], variables["batch_stats"]
    )
    assert any(jax.tree.leaves(changed))
    meta = layer.abstract_init_with_metadata(X)
    mean = meta["batch_stats"]["mlp"]["cld"]["BatchNorm_0"]["mean"]
    assert base_layer.var_not_trainable(mean)


def test_direct_adapter_with_a_config():
    module_p = pax_fiddle.Config(FlaxMlp, hidden=5, out=4, train=False)
    p = pax_fiddle.Config(flax_adapter.DirectFlaxModuleAdapter, name="direct", cld=module_p)
    layer = base_layer.instantiate(p)
    variables = layer.init(KEY, X)
    plain = FlaxMlp(hidden=5, out=4, train=False)
    inner = {name: tree["cld"] for name, tree in variables.items()}
    want: Any = plain.apply(inner, X)
    np.testing.assert_allclose(layer.apply(variables, X), want, rtol=1e-6)
