"""A user's own model, trained for some steps with plain optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.layers import linears

NestedMap = py_utils.NestedMap


class Regression(base_model.BaseModel):
    """Least squares with example weights."""

    linear_tpl: pax_fiddle.Config[base_layer.BaseLayer] = base_layer.template_field(linears.Linear)
    dim: int = 0

    def setup(self):
        self.create_child("linear", self.linear_tpl.clone().set(input_dims=self.dim, output_dims=1))

    def compute_predictions(self, input_batch):
        return NestedMap(y=jnp.squeeze(self.linear(input_batch.x), -1))

    def compute_loss(self, predictions, input_batch):
        weights = input_batch.weights
        total = jnp.maximum(jnp.sum(weights), 1.0)
        error = jnp.square(predictions.y - input_batch.y)
        loss = jnp.sum(error * weights) / total
        return NestedMap(loss=(loss, total)), NestedMap(error=error)

    def decode(self, input_batch):
        predictions = self.compute_predictions(input_batch)
        return NestedMap(count=(jnp.float32(len(input_batch.x)), 1.0)), predictions, NestedMap()

    def process_decode_out(self, input_obj, decode_out):
        del input_obj
        lines = [(str(i), {"y": float(y)}) for i, y in enumerate(decode_out.y)]
        return NestedMap(decoded=(len(lines), 1.0)), lines, NestedMap()


def test_train_evaluate_and_decode():
    rng = np.random.default_rng(0)
    x = rng.standard_normal([32, 3]).astype(np.float32)
    true_w = np.asarray([1.0, -2.0, 0.5], np.float32)
    weights = np.ones([32], np.float32)
    weights[-1] = 0.0
    y = x @ true_w
    y[-1] = 100.0  # Has no weight.
    batch = NestedMap(x=jnp.asarray(x), y=jnp.asarray(y), weights=jnp.asarray(weights))
    model = base_layer.instantiate(pax_fiddle.Config(Regression, name="model", dim=3))
    with base_layer.JaxContext.new_context():
        variables = model.init(jax.random.PRNGKey(0), batch)
        optimizer = optax.adam(0.1)

        def loss_fn(params):
            scalars, per_example = model.apply({"params": params}, batch)
            return scalars.loss[0], per_example

        @jax.jit
        def step(params, state):
            (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        params, state = variables["params"], optimizer.init(variables["params"])
        losses = []
        for _ in range(150):
            params, state, loss = step(params, state)
            losses.append(float(loss))
        scalars, out, _ = model.apply({"params": params}, batch, method=model.decode)
    assert losses[-1] < 1e-3 < losses[0]
    np.testing.assert_allclose(jax.tree.leaves(params)[0][:, 0], true_w, atol=0.05)
    assert scalars["count"][0] == 32.0
    _, lines, _ = model.process_decode_out(None, out)
    assert lines[0][0] == "0" and abs(lines[0][1]["y"] - y[0]) < 0.1
