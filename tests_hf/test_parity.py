"""Models of the `transformers` package against the same weights read by `praxis.pretrained`.

Each case makes a tiny random model, saves it as a user would find it on the hub, reads the files,
and compares logits (1e-4, float32) and 32 greedy tokens.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf

from praxis import base_layer, decoder_hparams, pax_fiddle, pretrained, py_utils
from praxis.layers import models

PROMPT_LEN, NEW_TOKENS, VOCAB = 11, 32, 61
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

CAUSAL = {
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=VOCAB, n_embd=24, n_head=4, n_layer=3, n_positions=64, bos_token_id=None,
            eos_token_id=None,
        )
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TINY, num_key_value_heads=4)),
    "llama_grouped_tied": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**TINY, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=500.0)
    ),
    "gemma_multi_query": lambda: hf.GemmaForCausalLM(
        hf.GemmaConfig(**TINY, num_key_value_heads=1, head_dim=10)
    ),
    "mistral_window": lambda: hf.MistralForCausalLM(
        hf.MistralConfig(**TINY, num_key_value_heads=2, sliding_window=7)
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**TINY, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    ),
}  # fmt: skip


def scatter(model):
    """Random weights of a size that makes each layer count, scales and biases too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            one = 1.0 if "norm" in name.lower() or ".ln_" in name else 0.0
            weight.copy_(one + noise * (0.2 if weight.ndim == 1 else 0.25))
    return model.eval()


@functools.cache
def tokens():
    return np.random.default_rng(0).integers(1, VOCAB, [2, PROMPT_LEN])


def read(model, folder, **kwargs):
    model.save_pretrained(folder)
    return pretrained.from_directory(folder, **kwargs)


def logits_of(found, ids):
    model = base_layer.instantiate(found.config)
    paddings = jnp.zeros(ids.shape, jnp.float32)
    run = jax.jit(lambda variables, ids: model.apply(variables, ids, paddings).logits)
    return run(found.variables, jnp.asarray(ids, jnp.int32))


def greedy(found, prompt):
    task = pax_fiddle.Config(models.LanguageModel, name="task", lm_tpl=found.config)
    seq_len = PROMPT_LEN + NEW_TOKENS
    task.decoder_tpl = pax_fiddle.Config(
        decoder_hparams.GreedyDecoderHParams, seqlen=seq_len, max_decode_steps=NEW_TOKENS,
        fprop_for_prefix=True, eos_id=-1,
    )  # fmt: skip
    batch = py_utils.NestedMap(
        ids=jnp.asarray(prompt, jnp.int32),
        paddings=jnp.zeros(prompt.shape, jnp.float32),
        prefix_lengths=jnp.full([prompt.shape[0]], PROMPT_LEN, jnp.int32),
    )
    variables = {"params": {"lm": found.variables["params"]}}
    return decode(base_layer.instantiate(task), variables, batch)[:, 0, PROMPT_LEN:]


def decode(model, variables, batch):
    """What the model generates, [B, samples, T]."""

    @jax.jit
    def run(variables, batch):
        with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
            (_, out, _), _ = model.apply(
                variables, batch, method=model.decode, mutable=[base_layer.DECODE_CACHE],
                rngs={"random": jax.random.key(0)},
            )  # fmt: skip
        return dict(out)["output_ids"]

    return np.asarray(run(variables, batch))


@pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "unrolled"])
@pytest.mark.parametrize("name", CAUSAL)
def test_logits_agree(name, repeated, tmp_path):
    model = scatter(CAUSAL[name]())
    found = read(model, tmp_path, repeated=repeated)
    with torch.no_grad():
        want = model(torch.tensor(tokens())).logits.numpy()
    np.testing.assert_allclose(logits_of(found, tokens()), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_continuations_are_equal(name, tmp_path):
    model = scatter(CAUSAL[name]())
    found = read(model, tmp_path)
    with torch.no_grad():
        want = model.generate(
            torch.tensor(tokens()), max_new_tokens=NEW_TOKENS, do_sample=False,
            attention_mask=torch.ones([2, PROMPT_LEN], dtype=torch.long),
        ).numpy()[:, PROMPT_LEN:]  # fmt: skip
    np.testing.assert_array_equal(greedy(found, tokens()), want)


ENCODER_DECODER = {
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=VOCAB, d_model=24, d_kv=6, d_ff=40, num_layers=3, num_heads=4,
            relative_attention_num_buckets=8, relative_attention_max_distance=16,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=None,
        )
    ),
    "t5_gated_untied": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=VOCAB, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_decoder_layers=3,
            num_heads=3, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=None,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "unrolled"])
@pytest.mark.parametrize("name", ENCODER_DECODER)
def test_encoder_decoder_logits_agree(name, repeated, tmp_path):
    model = scatter(ENCODER_DECODER[name]())
    found = read(model, tmp_path, repeated=repeated)
    source, target = tokens(), tokens()[:, ::-1][:, :9].copy()
    with torch.no_grad():
        want = model(input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target))
    paxed = base_layer.instantiate(found.config)
    got = jax.jit(paxed.apply)(
        found.variables, jnp.asarray(source), jnp.zeros(source.shape, jnp.float32),
        jnp.asarray(target), jnp.zeros(target.shape, jnp.float32),
    ).logits  # fmt: skip
    np.testing.assert_allclose(got, want.logits.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "unrolled"])
def test_bert_logits_agree_with_padding_and_two_sentences(repeated, tmp_path):
    model = scatter(hf.BertForMaskedLM(hf.BertConfig(**TINY, type_vocab_size=2)))
    found = read(model, tmp_path, repeated=repeated)
    ids = tokens()
    paddings = np.zeros(ids.shape, np.float32)
    paddings[1, 8:] = 1
    types = (np.arange(PROMPT_LEN)[np.newaxis] >= np.array([[4], [6]])).astype(np.int32)
    with torch.no_grad():
        want = model(
            torch.tensor(ids),
            attention_mask=torch.tensor(1 - paddings),
            token_type_ids=torch.tensor(types, dtype=torch.long),
        ).logits.numpy()
    paxed = base_layer.instantiate(found.config)
    got = jax.jit(paxed.apply)(
        found.variables, jnp.asarray(ids), jnp.asarray(paddings), token_type_ids=jnp.asarray(types)
    ).logits
    real = paddings == 0
    np.testing.assert_allclose(got[real], want[real], rtol=1e-4, atol=1e-4)


def test_encoder_decoder_greedy_continuations_are_equal(tmp_path):
    model = scatter(ENCODER_DECODER["t5"]())
    found = read(model, tmp_path)
    with torch.no_grad():
        want = model.generate(
            torch.tensor(tokens()), max_new_tokens=NEW_TOKENS, do_sample=False,
            attention_mask=torch.ones([2, PROMPT_LEN], dtype=torch.long),
        ).numpy()[:, 1:]  # fmt: skip
    task = pax_fiddle.Config(models.SequenceModel, name="task", model_tpl=found.config)
    task.decoder_tpl = pax_fiddle.Config(
        decoder_hparams.GreedyDecoderHParams, seqlen=NEW_TOKENS + 1, eos_id=-1
    )
    starts = jnp.zeros([2, NEW_TOKENS + 1], jnp.int32)
    batch = py_utils.NestedMap(
        src=py_utils.NestedMap(
            ids=jnp.asarray(tokens(), jnp.int32), paddings=jnp.zeros([2, PROMPT_LEN])
        ),
        tgt=py_utils.NestedMap(
            ids=starts, labels=starts, weights=jnp.ones(starts.shape),
            paddings=jnp.zeros(starts.shape),
        ),
    )  # fmt: skip
    variables = {"params": {"model": found.variables["params"]}}
    out = decode(base_layer.instantiate(task), variables, batch)
    np.testing.assert_array_equal(out[:, 0, 1:], want)
