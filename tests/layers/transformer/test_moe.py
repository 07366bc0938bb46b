"""The mixture of experts against loops over tokens, and its ways to dispatch against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, base_ops, normalizations, transformers
from praxis.layers.transformer import experts as moving

B, T, D, F, E, G = 2, 6, 5, 7, 3, 2
KEY = jax.random.PRNGKey(0)
PADDINGS = np.zeros([B, T], np.float32)
PADDINGS[0, 2] = PADDINGS[1, 4:] = 1.0
NO_DROPS = {"gating_func": "top_k", "unadjusted_expert_capacity_factor": 0.0}


def build(**fields):
    fields = {"input_dims": D, "hidden_dims": F, "num_experts": E, "num_groups": G, **fields}
    return pax_fiddle.build(
        pax_fiddle.Config(transformers.TransformerFeedForwardMoe, name="moe", **fields)
    )


def inputs(seed=0, shape=(B, T, D)):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_params(layer, *args, **kwargs):
    args = jax.tree.map(jnp.asarray, args)
    rngs = {"params": KEY, "random": KEY}
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: layer.init(rngs, *args, **kwargs)))
    rng = np.random.default_rng(3)
    return {
        "params": jax.tree.unflatten(
            tree, [jnp.asarray(0.7 * rng.standard_normal(x.shape), x.dtype) for x in leaves]
        )["params"]
    }


def run(layer, variables, *args, **kwargs):
    """Outputs, auxiliary losses and summaries."""
    kwargs.setdefault("rngs", {"random": jax.random.PRNGKey(5)})
    variables, args = jax.tree.map(jnp.asarray, (variables, args))
    with base_layer.JaxContext.new_context(
        hparams=base_layer.JaxContext.HParams(summary_verbosity=5)
    ):
        outputs, changed = jax.jit(
            lambda variables, *args: layer.apply(
                variables, *args, mutable=["aux_loss", "summaries"], **kwargs
            )
        )(variables, *args)
    return outputs, changed["aux_loss"]["aux_moe_load_balance_loss"].value, changed["summaries"]


def norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * (1 + params["scale"]) + params["bias"]


def reference(params, x, paddings, *, capacity, k=2, gated=False, groups=G, gate_of=None):
    """Tokens one by one, choice by choice, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.asarray(x, np.float64)
    h = norm(params["layer_norm"], x)
    logits = (h if gate_of is None else gate_of(h)) @ params["gate"]
    tokens, logits = h.reshape(groups, -1, D), logits.reshape(groups, -1, E)
    pads = np.asarray(paddings).reshape(groups, -1)
    mixed = np.zeros_like(tokens)
    for g in range(groups):
        used = np.zeros(E, int)
        for choice in range(k):
            for s in range(tokens.shape[1]):
                if pads[g, s]:
                    continue
                best = np.argsort(-logits[g, s])[:k]
                e, weights = best[choice], np.exp(logits[g, s, best])
                used[e] += 1
                if used[e] > capacity:
                    continue
                hidden = tokens[g, s] @ params["wi_0"][e]
                gate = tokens[g, s] @ params["wi_gate_0"][e] if gated else hidden
                hidden = np.maximum(gate, 0) * (hidden if gated else 1)
                mixed[g, s] += weights[choice] / weights.sum() * (hidden @ params["wo_0"][e])
    return x + mixed.reshape(x.shape)


