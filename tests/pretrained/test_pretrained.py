"""Reading weights in the layout of the Hugging Face hub, and the errors where they do not fit.

Numbers are compared with the `transformers` package by `make parity-hf`.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_gpt2 import SETTINGS, save, tensors

from praxis import base_layer, pretrained


def logits(found):
    ids = jnp.asarray([[1, 2, 3]])
    model = base_layer.instantiate(found.config)
    # Under jit, as the variables are NumPy arrays.
    run = jax.jit(lambda variables: model.apply(variables, ids, jnp.zeros(ids.shape)).logits)
    return run(found.variables)


def test_repeated_and_unrolled_models_of_a_directory_agree(tmp_path):
    save(tmp_path)
    repeated = pretrained.from_directory(tmp_path)
    unrolled = pretrained.from_directory(tmp_path, repeated=False)
    np.testing.assert_allclose(logits(repeated), logits(unrolled), rtol=2e-5, atol=2e-5)


def test_heads_come_out_of_the_combined_projection():
    given = tensors()
    found = pretrained.from_tensors(SETTINGS, given, repeated=False)
    layer = found.variables["params"]["transformer"]["x_layers_1"]["self_attention"]
    want = given["transformer.h.1.attn.c_attn.weight"].reshape(6, 3, 2, 3).transpose(1, 0, 2, 3)
    np.testing.assert_array_equal(layer["combined_qkv"]["w"], want)


def test_all_tensors_that_do_not_fit_are_named():
    given = tensors()
    del given["transformer.h.1.ln_2.bias"]
    given["transformer.ln_f.bias"] = np.zeros([5], np.float32)
    given["transformer.h.9.ln_1.bias"] = np.zeros([6], np.float32)
    with pytest.raises(ValueError, match="do not fit the model") as caught:
        pretrained.from_tensors(SETTINGS, given)
    text = str(caught.value)
    assert "the file has no tensor 'transformer.h.1.ln_2.bias'" in text
    assert "final_ln/bias: expected shape (6,), but the file gives (5,)" in text
    assert "transformer.h.9.ln_1.bias: no variable takes this tensor" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "elman"}, r"model_type = 'elman', expected one of \['bert', 'gemma'"),
        ({"n_embd": None}, "model_type 'gpt2' lacks 'n_embd'"),
        ({"activation_function": "sin"}, "activation_function = 'sin'.*'gelu'"),
        ({"scale_attn_weights": False}, "scale_attn_weights = False.*with True"),
    ],
)
def test_settings_that_cannot_be_read(change, message):
    with pytest.raises(ValueError, match=message):
        pretrained.from_tensors(SETTINGS | change, tensors())


def test_missing_files_are_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(
        FileNotFoundError, match=r"safetensors files, but there is \['config.json'\]"
    ):
        pretrained.from_directory(tmp_path)
