"""A user's own layer, repeated with a loop."""

import jax
import jax.numpy as jnp
import numpy as np

from praxis import base_layer, pax_fiddle
from praxis.layers import linears, repeats

KEY = jax.random.PRNGKey(1)


class Step(base_layer.BaseLayer):
    """x + tanh(linear(x)), with a loss on its size and a counter."""

    dim: int = 0
    linear_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(linears.Linear)

    def setup(self):
        linear_p = self.linear_tpl.clone().set(input_dims=self.dim, output_dims=self.dim)
        self.create_child("linear", linear_p)
        zero = base_layer.WeightInit.Constant(0)
        self.create_variable(
            "calls", base_layer.WeightHParams([], zero, jnp.int32), trainable=False
        )

    def __call__(self, x):
        self.update_var("calls", self.get_var("calls") + 1)
        x = x + jnp.tanh(self.linear(x))
        self.add_aux_loss("size", jnp.mean(jnp.square(x)))
        self.add_summary("size", jnp.mean(x), verbosity=1)
        return x


def build(x_times, **fields):
    sub_p = pax_fiddle.Config(Step, dim=3)
    p = pax_fiddle.Config(repeats.Repeat, name="loop", sub_tpl=sub_p, x_times=x_times, **fields)
    return base_layer.instantiate(p)


def test_loop_equals_layers_one_after_the_other():
    layer = build(4)
    x = jax.random.normal(KEY, [2, 3])
    variables = layer.init(KEY, x)
    weights = np.asarray(variables["params"]["sub"]["linear"]["w"], np.float64)
    assert weights.shape == (4, 3, 3)
    want, sizes = np.asarray(x, np.float64), []
    for w in weights:
        want = want + np.tanh(want @ w)
        sizes.append(np.mean(want**2))
    collections = [base_layer.NON_TRAINABLE, base_layer.AUX_LOSS, base_layer.SUMMARIES]
    got, updated = layer.apply(variables, x, mutable=collections)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(updated["non_trainable"]["sub"]["calls"], [1, 1, 1, 1])
    loss = updated["aux_loss"]["sub"]["size"]
    np.testing.assert_allclose(loss.value, sum(sizes), rtol=2e-5)
    assert updated["summaries"]["sub"]["size_scalar"].shape == (4,)


def test_metadata_and_gradients():
    layer = build(2)
    x = jnp.ones([1, 3])
    meta = layer.abstract_init_with_metadata(x)["params"]["sub"]["linear"]["w"]
    assert list(meta.repeat_prefix) == [2] and list(meta.shape) == [3, 3]
    variables = layer.init(KEY, x)
    grads = jax.jit(jax.grad(lambda p: layer.apply({**variables, "params": p}, x).sum()))(
        variables["params"]
    )
    assert grads["sub"]["linear"]["w"].shape == (2, 3, 3)