@pytest.mark.parametrize("dispatch", ["einsum", "sort"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("capacity", [1, 3])
def test_top2_equals_a_loop_over_tokens(capacity, gated, dispatch):
    """9.3: drops in the order of tokens, activation on the gate."""
    layer = build(
        expert_capacity_dim=capacity,
        unadjusted_expert_capacity_factor=0.0,
        use_gated_activation=gated,
        dispatch=dispatch,
    )
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    y, _, _ = run(layer, variables, x, PADDINGS)
    want = reference(variables["params"], x, PADDINGS, capacity=capacity, gated=gated)
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dispatch", ["einsum", "sort"])
@pytest.mark.parametrize("k", [1, 3])
def test_top_k_without_capacity_drops_nothing(k, dispatch):
    """Mixtral: softmax over the k largest logits, whatever the number of tokens of an expert."""
    layer = build(experts_per_token=k, use_gated_activation=True, dispatch=dispatch, **NO_DROPS)
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    # Most tokens prefer one expert.
    variables["params"]["gate"] *= 0.1
    variables["params"]["layer_norm"]["bias"] += variables["params"]["gate"][:, 0] * 50
    y, loss, summaries = run(layer, variables, x, PADDINGS)
    want = reference(variables["params"], x, PADDINGS, capacity=B * T, k=k, gated=True)
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)
    assert loss > 1.2
    np.testing.assert_allclose(np.sum(summaries["expert_load_histogram"]), 1.0, rtol=1e-5)


def test_weights_may_stay_probabilities_among_all_experts():
    x = inputs()
    fields = {"experts_per_token": 1, "add_skip_connection": False, **NO_DROPS}
    plain, kept = build(**fields), build(normalize_gates=False, **fields)
    variables = random_params(plain, x)
    params = jax.tree.map(np.asarray, variables["params"])
    logits = norm(params["layer_norm"], np.asarray(x)) @ params["gate"]
    probs = jax.nn.softmax(logits).max(-1, keepdims=True)
    np.testing.assert_allclose(
        run(kept, variables, x)[0], run(plain, variables, x)[0] * probs, rtol=2e-5, atol=2e-5
    )


FUNCTIONS = {
    "top2": {"unadjusted_expert_capacity_factor": 1.0},
    "top2_dropout": {"relu_dropout_prob": 0.4, "residual_dropout_prob": 0.3},
    "top2_sampled": {"second_expert_policy": "sampling"},
    "top_k": {"gating_func": "top_k", "experts_per_token": 3, "expert_capacity_dim": 2,
              "unadjusted_expert_capacity_factor": 0.0, "use_gated_activation": True},
    "no_drops": {"use_gated_activation": True, **NO_DROPS},
    "dense_top2": {"gating_func": "dense_top2"},
    "expert_choice": {"gating_func": "expert_choice"},
    "expert_choice_v2": {"gating_func": "expert_choice_v2"},
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dispatch_by_sorting_equals_one_hot_einsums(name):
    """27.5: outputs, gradients of inputs and of all variables, auxiliary loss, summaries."""
    x = inputs()
    results = []
    for dispatch in ("einsum", "sort"):
        layer = build(dispatch=dispatch, **FUNCTIONS[name])
        variables = random_params(layer, x, PADDINGS)

        def loss(variables, x, layer=layer):
            outputs, aux, summaries = run(layer, variables, x, PADDINGS)
            return jnp.sum(jnp.sin(outputs)) + aux, (outputs, aux, summaries)

        grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        results.append(grad(variables, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), *results)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(results[1][1]))


def test_auto_dispatches_by_size(monkeypatch):
    x = inputs()
    layer = build()
    variables = random_params(layer, x)
    calls = []
    monkeypatch.setattr(
        moving,
        "tokens_in_places",
        lambda *args, real=moving.tokens_in_places: calls.append(1) or real(*args),
    )
    small = run(layer, variables, x)[0]
    assert not calls
    monkeypatch.setattr("praxis.layers.transformer.moe.LARGEST_EINSUM", 10)
    np.testing.assert_allclose(run(layer, variables, x)[0], small, rtol=2e-5, atol=2e-5)
    assert calls


class CountedEinsum(base_ops.EinsumOp):
    """Says how often it was called."""

    def __call__(self, equation, *args):
        self.add_summary("calls", jnp.ones([]))
        return super().__call__(equation, *args)


@pytest.mark.parametrize("fields", [{}, NO_DROPS])
def test_replaced_operations_are_used(fields, monkeypatch):
    monkeypatch.setattr("praxis.layers.transformer.moe.LARGEST_EINSUM", 0)
    layer = build(einsum_tpl=pax_fiddle.Config(CountedEinsum), **fields)
    x = inputs()
    _, _, summaries = run(layer, random_params(layer, x), x)
    assert {"ffn1_einsum", "ffn2_einsum", "combine_einsum"} <= set(summaries)


def expert_choice(params, x, paddings, k):
    params = jax.tree.map(np.asarray, params)
    h = norm(params["layer_norm"], np.asarray(x, np.float64)).reshape(G, -1, D)
    logits = h @ params["gate"]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scores = np.where(paddings.reshape(G, -1, 1) > 0, -1, probs)
    mixed = np.zeros_like(h)
    for g in range(G):
        for e in range(E):
            for s in np.argsort(-scores[g, :, e])[:k]:
                hidden = np.maximum(h[g, s] @ params["wi_0"][e], 0)
                mixed[g, s] += probs[g, s, e] * (hidden @ params["wo_0"][e])
    return x + mixed.reshape(x.shape) * (1 - paddings[..., None])


@pytest.mark.parametrize("dispatch", ["einsum", "sort"])
@pytest.mark.parametrize("padding_takes_places", [False, True])
def test_expert_choice_with_padding(padding_takes_places, dispatch):
    """9.3, wart: padding takes places; it need not."""
    layer = build(
        gating_func="expert_choice", padding_takes_places=padding_takes_places, dispatch=dispatch
    )
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    y, loss, _ = run(layer, variables, x, PADDINGS)
    seen = np.zeros_like(PADDINGS) if padding_takes_places else PADDINGS
    want = expert_choice(variables["params"], x, seen, k=4)
    want = np.where(PADDINGS[..., None] > 0, x, want)
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)
    assert loss == 0


