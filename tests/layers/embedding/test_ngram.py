"""N-grammers of tokens and of clusters, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import ngrammer

B, L, N, H, E, K, V, ROWS = 2, 5, 2, 4, 3, 3, 7, 23
PRIMES = (29, 31)
CHANGED = [base_layer.NON_TRAINABLE]


def build(cls, **fields):
    sizes = {"num_heads": N, "dim_per_head": H}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="ngrams", **{**sizes, **fields}))


def ngrams(**fields):
    sizes = {"ngram_vocab_size": ROWS, "unigram_vocab_size": V, "ngram_emb_dim": E}
    return build(ngrammer.Ngrammer, **{**sizes, **fields})


def vq_ngrams(**fields):
    sizes = {"ngram_vocab_size": ROWS, "ngram_emb_dim": E, "num_clusters": K}
    return build(ngrammer.VQNgrammer, **{"concat_ngrams": True, **sizes, **fields})


def floats(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def token_ids(seed=1, below=V):
    return jnp.asarray(np.random.default_rng(seed).integers(0, below, [B, L]), jnp.int32)


def noisy(variables, seed=5):
    rng = np.random.default_rng(seed)

    def noise(x):
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.float32(rng.standard_normal(x.shape)) if is_float else x

    return jax.tree.map(noise, variables)


def layer_norm(x, theta):
    x = np.float64(x)
    centred = x - x.mean(-1, keepdims=True)
    scale = 1 + np.float64(theta["scale"])
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + np.float64(
        theta["bias"]
    )


def clusters_of(embs, variables):
    """The nearest centroid of each head, in float64."""
    means = np.float64(variables["non_trainable"]["vq_layer"]["means"])
    embs = np.float64(embs).reshape(*embs.shape[:2], N, 1, H)
    return ((embs - means) ** 2).sum(-1).argmin(-1)


def reference(theta, ids, embs, vocab, concat=True):
    """The layer of `ids` [B, L, N] in float64; token 0 is paired with the first one."""
    heads = []
    for i in range(N):
        previous = np.pad(ids[..., i], ((0, 0), (1, 0)))[:, :-1]
        pairs = ids[..., i] + previous * vocab
        rows = (pairs * (i + 1) + (i + 1)) % PRIMES[i] % ROWS
        table = layer_norm(
            theta[f"ngram_table_{i}"]["emb_var"][rows], theta[f"ngram_layer_norm_{i}"]
        )
        own = layer_norm(embs[:, :, i], theta[f"emb_layer_norm_{i}"])
        heads.append(
            np.concatenate([own[..., : H - table.shape[-1]], table], -1) if concat else own + table
        )
    return np.stack(heads, axis=2)


def test_bigrams_pair_each_token_with_the_one_before_it():
    ids = jnp.array([[3, 1, 4, 1, 5]])
    assert ngrammer.get_bigram_ids(ids, 7).tolist() == [[3, 22, 11, 29, 12]]
    packed = ngrammer.get_bigram_ids(ids, 7, segment_pos=jnp.array([[0, 1, 0, 1, 2]]))
    assert packed.tolist() == [[3, 22, 4, 29, 12]]


def test_bigrams_of_given_pairs():
    """An index of L stands for no partner."""
    pairs = jnp.array([[5, 0, 0, 2, 5]])
    ids = jnp.array([[3, 1, 4, 1, 5]])
    assert ngrammer.get_bigram_ids(ids, 7, pair_ids=pairs).tolist() == [[3, 22, 25, 29, 5]]


@pytest.mark.parametrize("concat", [True, False])
def test_ngrammer_matches_numpy(concat):
    width = E if concat else H
    layer = ngrams(concat_ngrams=concat, ngram_emb_dim=width)
    ids, embs = token_ids(), floats(B, L, N, H)
    paddings = jnp.float32([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
    variables = noisy(layer.init(jax.random.PRNGKey(0), ids, embs))
    got = layer.apply(variables, ids, embs.reshape(B, L, N * H), paddings)
    by_head = np.repeat(np.asarray(ids)[..., np.newaxis], N, axis=2)
    want = reference(variables["params"], by_head, embs, V, concat)
    want = want * (1 - np.asarray(paddings))[..., np.newaxis, np.newaxis]
    np.testing.assert_allclose(got, want.reshape(B, L, -1), rtol=2e-5, atol=2e-5)
    split = layer.apply(variables, ids, embs, paddings, merge_heads=False)
    np.testing.assert_array_equal(split.reshape(B, L, -1), got)


def test_vq_ngrammer_is_an_ngrammer_of_clusters_and_caches_them():
    layer = vq_ngrams(unigram_vocab_size=V)
    ids = jnp.array([[0, 1, 2, 3, 4], [5, 6, 1, 2, 3]])
    embs = floats(B, L, N, H)
    variables = noisy(layer.init(jax.random.PRNGKey(0), ids, embs))
    got, updates = layer.apply(variables, ids, embs, merge_heads=False, mutable=CHANGED)
    means = np.float64(variables["non_trainable"]["vq_layer"]["means"])
    clusters = clusters_of(embs, variables)
    want = reference(variables["params"]["ngram_layer"], clusters, embs, K)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    changed = updates["non_trainable"]
    np.testing.assert_array_equal(changed["input_id_to_cluster_id_cache"][5:], clusters[1, :2])
    chosen = np.eye(K)[clusters]
    sums = np.einsum("blnk,blnh->nkh", chosen, embs)
    batch_means = sums / (chosen.sum((0, 1)) + 1e-6)[..., np.newaxis]
    moved = 0.999 * means + 0.001 * batch_means
    np.testing.assert_allclose(changed["vq_layer"]["means"], moved, rtol=2e-5, atol=2e-5)


def test_evaluation_can_take_clusters_from_the_cache():
    layer = vq_ngrams(unigram_vocab_size=V, use_cached_input_ids_to_cluster_ids=True)
    ids, embs = token_ids(), floats(B, L, N, H)
    variables = noisy(layer.init(jax.random.PRNGKey(0), ids, embs))
    cache = np.random.default_rng(3).integers(0, K, [V, N]).astype(np.int32)
    variables["non_trainable"]["input_id_to_cluster_id_cache"] = jnp.asarray(cache)
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        got, updates = layer.apply(variables, ids, embs, merge_heads=False, mutable=CHANGED)
    want = reference(variables["params"]["ngram_layer"], cache[np.asarray(ids)], embs, K)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    before = variables["non_trainable"]["vq_layer"]["means"]
    np.testing.assert_array_equal(updates["non_trainable"]["vq_layer"]["means"], before)


@pytest.mark.parametrize(
    ("fields", "full"),
    [
        ({"full_update_cache_frequency": 2}, [True, False, True]),
        ({"full_update_cache_steps": (1,)}, [False, True, False]),
        ({"full_update_cache_frequency": 2, "enable_cache_updates": False}, None),
    ],
)
def test_full_updates_of_the_cache(fields, full):
    """The clusters of all tokens are cached at some steps, those of the batch at the others."""
    layer = vq_ngrams(unigram_vocab_size=V, decay=1.0, **fields)
    ids, embs, table = jnp.zeros([B, L], jnp.int32), floats(B, L, N, H), floats(V, N * H, seed=2)
    variables = noisy(layer.init(jax.random.PRNGKey(0), ids, embs, emb_var=table))
    nearest = clusters_of(table[np.newaxis], variables)[0]
    unknown = jnp.full([V, N], 99, jnp.int32)
    for is_full in full or [False] * 2:
        state = dict(variables["non_trainable"], input_id_to_cluster_id_cache=unknown)
        variables = variables | {"non_trainable": state}
        _, updates = layer.apply(variables, ids, embs, emb_var=table, mutable=CHANGED)
        variables = variables | updates
        cache = np.asarray(variables["non_trainable"]["input_id_to_cluster_id_cache"])
        if full is None:
            assert (cache == 99).all()
        elif is_full:
            np.testing.assert_array_equal(cache, nearest)
        else:
            assert (cache[0] != 99).all() and (cache[1:] == 99).all()


@pytest.mark.parametrize("by_attention", [False, True])
@pytest.mark.parametrize("cls", [ngrammer.VQNgrammer, ngrammer.NgrammerStub])
def test_steps_give_what_a_call_gives(cls, by_attention):
    is_stub = cls is ngrammer.NgrammerStub
    layer = build(cls) if is_stub else vq_ngrams(ngram_using_attention_scores=by_attention)
    embs = floats(B, L, N, H)
    scores = np.tril(np.exp(np.asarray(floats(B, N, L, L, seed=4))))
    scores = jnp.asarray(scores / scores.sum(-1, keepdims=True))
    variables = noisy(layer.init(jax.random.PRNGKey(0), None, embs, attention_scores=scores))
    whole = layer.apply(variables, None, embs, merge_heads=False, attention_scores=scores)
    step = jax.jit(
        lambda step, row: layer.apply(
            variables, embs, step, False, attention_score=row, method="extend_step"
        )
    )
    for t in range(L):
        got = step(t, scores[:, :, t])
        np.testing.assert_allclose(got, whole[:, t], rtol=2e-5, atol=2e-5)


def test_attention_pairs_a_token_with_the_earlier_one_it_attends_to_most():
    layer = vq_ngrams(ngram_using_attention_scores=True)
    embs = floats(B, L, N, H)
    first = np.zeros([B, N, L, L], np.float32)
    first[..., 0] = 0.4
    first = jnp.asarray(first + 0.6 * np.eye(L, dtype=np.float32))  # Mostly on the token itself.
    variables = noisy(layer.init(jax.random.PRNGKey(0), None, embs, attention_scores=first))
    got = layer.apply(variables, None, embs, merge_heads=False, attention_score=first)
    clusters = clusters_of(embs, variables)
    for t in range(1, L):
        pair = np.stack([clusters[:, 0], clusters[:, t]], axis=1)
        twice = np.stack([embs[:, t], embs[:, t]], axis=1)
        want = reference(variables["params"]["ngram_layer"], pair, twice, K)[:, 1]
        np.testing.assert_allclose(got[:, t], want, rtol=2e-5, atol=2e-5)


def test_padding_moves_no_centroid():
    layer = build(ngrammer.VectorQuantization, num_clusters=K)
    x, paddings = floats(B, L, N, H), jnp.float32([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    variables = layer.init(jax.random.PRNGKey(0), x)
    _, want = layer.apply(variables, x, paddings, mutable=CHANGED)
    (_, nearest), got = layer.apply(
        variables,
        x + 9 * jnp.broadcast_to(paddings[..., None, None], x.shape),
        paddings,
        mutable=CHANGED,
    )
    np.testing.assert_array_equal(got["non_trainable"]["means"], want["non_trainable"]["means"])
    assert (np.asarray(nearest)[np.asarray(paddings) == 1] == 0).all()


def test_compression_of_bregman_ngrammer_learns_and_pads():
    layer = build(
        ngrammer.BregmanNgrammer,
        ngram_vocab_size=5,
        ngram_emb_dim=E,
        num_components=2,
        end_step=3,
    )
    embs, paddings = floats(B, L, N, H), jnp.float32([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]])
    variables = layer.init(jax.random.PRNGKey(0), None, embs)
    got, updates = layer.apply(variables, None, embs, paddings, mutable=CHANGED)
    assert got.shape == (B, L, N * H)
    assert (np.asarray(got)[np.asarray(paddings) == 1] == 0).all()
    before = variables["non_trainable"]["compression_layer"]["bregman_layer_0"]
    after = updates["non_trainable"]["compression_layer"]["bregman_layer_0"]
    assert float(after["step"]) == 1.0
    assert np.abs(after["components"] - before["components"]).max() > 1e-4
    # Packed rows: the first token of an example has no partner, whatever is before it.
    pos = jnp.array([[0, 1, 0, 1, 2]] * B)
    apply = jax.jit(lambda embs: layer.apply(variables, None, embs, segment_pos=pos))
    params = variables["params"]
    logits = np.zeros([5])  # products with 0
    shares = np.exp(logits) / np.exp(logits).sum()
    row = np.einsum("v,ven->ne", shares, np.float64(params["embedding_table"]))
    want = layer_norm(row[0], params["ngram_layer_norm_0"])
    np.testing.assert_allclose(apply(embs)[:, 2, H - E : H], [want] * B, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (ngrams, {"unigram_vocab_size": 0}, "Ngrammer 'ngrams': unigram_vocab_size is 0"),
        (ngrams, {"ngram_emb_dim": H + 1}, "ngram_emb_dim = 5 is more than dim_per_head = 4"),
        (ngrams, {"concat_ngrams": False}, "ngram_emb_dim = 3 is not dim_per_head = 4"),
        (vq_ngrams, {"num_clusters": 0}, "VQNgrammer 'ngrams': num_clusters is 0"),
        (
            vq_ngrams,
            {"use_cached_input_ids_to_cluster_ids": True},
            "use_cached_input_ids_to_cluster_ids = True needs the cache",
        ),
        (
            vq_ngrams,
            {"ngram_using_attention_scores": True},
            "attention_scores is None, but ngram_using_attention_scores = True",
        ),
        (
            vq_ngrams,
            {"unigram_vocab_size": V, "full_update_cache_frequency": 2},
            "emb_var is None, but full updates",
        ),
        (vq_ngrams, {"decay": 1.5}, "VectorQuantization 'ngrams/vq_layer': decay is 1.5"),
    ],
)
def test_wrong_config(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields).init(jax.random.PRNGKey(0), token_ids(), floats(B, L, N * H))


def test_wrong_width_names_the_shape():
    with pytest.raises(ValueError, match=r"Ngrammer 'ngrams'.*\(2, 5, 9\).*num_heads = 2"):
        ngrams().init(jax.random.PRNGKey(0), token_ids(), floats(B, L, 9))


def test_wrong_table_names_the_shape():
    layer = vq_ngrams(unigram_vocab_size=V, full_update_cache_frequency=1)
    with pytest.raises(ValueError, match=r"emb_var has shape \(6, 8\).*unigram_vocab_size = 7"):
        layer.init(
            jax.random.PRNGKey(0), token_ids(), floats(B, L, N * H), emb_var=floats(6, N * H)
        )


def test_canonical_sharding_shards_rows_and_dims():
    config = pax_fiddle.Config(ngrammer.VQNgrammer, num_clusters=K, num_heads=N, dim_per_head=H)
    ngrammer.VQNgrammer.set_canonical_sharding_params(
        config,
        replica_axis="replica",
        data_axis="data",
        mdl_axis="mdl",
        ici_mesh_shape=[1, 2, 2],
        dcn_mesh_shape=None,
        mesh_axis_names=["replica", "data", "mdl"],
        training_optimized=True,
    )
    tables = config.set(name="ngrams", ngram_vocab_size=ROWS, ngram_emb_dim=H)
    layer = pax_fiddle.build(tables)
    embs = jax.ShapeDtypeStruct((B, L, N * H), jnp.float32)
    metadata = layer.abstract_init_with_metadata(None, embs)
    table = metadata["params"]["ngram_layer"]["ngram_table_1"]["emb_var"]
    assert list(table.tensor_split_dims_mapping) == ["mdl", "data"]
