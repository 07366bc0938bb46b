import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lstm_reference import lstm_step

from praxis import base_layer, pax_fiddle
from praxis.layers.rnn_cell import (
    BaseRnnCell,
    CifgLstmCellSimple,
    LayerNormalizedLstmCellSimple,
    LstmCellSimple,
)
from praxis.py_utils import NestedMap

B, I, M, H = 5, 3, 7, 11
EVALUATION = base_layer.JaxContext.HParams(do_eval=True)
RNG = np.random.default_rng(0)
X, M0, C0 = (RNG.standard_normal((B, width)) for width in (I, M, M))
PADDING = np.array([[0.0], [0.0], [1.0], [0.0], [1.0]])
RESET = np.array([[1.0], [0.0], [1.0], [1.0], [0.0]])


def build(cls=LstmCellSimple, **fields):
    sizes = {"num_input_nodes": I, "num_output_nodes": M}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="cell", **sizes | fields))


def state_of(m=M0, c=C0):
    return NestedMap(m=jnp.float32(m), c=jnp.float32(c))


def step_inputs(**fields):
    step = NestedMap(
        act=[jnp.float32(X)], padding=jnp.float32(PADDING), reset_mask=jnp.float32(RESET)
    )
    return NestedMap(step, **fields)


def weights_of(layer):
    """Random weights in float64, so that no gate of the test is at rest."""
    width = layer.NUM_GATES * layer.hidden_nodes
    weights = {"wm": RNG.standard_normal((I + M, width)), "b": RNG.standard_normal(width)}
    if isinstance(layer, LayerNormalizedLstmCellSimple):
        weights["ln_scale"] = RNG.standard_normal(width)
    if layer.num_hidden_nodes:
        weights["w_proj"] = RNG.standard_normal((layer.num_hidden_nodes, M))
    return weights


@pytest.mark.parametrize(
    ("cls", "fields", "options"),
    [
        (LstmCellSimple, {}, {}),
        (LstmCellSimple, {"cell_value_cap": 0.3}, {"cap": 0.3}),
        (LstmCellSimple, {"cell_value_cap": None, "num_hidden_nodes": H}, {"cap": None}),
        (
            LstmCellSimple,
            {"forget_gate_bias": 1.5, "output_nonlinearity": False},
            {"forget_bias": 1.5, "output_nonlinearity": False},
        ),
        (LstmCellSimple, {"zo_prob": 0.3}, {"zoneout": 0.3}),
        (LayerNormalizedLstmCellSimple, {"forget_gate_bias": 0.5}, {"forget_bias": 0.5}),
        (LayerNormalizedLstmCellSimple, {"num_hidden_nodes": H}, {}),
        (CifgLstmCellSimple, {"zo_prob": 0.3}, {"coupled": True, "zoneout": 0.3}),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_a_step_of_evaluation_matches_numpy(cls, fields, options, reset):
    """Projection, cap, forget bias, zoneout, padding; and the path with projected inputs."""
    layer = build(cls, reset_cell_state=reset, **fields)
    weights = weights_of(layer)
    c0 = RNG.standard_normal((B, layer.hidden_nodes))
    want = lstm_step(weights, M0, c0, X, PADDING, RESET if reset else None, **options)
    variables = {"params": jax.tree.map(jnp.float32, weights)}
    state0, inputs = state_of(c=c0), step_inputs()
    with base_layer.JaxContext.new_context(hparams=EVALUATION):
        got = layer.apply(variables, state0, inputs)
        projected = layer.apply(variables, inputs, method="project_input")
        step = NestedMap(inputs, proj_inputs=projected)
        again = layer.apply(variables, state0, step, method="fprop_with_projected_inputs")
    for state in (got, again):
        np.testing.assert_allclose(state.m, want[0], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(state.c, want[1], rtol=2e-5, atol=2e-5)
    assert layer.apply(variables, got, method="get_output") is got.m
    # What the caller passed is as it was.
    np.testing.assert_array_equal(state0.m, np.float32(M0))
    assert sorted(inputs) == ["act", "padding", "reset_mask"]


def test_states_start_from_zeros_in_fprop_dtype():
    layer = build(num_hidden_nodes=H, fprop_dtype=jnp.bfloat16)
    state = layer.apply({}, 2, method="init_states", mutable=True, rngs=jax.random.PRNGKey(0))[0]
    assert jax.tree.map(jnp.shape, state) == {"m": (2, M), "c": (2, H)}
    assert all(leaf.dtype == jnp.bfloat16 and not leaf.any() for leaf in state.values())


def test_several_arrays_are_joined():
    layer = build(inputs_arity=2)
    variables = {"params": jax.tree.map(jnp.float32, weights_of(layer))}
    parts = [jnp.float32(X[:, :1]), jnp.float32(X[:, 1:])]
    got = layer.apply(variables, state_of(), step_inputs(act=parts))
    want = build().apply(variables, state_of(), step_inputs(act=jnp.float32(X)))
    np.testing.assert_array_equal(got.m, want.m)


def test_zoneout_in_training_keeps_a_share_of_the_old_values():
    layer, plain = build(zo_prob=0.25), build()
    variables = {"params": jax.tree.map(jnp.float32, weights_of(layer))}
    batch = 500
    inputs = NestedMap(act=jnp.ones([batch, I]), padding=jnp.zeros([batch, 1]))
    state0 = NestedMap(m=jnp.full([batch, M], 0.5), c=jnp.full([batch, M], -0.25))
    new = plain.apply(variables, state0, inputs)
    got = layer.apply(variables, state0, inputs, rngs={"random": jax.random.PRNGKey(3)})
    kept = {name: got[name] == state0[name] for name in ("m", "c")}
    for name, marks in kept.items():
        np.testing.assert_array_equal(got[name][~marks], new[name][~marks])
        # Three standard deviations of the mean of 3500 draws.
        np.testing.assert_allclose(marks.mean(), 0.25, atol=0.022)
    # Both have draws of their own.
    np.testing.assert_allclose((kept["m"] & kept["c"]).mean(), 0.25**2, atol=0.013)


def test_weights_are_sharded_by_columns():
    weights = pax_fiddle.Config(base_layer.BaseLayer.WeightSharding, wt=["data", "mdl"])
    layer = build(
        LayerNormalizedLstmCellSimple,
        num_hidden_nodes=H,
        mesh_axis_names=["data", "mdl"],
        ici_mesh_shape=[1, 1],
        weight_split_dims_mapping=weights,
    )
    declared = layer.abstract_init_with_metadata(state_of(c=np.ones([B, H])), step_inputs())
    got = {name: list(x.tensor_split_dims_mapping) for name, x in declared["params"].items()}
    assert got == {
        "wm": ["data", "mdl"],
        "b": ["mdl"],
        "ln_scale": ["mdl"],
        "w_proj": ["mdl", "data"],
    }


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (LstmCellSimple, {"num_input_nodes": 0}, "num_input_nodes is 0, expected at least 1"),
        (LstmCellSimple, {"num_hidden_nodes": -1}, "num_hidden_nodes is -1, expected the width"),
        (LstmCellSimple, {"cell_value_cap": 0.0}, "cell_value_cap is 0.0, expected a positive"),
        (LstmCellSimple, {"zo_prob": 1.5}, "zo_prob is 1.5, expected a probability"),
        (CifgLstmCellSimple, {"forget_gate_bias": 1.0}, "forget_gate_bias is 1.0, expected 0"),
    ],
)
def test_wrong_fields(cls, fields, message):
    with pytest.raises(ValueError, match=f"{cls.__name__} 'cell': {message}"):
        build(cls, **fields).init(jax.random.PRNGKey(0), state_of(), step_inputs())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"act": []}, "act is an empty list"),
        ({"act": [jnp.ones([B, 2]), jnp.ones([B, 1])]}, "act has 2 arrays, .*inputs_arity = 1"),
        ({"act": jnp.ones([B, 2])}, r"act has the shapes \[\(5, 2\)\].*num_input_nodes = 3"),
        ({"act": jnp.ones([B, 2, I])}, r"act of one step has shape \(5, 2, 3\).*\[B, I\]"),
        ({"padding": jnp.ones([B])}, r"padding has shape \(5,\), expected \[B, 1\] = \(5, 1\)"),
        ({"reset_mask": jnp.ones([B, 2])}, r"reset_mask has shape \(5, 2\), expected \[B, 1\]"),
    ],
)
def test_wrong_inputs(changed, message):
    layer = build(reset_cell_state=True)
    with pytest.raises(ValueError, match=f"LstmCellSimple 'cell': {message}"):
        layer.init(jax.random.PRNGKey(0), state_of(), step_inputs(**changed))


