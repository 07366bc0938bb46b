"""Vector quantizers against NumPy: codes, losses, gradients, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import quantizer
from praxis.layers.vector_quantizer.nearest import check_sequence

B, T, D, V = 2, 5, 6, 7
KEY = jax.random.PRNGKey(0)
MARKS = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], np.float32)
PADDINGS = jnp.asarray(MARKS)
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def trained(**fields):
    sizes = {"num_latent_classes": V, "latent_dim": D, "beta": 0.3}
    return pax_fiddle.build(
        pax_fiddle.Config(quantizer.VectorQuantizer, name="vq", **{**sizes, **fields})
    )


def random(**fields):
    sizes = {"num_latent_classes": V, "latent_dim": D, "projection_dim": 4}
    return pax_fiddle.build(
        pax_fiddle.Config(quantizer.RandomVectorQuantizer, name="rq", **{**sizes, **fields})
    )


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def run(layer, variables, *args, **kwargs):
    """`layer.apply` as one compiled program."""
    return jax.jit(lambda variables, args: layer.apply(variables, *args, **kwargs))(variables, args)


def made(layer, z):
    """Random variables, NumPy's float32."""
    shapes = jax.eval_shape(lambda: layer.init(KEY, z, PADDINGS))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda x: jnp.float32(rng.standard_normal(x.shape)), shapes)


def nearest(latent, codebook):
    """Codes [B, T, G] of latent [B, T, G, H] and codebook [V, G, H]."""
    distances = ((latent[:, :, None] - codebook) ** 2).sum(-1)  # [B, T, V, G]
    return distances.argmin(2)


def chosen(codes, codebook):
    vectors = codebook[codes, np.arange(codebook.shape[1])]
    return vectors.reshape(*codes.shape[:2], -1)


def test_quantize_vector_matches_numpy():
    latent, codebook = numbers(B, T, 3, 2), numbers(V, 3, 2, seed=1)
    vectors, codes, onehot = quantizer.quantize_vector(jnp.float32(latent), jnp.float32(codebook))
    want = nearest(latent, codebook)
    np.testing.assert_array_equal(codes, want)
    np.testing.assert_array_equal(onehot, np.eye(V)[want])
    np.testing.assert_array_equal(vectors.reshape(B, T, 6), chosen(want, np.float32(codebook)))
    assert codes.dtype == jnp.int32 and onehot.dtype == jnp.float32


def test_of_equally_near_vectors_the_first_is_taken():
    codebook = jnp.ones([V, 1, 2])
    _, codes, _ = quantizer.quantize_vector(jnp.zeros([1, 1, 2]), codebook)
    assert codes.item() == 0