@pytest.mark.parametrize("name", ["top2", "no_drops", "expert_choice", "expert_choice_v2"])
def test_what_is_in_padding_changes_nothing(name):
    fields = dict(FUNCTIONS[name], padding_takes_places=False)
    layer = build(**fields)
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    other = jnp.where(PADDINGS[..., None] > 0, 9 * inputs(1), x)
    y, loss, _ = run(layer, variables, x, PADDINGS)
    got, other_loss, _ = run(layer, variables, other, PADDINGS)
    real = PADDINGS == 0
    np.testing.assert_allclose(got[real], y[real], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(other_loss, loss, rtol=2e-5)


def segment_mean_of(ids):
    def gate_of(h):
        means = np.zeros_like(h)
        for b in range(B):
            for i in set(ids[b]) - {0}:
                means[b, ids[b] == i] = h[b, ids[b] == i].mean(0)
        return means

    return gate_of


@pytest.mark.parametrize("packed", [False, True])
def test_sentence_level_gating(packed):
    """28, GLaM: token and sentence level, packed and padded."""
    ids = np.array([[1, 1, 0, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
    segments = ids if packed else (1 - PADDINGS).astype(np.int32)
    layer = build(moe_gating_embedding_level="sentence")
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    y, _, _ = run(layer, variables, x, PADDINGS, jnp.asarray(ids) if packed else None)
    want = reference(
        variables["params"], x, PADDINGS, capacity=4, gate_of=segment_mean_of(segments)
    )
    np.testing.assert_allclose(y, want, rtol=2e-5, atol=2e-5)


def test_segment_means():
    """28, transformers: inputs 1..5 and 6..10, ids 0, 1, 1, 2, 2."""
    rows = jnp.arange(1.0, 11.0).reshape(2, 5, 1)
    ids = jnp.array([[0, 1, 1, 2, 2]] * 2)
    means = moving.segment_means(rows, ids)[..., 0]
    np.testing.assert_allclose(means, [[0, 2.5, 2.5, 4.5, 4.5], [0, 7.5, 7.5, 9.5, 9.5]])


@pytest.mark.parametrize(
    ("num_groups", "min_group_size", "groups"),
    [(4, None, 4), (4, 3, 4), (4, 4, 3), (4, 12, 1), (6, 5, 3)],
)
def test_number_of_groups(num_groups, min_group_size, groups):
    """9.3: fewer groups where they would be smaller than the least size."""
    assert moving.count_groups(build(), 12, num_groups, min_group_size) == groups


@pytest.mark.parametrize("policy", ["pre", "post", "primer_hybrid"])
def test_norm_policies(policy):
    """9.3: normalise before, after, or both; then the residual weight."""
    layer = build(norm_policy=policy, residual_weight=0.5, **NO_DROPS)
    bare = build(
        ln_tpl=pax_fiddle.Config(normalizations.IdentityNorm),
        add_skip_connection=False,
        **NO_DROPS,
    )
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    params = jax.tree.map(np.asarray, variables["params"])
    names = ("pre_layer_norm", "post_layer_norm") if policy == "primer_hybrid" else ("layer_norm",)
    normed = x if policy == "post" else norm(params[names[0]], np.asarray(x))
    weights = {name: params[name] for name in ("gate", "wi_0", "wo_0")}
    mixed = np.asarray(run(bare, {"params": weights}, jnp.asarray(normed), PADDINGS)[0])
    if policy != "pre":
        mixed = norm(params[names[-1]], mixed)
    y, _, _ = run(layer, variables, x, PADDINGS)
    np.testing.assert_allclose(y, np.asarray(x) + 0.5 * mixed, rtol=3e-5, atol=3e-5)


def test_droppath_and_padding_first():
    """9.3: the residual weight counts with droppath too; padding first hides NaN."""
    x = inputs()
    layer = build(residual_droppath_prob=0.4, residual_weight=0.5, apply_padding_first=True)
    variables = random_params(layer, x, PADDINGS)
    whole = run(build(residual_weight=0.5), variables, x, PADDINGS)[0]
    spoilt = jnp.where(PADDINGS[..., None] > 0, jnp.nan, x)
    real = PADDINGS == 0
    added = (run(layer, variables, spoilt, PADDINGS)[0] - x)[real]
    kept = (np.asarray(whole - x) / 0.6)[real]
    equal = np.isclose(added, kept, rtol=1e-4, atol=1e-5).all(-1)
    assert np.all(equal | ~np.any(added, -1))


@pytest.mark.parametrize("dispatch", ["einsum", "sort"])
def test_a_decoding_step_equals_the_call(dispatch):
    layer = build(num_groups=1, dispatch=dispatch, **NO_DROPS)
    x = inputs()
    variables = random_params(layer, x)
    whole, _, _ = run(layer, variables, x)
    for t in (0, T - 1):
        step, _, _ = run(layer, variables, x[:, t], time_step=t, method="extend_step")
        np.testing.assert_allclose(step, whole[:, t], rtol=2e-5, atol=2e-5)
    steps, _, _ = run(layer, variables, x[:, 1:3], time_step=1, method="extend_step")
    np.testing.assert_allclose(steps, whole[:, 1:3], rtol=2e-5, atol=2e-5)


def test_summaries():
    """9.3: shares of tokens by number of experts, shares of drops, load of experts."""
    layer = build(num_groups=1, expert_capacity_dim=1, unadjusted_expert_capacity_factor=0.0)
    x = inputs()
    variables = random_params(layer, x, PADDINGS)
    _, loss, summaries = run(layer, variables, x, PADDINGS)
    assert summaries["aux_moe_load_balance_loss_scalar"] == loss
    shares = [summaries[f"dispatch_{n}_scalar"] for n in range(3)]
    tokens = np.sum(PADDINGS == 0)
    np.testing.assert_allclose(sum(shares), 1.0, rtol=1e-6)
    # Each expert has one token.
    np.testing.assert_allclose(shares[1] + 2 * shares[2], E / tokens, rtol=1e-5)
    dropped = [summaries[f"over_capacity_{n}_ratio_scalar"] for n in (1, 2)]
    np.testing.assert_allclose(np.mean(dropped), 1 - E / tokens / 2, rtol=1e-5)
    np.testing.assert_allclose(
        summaries["dropped_choices_ratio_scalar"], np.mean(dropped), rtol=1e-5
    )
    np.testing.assert_allclose(summaries["expert_load_histogram"], [1 / E] * E, rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "bias", "dead"),
    [
        (activations.ReLU, -1e-3, E * F),
        (activations.GELU, -6.0, E * F),
        (activations.GELU, -1.0, 0),
        (activations.SiLU, 1.0, 0),
    ],
)
def test_dead_units(activation, bias, dead):
    """9.3, wart: GELU is flat far from 0 only, so that its threshold has to count."""
    layer = build(activation_tpl=pax_fiddle.Config(activation))
    x = inputs()
    variables = random_params(layer, x)
    params = variables["params"]
    params["layer_norm"] = {"scale": jnp.full(D, -1.0), "bias": jnp.full(D, bias / D)}
    params["wi_0"] = jnp.ones_like(params["wi_0"])  # hidden units are all `bias`
    params["gate"] = jnp.zeros_like(params["gate"]).at[0].set(jnp.arange(E))
    _, _, summaries = run(layer, variables, x)
    name = f"dead_{activation.__name__}_count_scalar"
    used = 2 * F if dead == 0 else 0  # one expert gets no token
    assert summaries[name] == E * F - used


def test_initial_weights():
    """9.3: uniform up to sqrt(3 / D) and sqrt(3 / F); or of the initializer with true fans."""
    fields = {"input_dims": 64, "hidden_dims": 96, "num_experts": 8}
    params = jax.jit(build(**fields).init)(KEY, inputs(shape=(B, T, 64)))["params"]
    for name, fan_in in (("gate", 64), ("wi_0", 64), ("wo_0", 96)):
        bound = np.sqrt(3 / fan_in)
        assert 0.95 * bound < np.max(np.abs(params[name])) <= bound
    plain = {"internal_gshard_variance_scaling_fan_in_init": False}
    for explicit, fans in ((False, 8 * (64 + 96)), (True, 64 + 96)):
        layer = build(explicit_fan_in_fan_out_axes=explicit, **plain, **fields)
        params = jax.jit(layer.init)(KEY, inputs(shape=(B, T, 64)))["params"]
        np.testing.assert_allclose(np.std(params["wi_0"]), np.sqrt(2 / fans), rtol=0.05)


def test_the_weight_of_the_loss_may_be_zero():
    x = inputs()
    variables = random_params(build(), x)
    assert run(build(moe_load_balance_loss_weight=0.0), variables, x)[1] == 0
    whole, half = (run(build(moe_load_balance_loss_weight=w), variables, x)[1] for w in (1.0, 0.5))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "fields", [{"dispatch": "einsum"}, {"dispatch": "sort"}, {"dispatch": "sort", **NO_DROPS}]
)
def test_bfloat16_stays(fields):
    layer = build(fprop_dtype=jnp.bfloat16, use_gated_activation=True, **fields)
    x = inputs().astype(jnp.bfloat16)
    variables = random_params(layer, x)
    y, loss, _ = run(layer, variables, x, jnp.asarray(PADDINGS))
    assert y.dtype == loss.dtype == jnp.bfloat16
    whole = build(use_gated_activation=True, **fields)
    want, _, _ = run(whole, variables, x.astype(jnp.float32), PADDINGS)
    np.testing.assert_allclose(np.float32(y), want, rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("gating_func", "dispatch"),
    [("top2", "einsum"), ("top2", "sort"), ("expert_choice", "sort"), ("top_k", "sort")],
)
def test_sharded_experts_equal_unsharded_ones(gating_func, dispatch):
    fields = {"gating_func": gating_func, "num_experts": 4, "num_groups": 4, "dispatch": dispatch}
    if gating_func == "top_k":
        fields["unadjusted_expert_capacity_factor"] = 0.0
    x = inputs(shape=(8, 6, D))
    plain = build(**fields)
    variables = random_params(plain, x)
    want, want_loss, _ = run(plain, variables, x)
    layer = pax_fiddle.Config(
        transformers.TransformerFeedForwardMoe,
        name="moe",
        input_dims=D,
        hidden_dims=F,
        mesh_axis_names=("data", "mdl"),
        ici_mesh_shape=(4, 2),
        **fields,
    )
    layer.weight_split_dims_mapping.set(emh=["data", None, None], ehm=["data", None, None])
    layer.activation_split_dims_mapping.set(
        gs=["data", None],
        gsm=["data", None, None],
        gsec=["data", None, None, None],
        gecs=["data", None, None, None],
        gec=["data", None, None],
        egcm=["data", None, None, None],
        egch=["data", None, None, None],
        gecm=["data", None, None, None],
    )
    auto = (jax.sharding.AxisType.Auto,) * 2
    with jax.set_mesh(jax.make_mesh((4, 2), ("data", "mdl"), axis_types=auto)):
        sharded = pax_fiddle.build(layer)
        got, loss, _ = jax.jit(lambda v, x: run(sharded, v, x))(variables, x)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(loss, want_loss, rtol=2e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_experts": 0}, "TransformerFeedForwardMoe 'moe': num_experts is 0"),
        ({"num_groups": 0}, "num_groups is 0, expected at least 1"),
        ({"num_groups": 5}, "12 tokens do not divide into 5 groups"),
        ({"norm_policy": "post_skip"}, "norm_policy 'post_skip' is not one of experts"),
        ({"gating_func": "top3"}, "gating_func is 'top3', expected one of"),
        ({"dispatch": "gather"}, "dispatch is 'gather', expected one of"),
        ({"second_expert_policy": "none"}, "second_expert_policy is 'none', expected one of"),
        ({"moe_gating_embedding_level": "row"}, "moe_gating_embedding_level is 'row'"),
        ({"expert_weight_shards": 2}, "expert_weight_shards is 2, expected 1"),
        ({"moe_load_balance_loss_weight": -1.0}, "loss_weight is -1.0, expected at least 0"),
        ({"unadjusted_expert_capacity_factor": 0.0}, "are both 0, but gating_func 'top2' needs"),
        (
            {
                "dispatch": "sort",
                "einsum_tpl": pax_fiddle.Config(CountedEinsum),
                **NO_DROPS,
            },
            "dispatch 'sort' without a capacity does not use einsum_tpl",
        ),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields).init(KEY, inputs())


def test_the_width_of_inputs_is_checked():
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 3\).*input_dims = 5"):
        build().init(KEY, jnp.ones([2, 3]))
