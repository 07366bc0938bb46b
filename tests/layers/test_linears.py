"""Linear layers against NumPy, the variables they make, and their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, base_ops, linears

KEY = jax.random.PRNGKey(0)
WeightInit = base_layer.WeightInit


def build(cls, **fields):
    return pax_fiddle.build(pax_fiddle.Config(cls, name="layer", **fields))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_linear_matches_numpy(lead):
    x, w = normal(*lead, 5), normal(5, 7)
    layer = build(linears.Linear, input_dims=5, output_dims=7)
    assert_close(layer.apply({"params": {"w": jnp.float32(w)}}, jnp.float32(x)), x @ w)


def test_project_last_dim_matches_numpy():
    x, w = normal(2, 3, 5), normal(5, 7)
    assert_close(linears.project_last_dim(jnp.float32(x), jnp.float32(w)), x @ w)


def test_project_last_dim_reports_both_shapes():
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 5\) and weight .* \(3, 7\)"):
        linears.project_last_dim(jnp.ones([2, 5]), jnp.ones([3, 7]))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("activation", "formula"),
    [(activations.ReLU, lambda x: np.maximum(x, 0)), (activations.Tanh, np.tanh)],
)
def test_feed_forward_matches_numpy(has_bias, activation, formula):
    x, w, b = normal(2, 3, 5), normal(5, 7), normal(7)
    layer = build(
        linears.FeedForward,
        input_dims=5,
        output_dims=7,
        has_bias=has_bias,
        activation_tpl=pax_fiddle.Config(activation),
    )
    params = {"linear": {"w": jnp.float32(w)}}
    if has_bias:
        params["bias"] = {"b": jnp.float32(b)}
    expected = formula(x @ w + (b if has_bias else 0))
    assert_close(layer.apply({"params": params}, jnp.float32(x)), expected)


def test_feed_forward_initializers_reach_the_variables():
    layer = build(
        linears.FeedForward,
        input_dims=3,
        output_dims=5,
        weight_init=WeightInit.Constant(0.5),
        bias_init=0.7,
    )
    params = layer.init(KEY, jnp.ones([2, 3]))["params"]
    np.testing.assert_array_equal(params["linear"]["w"], np.full([3, 5], 0.5, np.float32))
    np.testing.assert_array_equal(params["bias"]["b"], np.full([5], 0.7, np.float32))


def test_feed_forward_fields_reach_the_children():
    layer = build(
        linears.FeedForward,
        input_dims=3,
        output_dims=5,
        fprop_dtype=jnp.bfloat16,
        ici_mesh_shape=[1, 1],
        mesh_axis_names=["data", "mdl"],
        weight_split_dims_mapping=pax_fiddle.Config(
            base_layer.BaseLayer.WeightSharding, wt=["data", "mdl"]
        ),
        activation_split_dims_mapping=pax_fiddle.Config(
            linears.FeedForward.ActivationSharding, out=["data", None, "mdl"]
        ),
    )
    hparams = layer.abstract_init_with_mdl_config(jnp.ones([2, 2, 3]))
    assert hparams["linear"]["_hparams"].fprop_dtype == jnp.bfloat16
    assert tuple(hparams["bias"]["_hparams"].mesh_axis_names) == ("data", "mdl")
    weights = layer.abstract_init_with_metadata(jnp.ones([2, 2, 3]))["params"]
    assert list(weights["linear"]["w"].tensor_split_dims_mapping) == ["data", "mdl"]
    assert list(weights["bias"]["b"].tensor_split_dims_mapping) == ["mdl"]


def test_feed_forward_names_the_projection_for_rematerialization():
    layer = build(linears.FeedForward, input_dims=3, output_dims=5, checkpoint_str="ffn1")
    variables = layer.init(KEY, jnp.ones([2, 3]))
    jaxpr = str(jax.make_jaxpr(layer.apply)(variables, jnp.ones([2, 3])))
    assert "name=ffn1" in jaxpr


def test_injected_einsum_is_used():
    class Doubling(base_ops.EinsumOp):
        def __call__(self, equation, *args):
            return 2 * super().__call__(equation, *args)

    x, w = normal(2, 5), normal(5, 7)
    layer = build(
        linears.Linear, input_dims=5, output_dims=7, einsum_tpl=pax_fiddle.Config(Doubling)
    )
    assert_close(layer.apply({"params": {"w": jnp.float32(w)}}, jnp.float32(x)), 2 * x @ w)


@pytest.mark.parametrize("activate_final", [True, False])
def test_mlp_block_matches_numpy(activate_final):
    tpl = pax_fiddle.Config(linears.FeedForward, input_dims=3, output_dims=2)
    layer = build(
        linears.MLPBlock,
        num_layers=3,
        hidden_dims=5,
        ff_tpl=tpl,
        activate_final=activate_final,
    )
    x = normal(7, 3)
    variables = layer.init(KEY, jnp.float32(x))
    expected = x
    for i, (rows, columns) in enumerate([(3, 5), (5, 5), (5, 2)]):
        params = variables["params"][f"mlp_layers_{i}"]
        assert params["linear"]["w"].shape == (rows, columns)
        expected = expected @ np.asarray(params["linear"]["w"], np.float64)
        if i < 2 or activate_final:
            expected = np.maximum(expected, 0)
    assert_close(layer.apply(variables, jnp.float32(x)), expected)
    assert (tpl.input_dims, tpl.output_dims) == (3, 2)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (linears.Linear, {"output_dims": 3}, r"Linear 'layer': input_dims is 0, expected at least"),
        (linears.Linear, {"input_dims": 3}, r"Linear 'layer': output_dims is 0"),
        (linears.Bias, {}, r"Bias 'layer': dims is 0"),
        (linears.FeedForward, {"input_dims": 3}, r"FeedForward 'layer': output_dims is 0"),
        (linears.MLPBlock, {"num_layers": 0}, r"MLPBlock 'layer': num_layers is 0"),
        (linears.Linear, {"input_dims": 5, "output_dims": 2}, r"\(2, 3\).*D = input_dims = 5"),
        (linears.Bias, {"dims": 5}, r"Bias 'layer': inputs have shape \(2, 3\).*D = dims = 5"),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        build(cls, **fields).init(KEY, jnp.ones([2, 3]))


def test_error_of_a_child_names_its_path():
    layer = build(linears.FeedForward, input_dims=5, output_dims=2)
    with pytest.raises(ValueError, match=r"Linear 'layer/linear': inputs have shape \(2, 3\)"):
        layer.init(KEY, jnp.ones([2, 3]))


def stack_reference(x, *, left, right, stride, edge_left=False, edge_right=False):
    """Frame by frame: what each window holds."""
    batch, time, width = x.shape
    out = np.zeros([batch, -(-time // stride), left + 1 + right, width])
    for window, centre in enumerate(range(0, time, stride)):
        for place, t in enumerate(range(centre - left, centre + right + 1)):
            if 0 <= t < time:
                out[:, window, place] = x[:, t]
            elif t < 0 and edge_left:
                out[:, window, place] = x[:, 0]
            elif t >= time and edge_right:
                out[:, window, place] = x[:, -1]
    return out.reshape(batch, out.shape[1], -1)


@pytest.mark.parametrize("edge_left", [False, True])
@pytest.mark.parametrize("edge_right", [False, True])
@pytest.mark.parametrize(("left", "right", "stride"), [(1, 1, 2), (2, 0, 3), (0, 3, 1)])
def test_stacking_matches_a_loop(left, right, stride, edge_left, edge_right):
    x = normal(2, 7, 3)
    layer = build(
        linears.StackingOverTime,
        left_context=left,
        right_context=right,
        stride=stride,
        pad_with_left_frame=edge_left,
        pad_with_right_frame=edge_right,
    )
    y, paddings = layer.apply({}, jnp.float32(x))
    expected = stack_reference(
        x, left=left, right=right, stride=stride, edge_left=edge_left, edge_right=edge_right
    )
    assert_close(y, expected)
    np.testing.assert_array_equal(paddings, np.zeros([2, y.shape[1], 1]))


@pytest.mark.parametrize(
    ("option", "expected"), [("reduce_min", [0, 0, 0, 1]), ("reduce_max", [1, 0, 1, 1])]
)
def test_stacking_reduces_the_paddings(option, expected):
    paddings = jnp.float32([0, 0, 0, 0, 1, 1, 1]).reshape(1, 7, 1)
    layer = build(
        linears.StackingOverTime,
        left_context=1,
        right_context=1,
        stride=2,
        padding_reduce_option=option,
    )
    _, reduced = layer.apply({}, jnp.ones([1, 7, 2]), paddings)
    np.testing.assert_array_equal(reduced[0, :, 0], expected)


def test_stacking_of_single_frames_changes_nothing():
    layer = build(linears.StackingOverTime, stride=1)
    x = jnp.ones([2, 5, 3])
    y, paddings = layer.apply({}, x)
    assert y is x
    assert paddings is None


@pytest.mark.parametrize(
    ("left", "right", "stride"),
    [(0, 0, 1), (1, 0, 1), (0, 1, 2), (2, 1, 2), (2, 1, 4), (3, 0, 4), (0, 3, 2), (1, 4, 3)],
)
def test_unstack_inverts_stacking(left, right, stride):
    x = normal(2, 12, 3)
    layer = build(linears.StackingOverTime, left_context=left, right_context=right, stride=stride)
    stacked, _ = layer.apply({}, jnp.float32(x))
    frames = layer.apply({}, stacked, method="unstack")
    length = (stacked.shape[1] - 1) * stride + right + 1
    assert frames.shape == (2, length, 3)
    common = min(length, 12)
    assert_close(frames[:, :common], x[:, :common])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "stride is 0, expected at least 1"),
        ({"stride": 1, "left_context": -1}, "left_context is -1, expected 0 or more"),
        (
            {"stride": 1, "padding_reduce_option": "mean"},
            "padding_reduce_option is 'mean', expected 'reduce_min' or 'reduce_max'",
        ),
    ],
)
def test_stacking_refuses_bad_fields(fields, message):
    with pytest.raises(ValueError, match=f"StackingOverTime 'layer': {message}"):
        build(linears.StackingOverTime, **fields).apply({}, jnp.ones([1, 4, 2]))


@pytest.mark.parametrize("shape", [(1, 5, 1), (1, 4, 2), (1, 4)])
def test_stacking_refuses_paddings_of_another_shape(shape):
    layer = build(linears.StackingOverTime, stride=2)
    with pytest.raises(
        ValueError, match=r"StackingOverTime 'layer': paddings have shape \(1, .*T, 1"
    ):
        layer.apply({}, jnp.ones([1, 4, 2]), jnp.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": 3, "right_context": 1}, r"stride = 3 exceeds the window of 2 frames"),
        ({"stride": 2, "right_context": 1}, r"\(1, 4, 5\).*multiple of the window of 2 frames"),
    ],
)
def test_unstack_refuses_what_it_cannot_invert(fields, message):
    with pytest.raises(ValueError, match=message):
        build(linears.StackingOverTime, **fields).apply({}, jnp.ones([1, 4, 5]), method="unstack")