@pytest.mark.parametrize(
    ("groups", "per_group", "fields"),
    [
        (1, True, {}),
        (3, True, {}),
        (2, False, {}),
        (2, True, {"normalize_latent_vector": False, "normalize_codebook": False}),
    ],
)
def test_trained_quantizer_matches_numpy(groups, per_group, fields):
    """26, Quantizers: VQ shapes and losses, N codebooks; whole normalisation changes z too."""
    layer = trained(num_groups=groups, normalize_latent_per_group=per_group, **fields)
    z, w = numbers(B, T, D), numbers(V, groups, D // groups, seed=1)
    params = {"w": jnp.float32(w)}

    def call(params, z):
        out = layer.apply({"params": params}, z, PADDINGS)
        return out.loss, out

    (_, out), (grad_w, grad_z) = jax.jit(
        lambda *args: (
            call(*args),
            jax.grad(lambda p, z: call(p, z)[0], argnums=(0, 1))(*args),
        )
    )(params, jnp.float32(z))
    keep = (1.0 - MARKS.astype(np.float64))[..., None]
    codebook = normalised(w) if fields.get("normalize_codebook", True) else w
    normalises = fields.get("normalize_latent_vector", True)
    target = normalised(z) if normalises and not per_group else z
    latent = target.reshape(B, T, groups, -1)
    latent = normalised(latent) if normalises and per_group else latent
    codes = nearest(latent, codebook)
    vectors = chosen(codes, codebook) * keep
    loss = (((target * keep - vectors) ** 2).mean(-1)).sum() / keep.sum()
    np.testing.assert_array_equal(out.z_codes, codes * np.int32(keep))
    np.testing.assert_array_equal(out.z_onehot, np.eye(V)[codes] * keep[..., None])
    close(out.z_q, vectors)
    close(out.loss, 1.3 * loss)
    counts = [np.bincount(c[keep[..., 0] > 0], minlength=V) for c in np.moveaxis(codes, -1, 0)]
    coverage = np.mean([(count > 0).mean() for count in counts])
    close(out.codebook_coverage, coverage)
    close(out.codebook_num_covered_words, coverage * V**groups)
    close(out.entropy, np.log(out.pplx))
    assert not np.any(grad_z[MARKS > 0])
    if not normalises:
        # beta moves z to the codebook, the other loss moves the codebook.
        scale = 2 / D / keep.sum()
        close(grad_z, 0.3 * scale * (z - vectors) * keep)
        want = np.zeros_like(w)
        pull = (scale * (vectors - z) * keep).reshape(B, T, groups, -1)
        np.add.at(want, (codes, np.arange(groups)), pull)
        close(grad_w["w"], want)


def test_gradients_for_the_outputs_go_straight_to_the_inputs():
    layer = trained(normalize_latent_vector=False)
    z, weights = jnp.float32(numbers(B, T, D)), jnp.float32(numbers(B, T, D, seed=2))
    variables = {"params": {"w": jnp.float32(numbers(V, 1, D, seed=1))}}

    def total(variables, z):
        return jnp.sum(weights * layer.apply(variables, z, PADDINGS).z_q)

    grad_params, grad_z = jax.jit(jax.grad(total, argnums=(0, 1)))(variables, z)
    np.testing.assert_array_equal(grad_z, weights * (1 - MARKS)[..., None])
    assert not np.any(grad_params["params"]["w"])


@pytest.mark.parametrize("make", [trained, random])
def test_padding_changes_nothing_that_counts(make):
    layer = make()
    z = jnp.float32(numbers(B, T, D))
    other = jnp.where(PADDINGS[..., None] > 0, jnp.nan, z)
    variables = made(layer, z)
    outs = [run(layer, variables, x, PADDINGS) for x in (z, other)]
    for name, before in outs[0].items():
        after = outs[1][name]
        if name.startswith("z_"):
            before, after = before[MARKS == 0], after[MARKS == 0]
        np.testing.assert_array_equal(before, after, err_msg=name)


@pytest.mark.parametrize("make", [trained, random])
def test_codes_of_vectors_are_looked_up(make):
    layer = make(num_groups=2, normalize_codebook=True)
    z = jnp.float32(numbers(B, T, D))
    variables = made(layer, z)
    out = run(layer, variables, z, jnp.zeros([B, T]))
    vectors = run(layer, variables, out.z_codes, method="look_up")
    np.testing.assert_allclose(vectors, out.z_q, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("groups", "latent", "per_group", "codebook"),
    [
        (1, False, True, False),
        (2, True, True, True),
        (2, True, False, False),
    ],
)
def test_random_quantizer_matches_numpy(groups, latent, per_group, codebook):
    """26, Quantizers: random quantizer groups."""
    layer = random(
        num_groups=groups,
        normalize_latent_vector=latent,
        normalize_latent_per_group=per_group,
        normalize_codebook=codebook,
    )
    params = {
        "random_proj": numbers(D, 4, seed=1),
        "random_bias": numbers(4, seed=2),
        "random_codebook": numbers(V, groups, 4 // groups, seed=3),
    }
    z = numbers(B, T, D)
    variables = {"params": jax.tree.map(jnp.float32, params)}
    out = run(layer, variables, jnp.float32(z), PADDINGS)
    projected = z @ params["random_proj"] + params["random_bias"]
    if latent and not per_group:
        projected = normalised(projected)
    projected = projected.reshape(B, T, groups, -1)
    if latent and per_group:
        projected = normalised(projected)
    book = params["random_codebook"]
    book = normalised(book) if codebook else book
    codes = nearest(projected, book)
    np.testing.assert_array_equal(out.z_codes, codes)
    close(out.z_q, chosen(codes, book))
    np.testing.assert_array_equal(out.paddings, MARKS)
    close(out.codebook_num_covered_codes, V * float(out.codebook_coverage))


def test_joined_frames_are_projected_together():
    """Three frames a code: five make two, the last one padded with zeros and as padding."""
    layer = random(stack_ratio=3)
    z = numbers(B, T, D)
    variables = made(layer, jnp.float32(z))
    params = jax.tree.map(np.float64, variables["params"])
    assert params["random_proj"].shape == (3 * D, 4)
    out = run(layer, variables, jnp.float32(z), PADDINGS)
    joined = np.concatenate([z, np.zeros([B, 1, D])], axis=1).reshape(B, 2, 3 * D)
    projected = (joined @ params["random_proj"] + params["random_bias"])[:, :, None]
    np.testing.assert_array_equal(out.z_codes, nearest(projected, params["random_codebook"]))
    np.testing.assert_array_equal(out.paddings, [[0, 1], [1, 1]])


def test_codebook_without_groups_may_have_two_axes():
    z = jnp.float32(numbers(B, T, D))
    plain, low_rank = random(), random(low_rank_codebook=True)
    variables = made(plain, z)
    flat = {**variables["params"]}
    flat["random_codebook"] = flat["random_codebook"][:, 0]
    shapes = jax.eval_shape(lambda: low_rank.init(KEY, z, PADDINGS))
    assert shapes["params"]["random_codebook"].shape == (V, 4)
    outs = run(plain, variables, z, PADDINGS), run(low_rank, {"params": flat}, z, PADDINGS)
    np.testing.assert_array_equal(outs[0].z_codes, outs[1].z_codes)
    np.testing.assert_array_equal(outs[0].z_q, outs[1].z_q)


def test_nothing_moves_the_random_variables():
    layer = random()
    z = jnp.float32(numbers(B, T, D))
    variables = made(layer, z)

    def total(variables, z):
        out = run(layer, variables, z, PADDINGS)
        return sum(jnp.sum(x) for x in out.values() if jnp.issubdtype(x.dtype, jnp.floating))

    for leaf in jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1)))(variables, z)):
        assert not np.any(leaf)


