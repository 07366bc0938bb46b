import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lstm_reference import lstm_loop

from praxis import base_layer, pax_fiddle
from praxis.layers import frnn, rnn_cell
from praxis.py_utils import NestedMap

Config = pax_fiddle.Config
B, T, I, M = 2, 5, 3, 4
CELL = Config(rnn_cell.LstmCellSimple)
FRNN = Config(frnn.LstmFrnn, cell_tpl=CELL)
PADDING = jnp.zeros([B, T, 1]).at[1, 3:].set(1.0)
INPUTS = NestedMap(act=jax.random.normal(jax.random.PRNGKey(1), [B, T, I]), padding=PADDING)
KEY = jax.random.PRNGKey(0)


def build(cls, **fields):
    defaults = {"num_layers": 2, "num_input_nodes": I, "num_output_nodes": M, "frnn_tpl": FRNN}
    return pax_fiddle.build(Config(cls, name="stack", **defaults | fields))


def init_with_output(layer, inputs):
    """Outputs and variables."""
    init = lambda: base_layer.maybe_unbox_value(layer.init_with_output(KEY, inputs))  # noqa: E731
    return jax.jit(init)()


def run_alone(params, x, state0=None, reverse=False):
    """One layer with given weights, in NumPy."""
    weights = jax.tree.map(np.float64, params["cell"])
    order = slice(None, None, -1 if reverse else 1)
    zeros = np.zeros([B, weights["b"].size // 4])
    state0 = {"m": zeros, "c": zeros} if state0 is None else state0
    m, c = (np.asarray(state0[name], np.float64) for name in ("m", "c"))
    outputs, m, c = lstm_loop(weights, m, c, x[:, order], np.asarray(PADDING)[:, order])
    return outputs[:, order], NestedMap(m=m, c=c)


def assert_close(got, want):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), got, want)


def test_a_stack_is_its_layers_one_after_the_other():
    """So is `extend_step`; the states are a list."""
    layer = build(frnn.StackFrnn)
    (outputs, states), variables = init_with_output(layer, INPUTS)
    act, want_states = np.float64(INPUTS.act), []
    for index in range(2):
        act, state = run_alone(variables["params"][f"frnn_{index}"], act)
        want_states.append(state)
    assert_close((outputs, states), (act, want_states))

    extend = jax.jit(lambda *args: layer.apply(variables, *args, method="extend_step"))
    states = layer.apply(variables, B, method="init_states")
    for index in range(T):
        step = jax.tree.map(lambda x, index=index: x[:, index], INPUTS)
        states, output = extend(step, states)
        assert_close(output, outputs[:, index])
    assert_close(states, want_states)
    assert_close(layer.apply(variables, states, method="get_output"), outputs[:, -1])
    # The template of the caller is as it was.
    assert (CELL.num_input_nodes, CELL.num_output_nodes) == (0, 0)


def test_both_directions_are_joined_and_states_can_be_fed_back():
    """In the form of `init_states`, and in the form that is returned."""
    layer = build(frnn.StackBiFrnn)
    (outputs, states), variables = init_with_output(layer, INPUTS)
    run = jax.jit(layer.apply)
    by_direction = NestedMap(fwd=[s.fwd for s in states], bwd=[s.bwd for s in states])
    again = run(variables, INPUTS, states)
    assert_close(run(variables, INPUTS, by_direction), again)

    params = variables["params"]
    for got, given in (((outputs, states), None), (again, states)):
        act, want_states = np.float64(INPUTS.act), []
        for index in range(2):
            own = (None, None) if given is None else (given[index].fwd, given[index].bwd)
            fwd, fwd_state = run_alone(params[f"fwd_frnn_{index}"], act, own[0])
            bwd, bwd_state = run_alone(params[f"bwd_frnn_{index}"], act, own[1], reverse=True)
            act = np.concatenate([fwd, bwd], axis=-1)
            want_states.append(NestedMap(fwd=fwd_state, bwd=bwd_state))
        assert_close(got, (act, want_states))
    zeros = layer.apply(variables, B, method="init_states")
    assert jax.tree.map(jnp.shape, zeros) == jax.tree.map(jnp.shape, by_direction)
    assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))


def test_only_the_first_layer_reads_several_arrays():
    cell = CELL.clone().set(inputs_arity=2)
    layer = build(frnn.StackFrnn, frnn_tpl=Config(frnn.FRnn, cell_tpl=cell))
    parts = NestedMap(INPUTS, act=[INPUTS.act[..., :1], INPUTS.act[..., 1:]])
    (outputs, _), variables = init_with_output(layer, parts)
    act, _ = run_alone(variables["params"]["frnn_0"], np.float64(INPUTS.act))
    assert_close(outputs, run_alone(variables["params"]["frnn_1"], act)[0])


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (frnn.StackFrnn, {"frnn_tpl": None}, "StackFrnn 'stack': frnn_tpl is None"),
        (
            frnn.StackFrnn,
            {"frnn_tpl": Config(frnn.FRnn)},
            "StackFrnn 'stack': frnn_tpl.cell_tpl is None, expected the config",
        ),
        (frnn.StackFrnn, {"num_layers": 0}, "StackFrnn 'stack': num_layers is 0"),
        (frnn.StackBiFrnn, {"num_output_nodes": 5}, "StackBiFrnn 'stack': num_output_nodes is 5"),
    ],
)
def test_wrong_fields(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        build(cls, **fields).init(KEY, INPUTS)


def test_wrong_number_of_states():
    layer = build(frnn.StackFrnn)
    message = r"StackFrnn 'stack': state0 has 1 states, expected one for .*num_layers = 2"
    with pytest.raises(ValueError, match=message):
        layer.init(KEY, INPUTS, [None])
    with pytest.raises(ValueError, match="'stack': state has 1 states"):
        layer.init(KEY, INPUTS, [None], method="extend_step")
    with pytest.raises(ValueError, match="StackBiFrnn 'stack': fwd of state0 has 1 states"):
        build(frnn.StackBiFrnn).init(KEY, INPUTS, NestedMap(fwd=[None], bwd=[None]))
