import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.searchable import AutoMLSelect

Config = pax_fiddle.Config
D = 3
KEY = jax.random.PRNGKey(0)
X = jax.random.normal(KEY, [2, D])
LINEAR = Config(linears.Linear, input_dims=D, output_dims=D)


class Lossy(activations.ReLU):
    """Adds a loss and a summary."""

    def __call__(self, inputs):
        self.add_aux_loss("loss", jnp.float32(0.5), jnp.float32(2.0))
        self.add_summary("sum", jnp.sum(inputs))
        return super().__call__(inputs)


class Twice(base_layer.BaseLayer):
    """Calls a selection twice."""

    def setup(self):
        options = [Config(activations.Identity), Config(Lossy)]
        self.create_child("select", Config(AutoMLSelect, search_options_tpl=options))

    def __call__(self, x):
        return self.select(self.select(x))


def build(*options):
    config = Config(AutoMLSelect, name="select", search_options_tpl=list(options))
    return pax_fiddle.build(config)


def with_decision(variables, decision):
    return {**variables, "non_trainable": {"decision": jnp.uint8(decision)}}


def test_the_decision_chooses_among_layers_without_a_new_program():
    layer = build(LINEAR, Config(activations.ReLU), LINEAR)
    variables = layer.init(KEY, X)
    first, last = (variables["params"][f"search_options_{i}"]["w"] for i in (0, 2))
    want = [X @ first, jnp.maximum(X, 0), X @ last, X @ last]
    traced = []

    @jax.jit
    def run(variables):
        traced.append(1)
        return layer.apply(variables, X)

    for decision, outputs in enumerate(want):
        got = run(with_decision(variables, decision))
        np.testing.assert_allclose(got, outputs, rtol=2e-5, atol=2e-5)
    assert len(traced) == 1
    assert variables["non_trainable"]["decision"].dtype == jnp.uint8
    grads = jax.grad(lambda v: layer.apply({**v, **with_decision({}, 2)}, X).sum())(
        {"params": variables["params"]}
    )["params"]
    assert grads["search_options_2"]["w"].any()
    assert not grads["search_options_0"]["w"].any()


@pytest.mark.parametrize("decision", [0, 1])
def test_the_loss_of_the_chosen_layer_is_reported(decision):
    """Losses of several calls add up; there are no summaries, which are another layer's."""
    layer = pax_fiddle.build(Config(Twice, name="twice"))
    variables = {"non_trainable": {"select": {"decision": jnp.uint8(decision)}}}
    outputs, reports = layer.apply(variables, X, mutable=["aux_loss", "summaries"])
    np.testing.assert_array_equal(outputs, jnp.maximum(X, 0) if decision else X)
    loss = reports.pop("aux_loss")["select"]["search_options"]
    assert (loss.value, loss.weight) == ((1.0, 4.0) if decision else (0.0, 0.0))
    assert not jax.tree.leaves(reports)


def test_errors_name_the_layer():
    with pytest.raises(ValueError, match="AutoMLSelect 'select': search_options_tpl has 0 entries"):
        build().init(KEY, X)
    wide = LINEAR.clone().set(output_dims=5)
    message = r"'select': search_options_0 returns .*\(2, 3\).* and search_options_1 .*\(2, 5\)"
    with pytest.raises(ValueError, match=message):
        build(LINEAR, wide).init(KEY, X)