def test_codebook_is_plotted_on_request():
    z = jnp.float32(numbers(B, T, D))
    layer = random(num_groups=2, plot_codebook=True)
    variables = made(layer, z)
    _, updates = run(layer, variables, z, PADDINGS, mutable=[base_layer.SUMMARIES])
    image = updates[base_layer.SUMMARIES]["codebook_image"]
    np.testing.assert_array_equal(image, variables["params"]["random_codebook"].reshape(1, V, 4, 1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (trained(num_latent_classes=None), "'vq': num_latent_classes is None, expected at least 1"),
        (trained(latent_dim=None), "'vq': latent_dim is None, expected at least 1"),
        (trained(beta=None), r"'vq': beta is None.*e\.g\. config\.beta = 0\.25"),
        (trained(num_groups=4), "'vq': latent_dim = 6 is not a multiple of num_groups = 4"),
        (trained(latent_dim=8), r"'vq': z has shape \(2, 5, 6\).*D = latent_dim = 8"),
        (random(num_latent_classes=None), "'rq': num_latent_classes is None"),
        (random(num_groups=3), "'rq': projection_dim = 4 is not a multiple of num_groups = 3"),
        (random(latent_dim=5), r"'rq': z has shape \(2, 5, 6\).*D = latent_dim = 5"),
        (random(stack_ratio=0), "'rq': stack_ratio is 0, expected at least 1"),
    ],
    ids=range(9),
)
def test_errors_name_the_layer_and_the_field(layer, message):
    with pytest.raises(ValueError, match=rf"VectorQuantizer {message}"):
        jax.eval_shape(lambda: layer.init(KEY, jnp.ones([B, T, D]), jnp.zeros([B, T])))


@pytest.mark.parametrize("make", [trained, random])
def test_paddings_of_another_shape_are_refused(make):
    with pytest.raises(ValueError, match=r"paddings have shape \(2, 4\), expected \[B, T\] as of"):
        check_sequence(make(), jnp.ones([B, T, D]), jnp.zeros([B, 4]))
