"""Greedy decoding of a model whose logits are a table: known outputs for known settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle, py_utils
from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.options import ControlledDecodingHParams
from praxis.decoding.sample import greedy_decode, sample_decode
from praxis.decoding.samplers import BaseNextTokenSampler, DefaultNextTokenSampler

EOS, VOCAB = 2, 8


class Successor(base_layer.BaseLayer):
    """Says that token i is followed by token i + 1, which wraps around at the vocabulary."""

    def fprop(self, ids):
        self.update_decode_state("seen", jnp.zeros(ids.shape, jnp.int32))
        self.update_decode_state("time_step", jnp.zeros([], jnp.int32))

    def extend_step(self, ids):
        step = self.get_decode_state("time_step")
        self.update_decode_state("time_step", step + 1)
        return jax.nn.one_hot((ids + 1) % VOCAB, VOCAB) * 9.0

    def transform_decode_state(self, fn):
        self.update_decode_state("seen", fn(self.get_decode_state("seen"), 0, 1))


def run(decode=greedy_decode, *, prefixes, **fields):
    width = max(map(len, prefixes))
    ids = jnp.asarray([row + [0] * (width - len(row)) for row in prefixes], jnp.int32)
    lengths = np.array([len(row) for row in prefixes])
    paddings = jnp.asarray(np.arange(width)[None] >= lengths[:, None], jnp.float32)
    model = pax_fiddle.build(pax_fiddle.Config(Successor, name="model"))

    def body(model):
        return decode(
            model,
            lambda model, ids, pos: model.extend_step(ids),
            prefix_ids=ids,
            prefix_paddings=paddings,
            fprop_fn=lambda model, ids, paddings: model.fprop(ids[:, :1]),
            transform_state_fn=lambda model, fn: model.transform_decode_state(fn),
            **fields,
        )

    rngs = {"random": jax.random.PRNGKey(0)}
    return model.apply({}, method=body, mutable=[base_layer.DECODE_CACHE], rngs=rngs)[0]


def test_rows_end_by_themselves_and_the_end_counts():
    """An end inside the prefix is ignored; behaviour 28."""
    out = run(prefixes=[[5, 6], [3], [2, 0]], seq_len=6, eos_id=EOS)
    np.testing.assert_array_equal(
        out.output_ids[:, 0], [[5, 6, 7, 0, 1, 2], [3, 4, 5, 6, 7, 0], [2, 0, 1, 2, 0, 0]]
    )
    np.testing.assert_array_equal(out.decode_lengths[:, 0], [6, 6, 4])
    assert out.original_lengths.dtype == jnp.int32
    logprobs = np.asarray(out.logprobs[2, 0])
    assert (logprobs[[0, 4, 5]] == 1.0).all() and (logprobs[1:4] <= 0.0).all()


def test_several_end_tokens_and_max_decode_steps():
    out = run(prefixes=[[5], [0]], seq_len=7, eos_id=[EOS, 7])
    np.testing.assert_array_equal(out.decode_lengths[:, 0], [3, 3])
    out = run(prefixes=[[5], [3, 4]], seq_len=7, eos_id=EOS, max_decode_steps=2)
    np.testing.assert_array_equal(out.decode_lengths[:, 0], [3, 4])
    np.testing.assert_array_equal(
        out.output_ids[:, 0], [[5, 6, 7, 0, 0, 0, 0], [3, 4, 5, 6, 0, 0, 0]]
    )


def test_stop_sequence_of_each_row():
    stops = jnp.array([[0, 7, 0], [5, 6, 7]])
    out = run(prefixes=[[5], [4]], seq_len=7, eos_id=stops)
    np.testing.assert_array_equal(out.decode_lengths[:, 0], [4, 4])


def test_sampler_and_constraint_of_users():
    class Counting(BaseNextTokenSampler):
        """Takes the most likely token, and counts its calls."""

        def init_decode_loop_state(
            self, decode_loop_state, model=None, batch_size=None, eos_id=None
        ):
            decode_loop_state.calls = jnp.zeros([batch_size], jnp.int32)
            return decode_loop_state

        def __call__(self, model, logits, temperature, decode_loop_state):
            ids = jnp.argmax(logits, -1).astype(jnp.int32)
            return py_utils.NestedMap(new_ids=ids, logits=logits, calls=decode_loop_state.calls + 1)

        def post_process_decode_loop_state(self, decode_loop_state):
            decode_loop_state.calls *= 10
            return decode_loop_state

    class AtSeven(BaseSampleTerminationConstraint):
        """Ends rows that are to obey at token 7."""

        def __call__(self, enforce_sample_constraints, decode_loop_state):
            new = decode_loop_state.output_ids[:, decode_loop_state.step]
            return decode_loop_state.done | (enforce_sample_constraints & (new == 7))

    out = run(
        sample_decode,
        prefixes=[[4], [4]],
        seq_len=6,
        eos_id=EOS,
        num_samples=2,
        next_token_sampler=Counting(),
        lazy_broadcast_prefix_fn=None,
        sample_constraint=AtSeven(),
        enforce_sample_constraints=jnp.array([True, False]),
        process_result_fn=lambda model, result: result | {"name": model.name},
    )
    np.testing.assert_array_equal(out.decode_lengths, [[4, 4], [6, 6]])
    np.testing.assert_array_equal(out.calls, [[50, 50], [50, 50]])
    assert out.name == "model"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"sample_constraint": BaseSampleTerminationConstraint()},
            ValueError,
            "sample_constraint and enforce_sample_constraints go together",
        ),
        ({"optimize_eos": True}, ValueError, "optimize_eos = True needs eos_id"),
        (
            {"cf_guidance_scale": [2.0]},
            ValueError,
            "the batch has 1 rows, but cf_guidance_scale needs pairs",
        ),
        (
            {"lazy_broadcast_prefix_fn": lambda *_: None},
            ValueError,
            "lazy_broadcast_prefix_fn needs fprop_for_prefix = True",
        ),
        (
            {
                "controlled_decoding": ControlledDecodingHParams(interval=0),
                "fprop_for_prefix": True,
            },
            ValueError,
            "controlled_decoding.interval is 0, expected at least 1",
        ),
        (
            {
                "controlled_decoding": ControlledDecodingHParams(2, 3),
                "max_decode_steps": [2, 4],
                "fprop_for_prefix": True,
            },
            ValueError,
            r"controlled_decoding needs max_decode_steps to be an int.*got \[2, 4\]",
        ),
    ],
)
def test_refused_settings(fields, error, message):
    with pytest.raises(error, match=message):
        run(
            sample_decode,
            prefixes=[[4]],
            seq_len=6,
            num_samples=1,
            next_token_sampler=DefaultNextTokenSampler(top_k=1),
            **{"lazy_broadcast_prefix_fn": None} | fields,
        )
