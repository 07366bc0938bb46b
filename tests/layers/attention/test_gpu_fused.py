"""Attention layers with a kernel for GPUs; on a CPU, their fallback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, base_ops, gpu_fast_attention
from praxis.layers.attention.mask_spec import AttentionMask

B, T, D, N, H = 2, 5, 6, 3, 4
KEY = jax.random.PRNGKey(0)
FUSED = gpu_fast_attention.GpuCudnnFusedDotProductAttention


def build(cls: type[base_layer.BaseLayer] = FUSED, **fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="att", **fields))


def row(seed=0):
    return jnp.float32(np.random.default_rng(seed).standard_normal((B, T, D)))


PADDINGS = jnp.zeros([B, T]).at[1, 3:].set(1.0)
PADDED = attentions.convert_paddings_to_mask(PADDINGS)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_masks_are_honoured(is_causal, lazy):
    """6.10, improved: padding is hidden, besides later keys; the numbers are the plain layer's."""
    x, fast, plain = row(), build(is_causal=is_causal), build(attentions.DotProductAttention)
    mask = attentions.merge_masks(PADDED, attentions.causal_mask(x)) if is_causal else PADDED
    variables = plain.init(KEY, x, x, x, mask)
    expected, _ = plain.apply(variables, x, x, x, mask)
    given = PADDED
    if lazy:
        given = AttentionMask(target_len=T, source_len=T, key_paddings=PADDINGS)
    out, probs = fast.apply(variables, x, x, x, given)
    assert probs is None
    valid = PADDINGS[..., None] == 0
    np.testing.assert_allclose(out * valid, expected * valid, rtol=2e-5, atol=2e-5)


def test_dropout_is_refused_in_training_alone():
    x, layer = row(), build(atten_dropout_prob=0.5)
    with pytest.raises(
        NotImplementedError, match=r"atten_dropout_prob = 0\.5 in training: a fused"
    ):
        layer.init({"params": KEY, "random": KEY}, x, x, x, PADDED)
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=True)):
        out, _ = layer.init_with_output(KEY, x, x, x, PADDED)[0]
    assert out.shape == x.shape


class OtherEinsum(base_ops.EinsumOp):
    """An einsum that is injected."""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("atten_logit_cap", 2.0),
        ("attention_extra_logit", 0.0),
        ("qk_einsum_tpl", pax_fiddle.Config(OtherEinsum)),
    ],
    ids=["atten_logit_cap", "attention_extra_logit", "qk_einsum_tpl"],
)
def test_what_a_kernel_does_not_compute_is_refused_by_name(field, value):
    x = row()
    message = f"GpuCudnnFusedDotProductAttention 'att': {field} is set, which a fused kernel"
    with pytest.raises(ValueError, match=message):
        build(**{field: value}).init(KEY, x, x, x, PADDED)
