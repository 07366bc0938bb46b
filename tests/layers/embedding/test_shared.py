"""Output layers that share their weight with the embedding table: transformers 5.4, 5.5, 5.6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import base_layer, pax_fiddle
from praxis.layers import activations
from praxis.layers.embedding.gshard import GShardSharedEmbeddingSoftmax
from praxis.layers.embedding.shared import (
    NClassMajorSharedEmbeddingSoftmax,
    SharedEmbeddingSoftmax,
)

RNG = np.random.default_rng(0)
TABLE, BIAS = RNG.standard_normal((7, 3)), RNG.standard_normal(7)
X = RNG.standard_normal((2, 5, 3)).astype(np.float32)
IDS = RNG.integers(0, 7, (2, 5, 1)).astype(np.int32)
WEIGHTS = np.array([[[1], [1], [0], [0.5], [1]], [[0], [1], [1], [1], [2]]], np.float32)
ARGS = [jnp.asarray(a) for a in (X, WEIGHTS, IDS)]

VARIABLES = {
    SharedEmbeddingSoftmax: {"logits_ffn": {"linear": {"w": TABLE.T}, "bias": {"b": BIAS}}},
    NClassMajorSharedEmbeddingSoftmax: {"w": TABLE, "bias": {"b": BIAS}},
    GShardSharedEmbeddingSoftmax: {"embedding": {"w": TABLE}},
}
ALL = pytest.mark.parametrize("cls", VARIABLES)
WITH_BIAS = pytest.mark.parametrize(
    "cls", [SharedEmbeddingSoftmax, NClassMajorSharedEmbeddingSoftmax]
)


def build(cls, **fields):
    fields = {"name": "softmax", "input_dims": 3, "num_classes": 7} | fields
    return pax_fiddle.build(pax_fiddle.Config(cls, **fields))


def run(layer, *args, do_eval=False, **kwargs):
    params = jax.tree.map(jnp.float32, VARIABLES[type(layer)])
    context = base_layer.JaxContext.HParams(do_eval=do_eval)
    with base_layer.JaxContext.new_context(hparams=context):
        return layer.apply({"params": params}, *args, **kwargs)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot():
    return (np.arange(7) == IDS).astype(np.float64)


@ALL
def test_lookup_reads_the_weight_of_the_logits(cls):
    layer, ids = build(cls), jnp.asarray(IDS[..., 0])
    close(run(layer, ids, method="emb_lookup"), TABLE[IDS[..., 0]])
    step = run(layer, ids[:, 0], time_step=3, method="extend_step")
    close(step, TABLE[IDS[:, 0, 0]])


@WITH_BIAS
def test_lookup_styles_and_scale(cls):
    ids = jnp.array([6, 8])
    layer = build(cls, lookup_style="matmul", scale_sqrt_depth=True)
    close(run(layer, ids, method="emb_lookup"), [np.sqrt(3) * TABLE[6], np.zeros(3)])
    close(run(build(cls), ids, method="emb_lookup"), TABLE[[6, 6]])
    with pytest.raises(ValueError, match=r"'softmax'.*lookup_style is 'hash'"):
        run(build(cls, lookup_style="hash"), ids, method="emb_lookup")


@settings(max_examples=25, deadline=None)
@given(
    cls=st.sampled_from(list(VARIABLES)),
    ids=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    style=st.sampled_from(["index", "matmul"]),
)
def test_lookup_equals_the_one_hot_product(cls, ids, style):
    fields = {} if cls is GShardSharedEmbeddingSoftmax else {"lookup_style": style}
    rows = run(build(cls, **fields), jnp.array(ids), method="emb_lookup")
    close(rows, (np.array(ids)[:, np.newaxis] == np.arange(7)) @ TABLE)


def test_gshard_lookup_gives_zeros_outside_the_table():
    rows = run(build(GShardSharedEmbeddingSoftmax), jnp.array([7, -1]), method="emb_lookup")
    np.testing.assert_array_equal(rows, np.zeros((2, 3)))


@WITH_BIAS
def test_logits_and_loss(cls):
    outputs = run(build(cls, soft_cap_logits=2.0), *ARGS)
    logits = 2 * np.tanh((X @ TABLE.T + BIAS) / 2)
    close(outputs.logits, logits)
    close(outputs.per_example_xent, -(log_softmax(logits) * one_hot()).sum(axis=-1))


def test_n_class_major_activation_and_missing_bias():
    tpl = pax_fiddle.Config(activations.ReLU)
    layer = build(NClassMajorSharedEmbeddingSoftmax, activation_tpl=tpl, use_bias=False)
    close(run(layer, jnp.asarray(X), method="get_logits"), np.maximum(X @ TABLE.T, 0))
    assert set(layer.init(jax.random.PRNGKey(0), *ARGS)["params"]) == {"w"}


def test_n_class_major_reverses_the_sharding():
    config = pax_fiddle.Config(
        NClassMajorSharedEmbeddingSoftmax,
        name="softmax",
        input_dims=3,
        num_classes=7,
        ici_mesh_shape=[1, 1],
        mesh_axis_names=["data", "mdl"],
    )
    config.weight_split_dims_mapping.wt = ["data", "mdl"]
    config.activation_split_dims_mapping.out = ["data", None, "mdl"]
    specs = pax_fiddle.build(config).abstract_init_with_metadata(*ARGS)["params"]
    assert list(specs["w"].tensor_split_dims_mapping) == ["mdl", "data"]
    assert list(specs["bias"]["b"].tensor_split_dims_mapping) == ["mdl"]


def test_gshard_logits_are_scaled_capped_and_clipped():
    layer = build(GShardSharedEmbeddingSoftmax, soft_cap_logits=2.0, logits_abs_max=0.5)
    capped = 2 * np.tanh(X @ TABLE.T / np.sqrt(3) / 2)
    assert (abs(capped) > 0.5).any() and (abs(capped) < 0.5).any()
    close(run(layer, jnp.asarray(X), method="get_logits"), np.clip(capped, -0.5, 0.5))


@pytest.mark.parametrize("by_size", [True, False])
def test_gshard_denominator_counts_padding_or_weights(by_size):
    layer = build(
        GShardSharedEmbeddingSoftmax,
        use_tgt_labels_size_as_loss_denominator=by_size,
        z_loss_weight=0.1,
    )
    outputs, updated = run(layer, *ARGS, mutable=["aux_loss"])
    logits, weights = X @ TABLE.T / np.sqrt(3), WEIGHTS[..., 0]
    denominator = 10 if by_size else weights.sum()
    total = -(log_softmax(logits) * one_hot() * weights[..., None]).sum()
    close(outputs.total_xent, total)
    close(outputs.total_weight, weights.sum())
    close(outputs.avg_xent_weight, denominator)
    close(outputs.avg_xent, total / denominator)
    z_loss = 0.1 * (np.log(np.exp(logits).sum(axis=-1)) ** 2 * weights).sum() / denominator
    close(updated["aux_loss"]["aux_z_loss"].value, z_loss)
    assert "accuracy" not in outputs and "z_loss" not in outputs


@pytest.mark.parametrize("do_eval", [True, False])
@pytest.mark.parametrize("labels", ["ids", "probabilities"])
def test_gshard_smooths_in_training_only(do_eval, labels):
    layer = build(GShardSharedEmbeddingSoftmax, label_smoothing_prob=0.2)
    probs = one_hot() if labels == "ids" else RNG.dirichlet(np.ones(7), (2, 5))
    kwargs = (
        {"class_ids": ARGS[2]} if labels == "ids" else {"class_probabilities": jnp.float32(probs)}
    )
    outputs, updated = run(layer, *ARGS[:2], do_eval=do_eval, mutable=["summaries"], **kwargs)
    log_probs = log_softmax(X @ TABLE.T / np.sqrt(3))
    target = probs if do_eval else 0.8 * probs + 0.2 / 7
    close(outputs.per_example_xent, -(log_probs * target).sum(axis=-1))
    summaries = updated["summaries"]
    if do_eval:
        assert "avg_xent_prior_to_label_smoothing_scalar" not in summaries
    else:
        plain = -(log_probs * probs * WEIGHTS).sum() / 10
        close(summaries["avg_xent_prior_to_label_smoothing_scalar"], plain)


def test_gshard_always_adds_a_z_loss_and_sums_in_float32():
    layer = build(GShardSharedEmbeddingSoftmax, fprop_dtype=jnp.bfloat16)
    outputs, updated = run(layer, jnp.bfloat16(X), *ARGS[1:], mutable=["aux_loss", "summaries"])
    assert outputs.total_xent.dtype == jnp.float32
    assert outputs.logits.dtype == jnp.bfloat16
    assert updated["aux_loss"]["aux_z_loss"].value == 0
    assert updated["summaries"]["aux_z_loss_scalar"] == 0


def test_gshard_and_shared_agree_up_to_the_scale():
    """Transformers 28."""
    gshard = run(build(GShardSharedEmbeddingSoftmax), *ARGS)
    shared = build(SharedEmbeddingSoftmax, scale_before_logits=True)
    params = {"logits_ffn": {"linear": {"w": TABLE.T}, "bias": {"b": np.zeros(7)}}}
    want = shared.apply({"params": jax.tree.map(jnp.float32, params)}, *ARGS)
    for key in ("logits", "log_probs", "per_example_xent", "total_xent"):
        close(gshard[key], want[key])


def test_gshard_starts_from_a_unit_gaussian():
    layer = build(GShardSharedEmbeddingSoftmax, num_classes=997, input_dims=11)
    ids = jnp.zeros([3], jnp.int32)
    table = layer.init(jax.random.PRNGKey(0), ids, method=layer.emb_lookup)["params"]["embedding"][
        "w"
    ]
    assert table.shape == (997, 11)
    np.testing.assert_allclose(np.std(table), 1.0, rtol=0.03)  # three standard errors


@ALL
def test_shared_table_gets_gradients_from_both_ends(cls):
    layer = build(cls)

    def loss(params):
        inputs = layer.apply({"params": params}, ARGS[2][..., 0], method=layer.emb_lookup)
        return layer.apply({"params": params}, inputs, *ARGS[1:]).avg_xent

    params = jax.tree.map(jnp.float32, VARIABLES[cls])
    grads = jax.grad(loss)(params)
    direction = jax.tree.map(lambda x: jnp.float32(RNG.standard_normal(x.shape)), params)
    slope = sum(
        jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True)
    )
    step = 1e-2
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, s=s: p + s * d, params, direction)) for s in (step, -step)
    )
    # A central difference in float32: good to the square of the step.
    np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=2e-3, atol=2e-4)


@ALL
def test_decoding_outputs_are_sharded_by_their_own_mapping(cls):
    """Rank 2 takes `extend_step_out`; otherwise the entries of B and D of a mapping of three."""
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "mdl"), axis_types=auto, devices=jax.devices()[:4])
    config = pax_fiddle.Config(
        cls,
        name="softmax",
        input_dims=2,
        num_classes=4,
        ici_mesh_shape=[2, 2],
        mesh_axis_names=["data", "mdl"],
    )
    config.weight_split_dims_mapping.wt = [None, None]
    config.activation_split_dims_mapping.emb_out_split_dims_mapping = ["data", None, "mdl"]
    ids = jnp.array([1, 3])

    def spec(config):
        layer = pax_fiddle.build(config)
        with jax.set_mesh(mesh):
            variables = jax.jit(
                lambda: layer.init(jax.random.PRNGKey(0), ids, method="emb_lookup")
            )()
            rows = jax.jit(lambda v: layer.apply(v, ids, time_step=0, method="extend_step"))(
                variables
            )
        return tuple(rows.sharding.spec)

    assert spec(config) == ("data", "mdl")
    config.activation_split_dims_mapping.extend_step_out = ["mdl", None]
    assert spec(config)[0] == "mdl"


@ALL
def test_bad_arguments(cls):
    layer = build(cls)
    with pytest.raises(TypeError, match=rf"{cls.__name__} 'softmax'.*ids have dtype float32"):
        run(layer, jnp.ones([2]), method="emb_lookup")
    with pytest.raises(ValueError, match=rf"{cls.__name__} 'softmax'.*\(2, 5, 2\).*input_dims = 3"):
        run(layer, ARGS[0][..., :2], *ARGS[1:])
    with pytest.raises(ValueError, match=r"neither class_ids nor class_probabilities"):
        run(layer, *ARGS[:2])
    with pytest.raises(ValueError, match=rf"{cls.__name__} 'softmax'.*num_classes is 0"):
        run(build(cls, num_classes=0), *ARGS)


def test_no_table_without_projection():
    layer = build(SharedEmbeddingSoftmax, feed_forward_tpl=None)
    with pytest.raises(ValueError, match=r"'softmax'.*feed_forward_tpl is None.*no table"):
        run(layer, jnp.array([1]), method="emb_lookup")
