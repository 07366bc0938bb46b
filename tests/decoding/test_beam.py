"""Beam search of a model whose logits are a table, against all texts there are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, beam_search, flat_beam_search, pax_fiddle
from praxis.decoding import suffix

EOS, VOCAB = 0, 3
BeamSearchHParams = beam_search.BeamSearchHParams


class Bigrams(base_layer.BaseLayer):
    """The next token depends on the last one and on its place, which the cache remembers."""

    def fprop(self, ids):
        self.update_decode_state("seen", ids)
        self.update_decode_state("time_step", jnp.asarray(ids.shape[1] - 1, jnp.int32))

    def extend_step(self, ids):
        step = self.get_decode_state("time_step")
        seen = self.get_decode_state("seen")
        seen = jax.lax.dynamic_update_slice_in_dim(seen, ids[:, None], step, axis=1)
        self.update_decode_state("seen", seen)
        self.update_decode_state("time_step", step + 1)
        before = seen[:, step - 1]
        return jnp.asarray(TABLE, jnp.float32)[before, ids]

    def transform_decode_state(self, fn):
        self.update_decode_state("seen", fn(self.get_decode_state("seen"), 0, 1))


TABLE = 2 * np.random.default_rng(3).standard_normal((VOCAB, VOCAB, VOCAB))
LOG_PROBS = TABLE - np.log(np.exp(TABLE).sum(-1, keepdims=True))


def search(prefixes, **fields):
    model = pax_fiddle.build(pax_fiddle.Config(Bigrams, name="model"))
    ids = jnp.asarray(prefixes, jnp.int32)
    hparams = BeamSearchHParams(eos_id=EOS, **fields)

    def body(model):
        return beam_search.beam_search(
            model,
            lambda model, ids, pos: model.extend_step(ids),
            lambda model, ids, paddings: model.fprop(ids),
            lambda model, fn: model.transform_decode_state(fn),
            ids,
            jnp.zeros(ids.shape),
            hparams,
        )

    return model.apply({}, method=body, mutable=[base_layer.DECODE_CACHE])[0]


def all_texts(prefix, max_steps, alpha):
    """All texts that end, by falling score."""
    texts = []
    for length in range(max_steps):
        for body in itertools.product(range(1, VOCAB), repeat=length):
            text = [*prefix, *body, EOS]
            logprobs = [LOG_PROBS[text[i - 2], text[i - 1], text[i]] for i in range(2, len(text))]
            texts.append((sum(logprobs) / ((length + 6) / 5) ** alpha, text, logprobs))
    return sorted(texts, reverse=True)


@pytest.mark.parametrize("use_matmul_beam_shuffle", [False, True])
def test_many_beams_find_the_best_of_all_texts(use_matmul_beam_shuffle):
    out = search(
        [[1, 2], [2, 2]],
        beam_size=32,
        tokens_per_beam=3,
        max_decode_steps=4,
        length_norm_alpha=0.7,
        use_matmul_beam_shuffle=use_matmul_beam_shuffle,
    )
    for row, prefix in enumerate([[1, 2], [2, 2]]):
        want = all_texts(prefix, 4, 0.7)
        scores = [score for score, _, _ in want]
        np.testing.assert_allclose(out.scores[row, : len(want)], scores, rtol=2e-5)
        for beam, (_, text, logprobs) in enumerate(want):
            length = len(text)
            assert out.decode_lengths[row, beam] == length
            np.testing.assert_array_equal(out.output_ids[row, beam, :length], text)
            np.testing.assert_array_equal(out.output_ids[row, beam, length:], 0)
            np.testing.assert_allclose(
                out.logprobs[row, beam, 2:length], logprobs, rtol=2e-5, atol=2e-5
            )
        # Places without a text have the prefix alone.
        assert (out.scores[row, len(want) :] == -1e9).all()
        assert (out.decode_lengths[row, len(want) :] == 2).all()


def test_min_decode_steps_and_early_exit():
    out = search([[1, 2]], beam_size=8, tokens_per_beam=3, max_decode_steps=3, min_decode_steps=1)
    want = [text for text in all_texts([1, 2], 3, 0.8) if len(text[1]) > 3]
    np.testing.assert_allclose(out.scores[0, : len(want)], [w[0] for w in want], rtol=2e-5)
    assert (out.scores[0, len(want) :] == -1e9).all()
    out = search([[1, 2]], beam_size=1, max_decode_steps=9, early_exit=True)
    assert bool(out.done.all()) or int(out.segment_pos[0]) == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "max_decode_steps is None, expected the most tokens"),
        ({"max_decode_steps": 2, "beam_size": 0}, "beam_size is 0, expected at least 1"),
        ({"max_decode_steps": 2, "tokens_per_beam": 0}, "tokens_per_beam is 0, expected at least"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=f"beam_search: BeamSearchHParams.{message}"):
        search([[1, 2]], **fields)


def test_flat_beam_search_of_bigrams():
    table = jnp.asarray(TABLE[0], jnp.float32)
    log_probs = np.asarray(jax.nn.log_softmax(table))
    model = pax_fiddle.build(pax_fiddle.Config(Bigrams, name="model"))

    def run(eos_id):
        return model.apply(
            {},
            method=lambda model: flat_beam_search.flat_beam_search(
                model,
                lambda model, ids, pos: table[ids],
                jnp.asarray([[0, 2], [0, 1]]),
                jnp.zeros([2, 2]),
                seq_len=4,
                beam_size=9,
                fprop_dtype=jnp.float32,
                eos_id=eos_id,
                length_norm_alpha=0.6,
            ),
        )

    out = run(EOS)
    for row, first in enumerate([2, 1]):
        want = []
        for length in range(3):
            for middle in itertools.product(range(1, VOCAB), repeat=length):
                text = [first, *middle, EOS]
                total = sum(log_probs[a, b] for a, b in itertools.pairwise(text))
                want.append((total / ((length + 6) / 5) ** 0.6, text))
        want.sort(reverse=True)
        np.testing.assert_allclose(out.scores[row, :7], [score for score, _ in want], rtol=2e-5)
        for beam, (_, text) in enumerate(want):
            np.testing.assert_array_equal(out.output_ids[row, beam, : len(text)], text)
            assert out.decode_lengths[row, beam] == len(text)
    with pytest.raises(ValueError, match="flat_beam_search: eos_id is None"):
        run(None)


def test_suffixes_follow_texts():
    texts = jnp.asarray([[0, 4, 5, 6, 0], [7, 8, 9, 0, 0]])
    suffixes = jnp.asarray([[[1, 2], [3, 0]]])
    out = suffix.concat_suffix_and_left_align(
        texts, suffixes, jnp.asarray([4, 3]), jnp.asarray([1, 2]), 2, 2, 2, 0
    )
    want = [
        [[4, 5, 6, 1, 2, 0, 0], [7, 8, 9, 1, 2, 0, 0]],
        [[4, 5, 6, 3, 0, 0, 0], [7, 8, 9, 3, 0, 0, 0]],
    ]
    np.testing.assert_array_equal(out, [want])
    with pytest.raises(ValueError, match=r"suffix_tensors has shape \(3, 2\), expected"):
        suffix.concat_suffix_and_left_align(
            texts, suffixes[0].repeat(2, 0)[:3], jnp.zeros(2, int), jnp.zeros(2, int), 2, 2, 2, 0
        )
