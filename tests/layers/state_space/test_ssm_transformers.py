"""Transformer layers with state spaces: composition, steps, prompts, padding, generation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import models, ssm, ssm_transformers, transformer_models, transformers

B, T, S, D, E, N = 2, 7, 3, 4, 6, 5
KEY = jax.random.PRNGKey(0)
CACHE = [base_layer.DECODE_CACHE]
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
Block, Gated = ssm_transformers.SSMTransformer, ssm_transformers.SSMGated
NONE = jnp.zeros([B, T])


def config(cls=Block, **fields):
    sizes = {"input_dims": D, "ssm_nheads": N, "ssm_l_max": T, "ssm_dim": D, "name": "block"}
    sizes |= {"hidden_dims": 8} if cls is Block else {"ssm_dim": E}
    return pax_fiddle.Config(cls, **{**sizes, **fields})


def inputs(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape or (B, T, D)))


def random_variables(layer, *args, **kwargs):
    """Variables away from their first values."""
    shapes = jax.eval_shape(lambda: layer.init(KEY, *args, **kwargs))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.float32(0.5 * rng.standard_normal(x.shape)), shapes)


CROSS = {"use_cross_attention": True, "num_heads": 2}
S5 = pax_fiddle.Config(ssm.S5, use_input_matrix=True)
CASES = {
    "pre with S5": (Block, {"norm_policy": "pre", "ssm_tpl": S5}),
    "post with cross-attention": (Block, {"norm_policy": "post", **CROSS}),
    "gated hybrid with cross-attention": (Gated, {"norm_policy": "primer_hybrid", **CROSS}),
    "gated post": (Gated, {"norm_policy": "post"}),
}


def step_function(layer, variables, **options):
    """A compiled function of caches, inputs and time step that gives outputs and new caches."""

    @jax.jit
    def step(cache, x, time_step):
        return layer.apply(
            variables | cache,
            x,
            time_step=time_step,
            attention_mask=None,
            method="extend_step",
            mutable=CACHE,
            **options,
        )

    return step


@functools.cache
def run(case):
    """A call, steps from the start after it, and from two places after prompts of 4 tokens."""
    cls, fields = CASES[case]
    layer = pax_fiddle.build(config(cls, **fields))
    x = inputs()
    cross, step_cross = {}, {}
    if "use_cross_attention" in fields:
        step_cross = {"cross_attention_mask": jnp.zeros([B, 1, 1, S])}
        cross = {"cross_inputs": inputs(B, S, D, seed=2), **step_cross}
    variables = random_variables(layer, x, NONE, None, **cross)

    @jax.jit
    def call(x):
        paddings = jnp.zeros(x.shape[:2])
        return layer.apply(variables, x, paddings, None, mutable=CACHE, **cross)

    (whole, probs), cache = call(x)
    assert probs is None
    _, prompt = call(x[:, :4])
    step = step_function(layer, variables, **step_cross)

    def steps(cache, first):
        outs = []
        for t in range(first, T):
            out, cache = step(cache, x[:, t], t)
            outs.append(out)
        return np.stack(outs, 1)

    return layer, variables, cross, (whole, steps(cache, 0), steps(prompt, 3), steps(prompt, 4))


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_the_call(case):
    """26, SSM: transformer/GSS full pass equals extend_step; also of gated ones with "post"."""
    *_, (whole, steps, _, _) = run(case)
    close(steps, whole)


@pytest.mark.parametrize("case", CASES)
def test_steps_go_on_after_a_prompt(case):
    """From its last token, as decoders do, or from the next; the state was lost before."""
    *_, (whole, _, again, on) = run(case)
    close(again, whole[:, 3:])
    close(on, whole[:, 4:])


@pytest.mark.parametrize("case", CASES)
def test_call_is_composed_of_its_children(case):
    layer, variables, cross, (whole, *_) = run(case)
    both = "hybrid" in case
    gated = case.startswith("gated")

    def compose(layer, x):
        def before(name, x):
            if "post" in case:
                return x
            return getattr(layer, f"pre_{name}" if both else name)(x)

        def after(name, x):
            if "pre" in case:
                return x
            return getattr(layer, f"post_{name}" if both else name)(x)

        n = before("layer_norm", x)
        mixed = layer.gss_ffn_uc(layer.ssm(layer.gss_ffn_u(n))) if gated else layer.ssm(n)
        x = x + after("layer_norm", mixed)
        if cross:
            source, mask = cross["cross_inputs"], cross["cross_attention_mask"]
            query = before("cross_layer_norm", x)
            attended, _ = layer.cross_attention(query, source, source, mask)
            x = x + after("cross_layer_norm", attended)
        if not gated:
            return layer.ff_layer(x, NONE)
        return layer.gss_ffn_o(layer.gss_ffn_uco(x) * layer.gss_ffn_v(n))

    want = jax.jit(lambda: layer.apply(variables, inputs(), method=compose))()
    close(whole, want)


def test_projections_of_gated_ones_end_in_gelu_but_for_two():
    layer, variables, _, _ = run("gated post")
    names = ("gss_ffn_u", "gss_ffn_v", "gss_ffn_uco", "gss_ffn_uc", "gss_ffn_o")
    params = variables["params"]
    rows = {name: inputs(3, params[name]["linear"]["w"].shape[0]) for name in names}

    @jax.jit
    def project():
        method = lambda layer: {name: getattr(layer, name)(rows[name]) for name in names}  # noqa: E731
        return layer.apply(variables, method=method)

    for name, got in project().items():
        w, b = np.asarray(params[name]["linear"]["w"]), np.asarray(params[name]["bias"]["b"])
        want = np.asarray(rows[name]) @ w + b
        if name not in ("gss_ffn_uc", "gss_ffn_o"):
            want = np.asarray(jax.nn.gelu(want))
        close(got, want)


@pytest.mark.parametrize("cls", [Block, Gated])
def test_frames_do_not_see_padding(cls):
    """Padding before a frame was seen by it. A row with padding first is the row without it."""
    layer = pax_fiddle.build(config(cls))
    x = inputs()
    paddings = jnp.asarray([[1, 1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1, 1]], jnp.float32)
    other = jnp.where(paddings[..., jnp.newaxis] > 0, 7.0, x)
    variables = random_variables(layer, x, paddings, None)
    apply = jax.jit(lambda x, paddings: layer.apply(variables, x, paddings, None)[0])
    keep = np.asarray(paddings) == 0
    before, after = np.asarray(apply(x, paddings)), np.asarray(apply(other, paddings))
    close(before[keep], after[keep])
    shifted = apply(*(jnp.asarray(np.roll(array, -2, axis=1)) for array in (x, paddings)))
    close(before[0, 2:], shifted[0, :5])


@pytest.mark.parametrize("samples", [1, 4])
def test_steps_may_have_the_samples_of_each_row(samples):
    """One sample a row failed, with the default of 4; decoders repeat the state themselves."""
    layer = pax_fiddle.build(config())
    x = inputs()
    variables = random_variables(layer, x, NONE, None)

    @jax.jit
    def call():
        whole, _ = layer.apply(variables, x, NONE, None)
        _, cache = layer.apply(variables, x[:, :4], NONE[:, :4], None, mutable=CACHE)
        _, repeated = layer.apply(
            variables | cache, samples, 9, method="lazy_broadcast_prefix", mutable=CACHE
        )
        return whole, cache, repeated

    whole, cache, repeated = call()
    step = step_function(layer, variables)
    for state in (cache, repeated):
        for t in (3, 4):
            frames = np.repeat(x, samples, axis=0)[:, t]
            out, state = step(state, jnp.asarray(frames), t)
            close(out, np.repeat(whole, samples, axis=0)[:, t])


def test_states_can_be_made_and_reordered():
    layer = pax_fiddle.build(config())
    x = inputs()
    variables = random_variables(layer, x, NONE, None)

    @jax.jit
    def call():
        _, cache = layer.apply(variables, x, NONE, None, mutable=CACHE)
        _, swapped = layer.apply(
            variables | cache,
            lambda state, batch_dim, time_dim: jnp.flip(state, batch_dim),
            method="transform_decode_state",
            mutable=CACHE,
        )
        _, empty = layer.apply(variables, 3, T, method="init_states", mutable=CACHE)
        return cache, swapped, empty

    cache, swapped, empty = call()
    old, new = cache["decoder_cache"], swapped["decoder_cache"]
    np.testing.assert_array_equal(new["ssm"]["ssm_state"], old["ssm"]["ssm_state"][::-1])
    np.testing.assert_array_equal(new["state_before_last"], old["state_before_last"][::-1])
    assert empty["decoder_cache"]["ssm"]["ssm_state"].shape == (3, N, D)
    assert layer.decoding_sequence_length() == T


def test_language_model_generates_what_it_predicts():
    """From prompts of unequal lengths, prefilled, with samples of each row, in a loop of layers."""
    width, steps, vocab = 4, 3, 11
    block = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1,
        hidden_dims=8,
        num_heads=1,
        mask_self_attention=True,
        transformer_layer_params_tpl=config(ssm_l_max=width + steps).set(name=""),
    )
    lm = pax_fiddle.Config(
        transformer_models.TransformerLm,
        model_dims=D,
        vocab_size=vocab,
        stacked_transformer_tpl=pax_fiddle.Config(
            transformers.StackedTransformerRepeated, block=block, x_times=2
        ),
    )
    lengths = np.asarray([2, 4])
    rng = np.random.default_rng(3)
    paddings = jnp.float32(np.arange(width)[np.newaxis] >= lengths[:, np.newaxis])
    batch = py_utils.NestedMap(
        ids=jnp.asarray(rng.integers(1, vocab, [2, width]), jnp.int32),
        labels=jnp.zeros([2, width], jnp.int32),
        paddings=paddings,
        weights=1.0 - paddings,
    )
    decoder = decoder_hparams.SampleDecoderHParams(
        seqlen=width + steps,
        max_decode_steps=steps,
        fprop_for_prefix=True,
        eos_id=-1,
        num_samples=2,
        temperature=0.0,
    )
    model = pax_fiddle.build(
        pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, decoder_tpl=decoder)
    )
    variables = jax.tree.map(lambda x: 2.0 * x, random_variables(model, batch))

    @jax.jit
    def generate(variables):
        rngs = {"random": KEY}
        (_, out, _), _ = model.apply(
            variables, batch, rngs=rngs, method=model.decode, mutable=CACHE
        )
        ids = out.output_ids  # [B, samples, S]
        rows = ids.reshape(-1, ids.shape[-1])[:, : width + steps]
        logits = model.apply(
            variables, rows, jnp.zeros(rows.shape), method=lambda m, *args: m.lm(*args).logits
        )
        return ids, jnp.argmax(logits, axis=-1).reshape(*ids.shape[:2], -1)

    ids, predicted = (np.asarray(x) for x in generate(variables))
    for row, length in enumerate(lengths):
        end = length + steps
        np.testing.assert_array_equal(ids[row, :, :length], [batch.ids[row, :length]] * 2)
        np.testing.assert_array_equal(
            ids[row, :, length:end], predicted[row, :, length - 1 : end - 1]
        )
        assert len(set(ids[row, 0, :end].tolist())) > 2


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (Block, {"ssm_dim": 5}, "ssm_dim = 5 is not input_dims = 4. Set ssm_dim to 4"),
        (Block, {"hidden_dims": 0}, "hidden_dims is 0, expected at least 1"),
        (Block, {"ssm_nheads": 0}, "ssm_nheads is 0, expected at least 1"),
        (Gated, {"ssm_dim": 0}, "ssm_dim is 0, expected at least 1"),
        (Gated, {"ssm_l_max": 0}, "ssm_l_max is 0, expected at least 1"),
        (Gated, {"norm_policy": "both"}, "norm_policy is 'both', expected one of"),
        (Gated, {"input_dims": 3}, r"inputs have shape \(2, 7, 4\).*D = input_dims = 3"),
        (Block, {"ssm_l_max": 5}, r"longer than l_max = 5"),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, fields, message):
    layer = pax_fiddle.build(config(cls, **fields))
    with pytest.raises(ValueError, match=rf"\w+ 'block.*': .*{message}"):
        jax.eval_shape(lambda: layer.init(KEY, inputs(), NONE, None))
