"""FullSoftmax and its loss: transformers 5.3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.embedding import losses
from praxis.layers.embedding.softmax import FullSoftmax

RNG = np.random.default_rng(0)
W, BIAS = RNG.standard_normal((3, 7)), RNG.standard_normal(7)
VARIABLES = {
    "params": {"logits_ffn": {"linear": {"w": jnp.float32(W)}, "bias": {"b": jnp.float32(BIAS)}}}
}
X = RNG.standard_normal((2, 5, 3)).astype(np.float32)
IDS = RNG.integers(0, 7, (2, 5, 1)).astype(np.int32)
WEIGHTS = np.array([[[1], [1], [0], [0.5], [1]], [[0], [1], [1], [1], [2]]], np.float32)


def build(**fields):
    fields = {"name": "softmax", "input_dims": 3, "num_classes": 7} | fields
    return pax_fiddle.build(pax_fiddle.Config(FullSoftmax, **fields))


def run(layer, *args, do_eval=False, mutable=(), **kwargs):
    context = base_layer.JaxContext.HParams(do_eval=do_eval)
    args, kwargs = jax.tree.map(jnp.asarray, (args, kwargs))
    with base_layer.JaxContext.new_context(hparams=context):
        return layer.apply(VARIABLES, *args, mutable=list(mutable) or False, **kwargs)


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(ids=IDS):
    return (ids == np.arange(7)).astype(np.float64)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def reference(probs, logits=X @ W + BIAS):
    """Loss of the docstring in float64."""
    return -(log_softmax(logits) * probs).sum(axis=-1)


def test_outputs_for_ids():
    outputs = run(build(), X, WEIGHTS, IDS)
    logits, xent = X @ W + BIAS, reference(one_hot())
    weights = WEIGHTS[..., 0]
    close(outputs.logits, logits)
    close(outputs.log_probs, log_softmax(logits))
    close(outputs.per_example_xent, xent)
    close(outputs.total_xent, (xent * weights).sum())
    close(outputs.total_weight, weights.sum())
    close(outputs.avg_xent, (xent * weights).sum() / (weights.sum() + 1e-6))
    argmax = logits.argmax(axis=-1)
    np.testing.assert_array_equal(outputs.per_example_argmax, argmax)
    close(outputs.accuracy, ((argmax == IDS[..., 0]) * weights).sum() / weights.sum())
    assert set(outputs) == {
        "logits",
        "log_probs",
        "per_example_argmax",
        "per_example_xent",
        "total_xent",
        "total_weight",
        "avg_xent",
        "accuracy",
    }


def test_probabilities_win_over_ids():
    probs = RNG.dirichlet(np.ones(7), (2, 5)).astype(np.float32)
    outputs = run(build(label_smoothing_prob=0.3), X, WEIGHTS, IDS, probs)
    close(outputs.per_example_xent, reference(probs))
    assert "accuracy" in outputs
    assert "accuracy" not in run(build(), X, WEIGHTS, class_probabilities=jnp.asarray(probs))


@pytest.mark.parametrize("for_eval", [True, False])
@pytest.mark.parametrize("do_eval", [True, False])
def test_label_smoothing_goes_to_the_other_classes(for_eval, do_eval):
    layer = build(label_smoothing_prob=0.2, label_smoothing_apply_for_eval=for_eval)
    outputs = run(layer, X, WEIGHTS, IDS, do_eval=do_eval)
    smooth = np.where(one_hot() == 1, 0.8, 0.2 / 6)
    close(outputs.per_example_xent, reference(smooth if for_eval or not do_eval else one_hot()))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ids_outside_the_classes_equal_an_empty_one_hot(smoothing):
    ids = jnp.array([[[-1], [7], [0], [100], [6]]] * 2)
    outputs = run(build(label_smoothing_prob=smoothing), X, WEIGHTS, ids)
    target = np.where(one_hot(np.asarray(ids)) == 1, 1 - smoothing, smoothing / 6)
    close(outputs.per_example_xent, reference(target))


def test_soft_cap_and_scale_before_logits():
    layer = build(soft_cap_logits=2.0, scale_before_logits=True)
    logits = 2 * np.tanh((X / np.sqrt(3) @ W + BIAS) / 2)
    outputs = run(layer, X, WEIGHTS, IDS)
    close(outputs.logits, logits)
    close(outputs.per_example_xent, reference(one_hot(), logits))


def test_without_projection_the_inputs_are_the_logits():
    logits = RNG.standard_normal((2, 5, 7)).astype(np.float32)
    layer = build(feed_forward_tpl=None)
    assert (
        layer.init(
            jax.random.PRNGKey(0), jnp.asarray(logits), jnp.asarray(WEIGHTS), jnp.asarray(IDS)
        )
        == {}
    )
    outputs = run(layer, logits, WEIGHTS, IDS)
    np.testing.assert_array_equal(outputs.logits, logits)
    close(outputs.per_example_xent, reference(one_hot(), logits.astype(np.float64)))


def test_z_loss_is_an_output_and_an_auxiliary_loss():
    outputs, updated = run(
        build(z_loss_weight=0.1), X, WEIGHTS, IDS, mutable=["aux_loss", "summaries"]
    )
    weights = WEIGHTS[..., 0]
    normalizer = np.log(np.exp(X @ W + BIAS).sum(axis=-1))
    close(outputs.z_loss, 0.1 * (normalizer**2 * weights).sum() / weights.sum())
    close(updated["aux_loss"]["aux_z_loss"].value, outputs.z_loss)
    close(updated["aux_loss"]["aux_z_loss"].weight, 1.0)
    close(updated["summaries"]["aux_z_loss_scalar"], outputs.z_loss)


@pytest.mark.parametrize("chunk_size", [2, 5])
@pytest.mark.parametrize("fields", [{}, {"label_smoothing_prob": 0.2, "z_loss_weight": 0.1}])
def test_chunks_equal_the_full_form(chunk_size, fields):
    """T = 5 is no multiple of 2, and the z-loss and accuracy come out of the chunks too."""

    def loss(params, layer):
        args = map(jnp.asarray, (X, WEIGHTS, IDS))
        outputs = layer.apply({"params": params}, *args)
        return outputs.total_xent + outputs.get("z_loss", 0.0), outputs

    params = jax.tree.map(jnp.asarray, VARIABLES["params"])
    grad = jax.grad(loss, has_aux=True)
    want_grads, want = grad(params, build(**fields))
    grads, got = grad(params, build(chunk_size=chunk_size, **fields))
    assert got.logits is None and got.log_probs is None
    assert set(got) == set(want)
    jax.tree.map(close, grads, want_grads)
    for key in set(got) - {"logits", "log_probs"}:
        close(got[key], want[key])


def test_chunks_create_the_same_variables():
    args = [jnp.asarray(a) for a in (X, WEIGHTS, IDS)]
    trees = [build(chunk_size=size).init(jax.random.PRNGKey(3), *args) for size in (None, 2)]
    jax.tree.map(np.testing.assert_array_equal, *trees)


def test_chunks_do_not_apply_to_short_inputs_or_probabilities():
    assert run(build(chunk_size=6), X, WEIGHTS, IDS).logits is not None
    probs = RNG.dirichlet(np.ones(7), (2, 5)).astype(np.float32)
    outputs = run(build(chunk_size=2), X, WEIGHTS, class_probabilities=jnp.asarray(probs))
    close(outputs.per_example_xent, reference(probs))


class SquaredError(base_layer.BaseLayer):
    """A loss of the signature that `bi_tempered_loss_tpl` wants."""

    def __call__(self, logits, probs):
        return jnp.sum(jnp.square(logits - probs), axis=-1)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_bi_tempered_loss_gets_logits_and_smoothed_labels(chunk_size):
    tpl = pax_fiddle.Config(SquaredError)
    layer = build(bi_tempered_loss_tpl=tpl, label_smoothing_prob=0.2, chunk_size=chunk_size)
    outputs = run(layer, X, WEIGHTS, IDS)
    target = np.where(one_hot() == 1, 0.8, 0.2 / 6)
    close(outputs.per_example_xent, ((X @ W + BIAS - target) ** 2).sum(axis=-1))


def test_outputs_keep_the_input_dtype_and_losses_are_float32():
    layer = build(fprop_dtype=jnp.bfloat16)
    outputs = run(layer, jnp.bfloat16(X), WEIGHTS, IDS)
    assert outputs.logits.dtype == outputs.log_probs.dtype == jnp.bfloat16
    for key in ("per_example_xent", "total_xent", "total_weight", "avg_xent", "accuracy"):
        assert outputs[key].dtype == jnp.float32, key


def test_bias_init_and_missing_bias():
    layer = build(bias_init=0.5)
    args = [jnp.asarray(a) for a in (X, WEIGHTS, IDS)]
    params = layer.init(jax.random.PRNGKey(0), *args)["params"]
    np.testing.assert_array_equal(params["logits_ffn"]["bias"]["b"], np.full(7, 0.5))
    config = pax_fiddle.Config(FullSoftmax, name="softmax", input_dims=3, num_classes=7)
    config.feed_forward_tpl.has_bias = False
    params = pax_fiddle.build(config).init(jax.random.PRNGKey(0), *args)["params"]
    assert set(params["logits_ffn"]) == {"linear"}


def test_building_leaves_the_template_alone():
    config = pax_fiddle.Config(FullSoftmax, name="softmax", input_dims=3, num_classes=7)
    before = config.clone()
    args = [jnp.asarray(a) for a in (X, WEIGHTS, IDS)]
    pax_fiddle.build(config).init(jax.random.PRNGKey(0), *args)
    assert config == before


@pytest.mark.optimized
def test_loss_of_labels_makes_no_float_array_of_labels():
    """The compiled gradient needs no room for another array over the classes."""
    num_tokens, num_classes = 64, 4096
    logits = jax.ShapeDtypeStruct((num_tokens, num_classes), jnp.float32)
    ids = jax.ShapeDtypeStruct((num_tokens,), jnp.int32)
    grad = jax.jit(jax.grad(lambda x, y: losses.label_cross_entropy(x, y).sum()))
    memory = grad.lower(logits, ids).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 0.1 * 4 * num_tokens * num_classes


@pytest.mark.parametrize("smoothing", [losses.LabelSmoothing(), losses.LabelSmoothing(0.8, 0.04)])
def test_gradient_of_label_loss_is_softmax_minus_target(smoothing):
    logits, ids = X @ W + BIAS, IDS[..., 0]

    def loss(x):
        return losses.label_cross_entropy(x, jnp.asarray(ids), smoothing).sum()

    target = np.where(one_hot() == 1, smoothing.on, smoothing.off)
    want = np.exp(log_softmax(logits)) * target.sum(axis=-1, keepdims=True) - target
    close(jax.grad(loss)(jnp.float32(logits)), want)


def test_huge_and_masked_logits_stay_finite():
    logits = jnp.array([[1e4, -jnp.inf, 0.0], [-1e4, -1e4, -1e4]])
    close(losses.label_cross_entropy(logits, jnp.array([0, 2])), [0.0, np.log(3)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_dims": 0}, r"FullSoftmax 'softmax'.*input_dims is 0"),
        ({"num_classes": 0}, r"FullSoftmax 'softmax'.*num_classes is 0"),
        ({"chunk_size": 0}, r"'softmax'.*chunk_size is 0.*or None"),
        ({"label_smoothing_prob": 1.0}, r"'softmax'.*label_smoothing_prob is 1.0.*below 1"),
        ({"label_smoothing_prob": 0.1, "num_classes": 1}, r"num_classes = 1.*no other class"),
    ],
)
def test_bad_config(fields, message):
    args = [jnp.asarray(a) for a in (X, WEIGHTS, IDS)]
    with pytest.raises(ValueError, match=message):
        build(**fields).init(jax.random.PRNGKey(0), *args)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((X, WEIGHTS), ValueError, r"'softmax'.*neither class_ids nor class_probabilities"),
        ((X[..., :2], WEIGHTS, IDS), ValueError, r"\(2, 5, 2\).*D = input_dims = 3"),
        ((X, WEIGHTS[..., 0], IDS), ValueError, r"class_weights have shape \(2, 5\).*\(2, 5, 1\)"),
        ((X, WEIGHTS, IDS[..., 0]), ValueError, r"class_ids have shape \(2, 5\).*\(2, 5, 1\)"),
        ((X, WEIGHTS, IDS[:, :4]), ValueError, r"class_ids have shape \(2, 4, 1\)"),
        ((X, WEIGHTS, np.float32(IDS)), TypeError, r"class_ids have dtype float32"),
        ((X, WEIGHTS, None, X), ValueError, r"class_probabilities have shape.*\(2, 5, 7\)"),
    ],
)
def test_bad_arguments(args, error, message):
    with pytest.raises(error, match=message):
        run(build(), *args)
