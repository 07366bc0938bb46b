"""What the tests of multi-query attention share: sizes, layers, inputs, masks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from praxis import base_layer, pax_fiddle
from praxis.layers import attentions, multi_query_attention

B, T, D, N, H = 2, 7, 5, 6, 4
KEY = jax.random.PRNGKey(0)
CACHE = base_layer.DECODE_CACHE
CLOSE: Any = {"rtol": 2e-5, "atol": 2e-5}
LPB = multi_query_attention.MultiQueryDotProductAttentionLPB


def build(cls: Any = multi_query_attention.MultiQueryDotProductAttention, **fields):
    fields = {"input_dim": D, "hidden_dim": N * H, "num_heads": N, **fields}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="att", **fields))


def inputs(seed=0, shape=(B, T, D)):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape))


def random_params(layer, *args):
    """Variables of the layer, all away from their first values."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: layer.init(KEY, *args)))
    keys = jax.random.split(jax.random.PRNGKey(1), len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return jax.tree.unflatten(
        tree, [0.5 * jax.random.normal(k, x.shape, x.dtype) for k, x in pairs]
    )


def apply(layer, variables, *args, **options):
    """`layer.apply` as one compiled program."""
    return jax.jit(lambda variables, args: layer.apply(variables, *args, **options))(
        variables, args
    )


def causal_keep(length=T, window=None):
    """[1, 1, T, T], in NumPy."""
    ahead = np.arange(length)[np.newaxis] - np.arange(length)[:, np.newaxis]
    keep = ahead <= 0
    if window is not None:
        keep &= (ahead >= -window[0]) & (ahead <= window[1])
    return keep[np.newaxis, np.newaxis]


def relative_bias():
    return pax_fiddle.Config(
        attentions.RelativeBias,
        relative_attention_num_buckets=6,
        relative_attention_max_distance=5,
    )