def test_arrays_of_different_batches():
    layer = build(inputs_arity=2)
    act = [jnp.ones([B, 1]), jnp.ones([1, 2])]
    with pytest.raises(ValueError, match=r"'cell': act has the shapes \[\(5, 1\), \(1, 2\)\]"):
        layer.init(jax.random.PRNGKey(0), state_of(), step_inputs(act=act))


def test_wrong_states_and_missing_fields():
    layer, key = build(), jax.random.PRNGKey(0)
    with pytest.raises(ValueError, match=r"'cell': state c has shape \(5, 2\), .* = \(5, 7\)"):
        layer.init(key, state_of(c=np.ones([B, 2])), step_inputs())
    with pytest.raises(ValueError, match=r"'cell': there is no field 'c', only \['m'\]"):
        layer.init(key, NestedMap(m=jnp.float32(M0)), step_inputs())
    with pytest.raises(ValueError, match=r"'cell': there is no field 'padding', only \['act'\]"):
        layer.init(key, state_of(), NestedMap(act=jnp.float32(X)))
    projected = step_inputs(proj_inputs=jnp.ones([B, 2]))
    with pytest.raises(ValueError, match=r"'cell': proj_inputs has shape \(5, 2\), .* = \(5, 28\)"):
        layer.init(key, state_of(), projected, method="fprop_with_projected_inputs")


def test_the_base_class_names_what_a_cell_lacks():
    layer = pax_fiddle.build(pax_fiddle.Config(BaseRnnCell, name="cell"))
    for method, args in (
        ("init_states", [2]),
        ("__call__", [state_of(), step_inputs()]),
        ("get_output", [state_of()]),
    ):
        with pytest.raises(
            NotImplementedError, match=f"BaseRnnCell 'cell' does not define {method}"
        ):
            layer.apply({}, *args, method=method)
