"""Losses chunk by chunk equal those of all positions at once, and take less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import largest_array, temporary_bytes

from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax

B, T, D, V = 2, 11, 3, 7
KEY = jax.random.PRNGKey(0)
GSHARD = embedding_softmax.GShardSharedEmbeddingSoftmax
SHARED = embedding_softmax.SharedEmbeddingSoftmax


def build(cls, **fields):
    return pax_fiddle.build(
        pax_fiddle.Config(cls, name="softmax", **{"input_dims": D, "num_classes": V, **fields})
    )


def example(length=T, width=D, num_classes=V):
    rng = np.random.default_rng(0)
    x = rng.standard_normal([B, length, width]).astype(np.float32)
    weights = rng.integers(0, 3, [B, length, 1]).astype(np.float32)
    ids = rng.integers(0, num_classes, [B, length, 1]).astype(np.int32)
    return jnp.asarray(x), jnp.asarray(weights), jnp.asarray(ids)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label_smoothing_prob": 0.2, "z_loss_weight": 0.1, "soft_cap_logits": 2.0},
        {"logits_abs_max": 0.5, "use_tgt_labels_size_as_loss_denominator": False},
    ],
    ids=["plain", "smoothed", "clipped"],
)
def test_gshard_in_chunks_equals_the_whole(fields):
    """T = 11 is no multiple of 4; outputs, auxiliary losses, summaries and gradients."""
    args, results = example(), []
    for chunk_size in (None, 4):
        layer = build(GSHARD, chunk_size=chunk_size, **fields)
        variables = layer.init(KEY, *args)

        def loss(params, layer=layer):
            outputs, updated = layer.apply(
                {"params": params}, *args, mutable=["aux_loss", "summaries"]
            )
            (aux,) = (x.value for x in updated["aux_loss"].values())
            return outputs.avg_xent + aux, (outputs, updated["summaries"])

        with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams()):
            result = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        outputs = result[0][1][0]
        for name in ("logits", "log_probs"):
            assert (outputs[name] is None) == (chunk_size is not None)
            outputs[name] = None
        results.append((variables["params"], result))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)  # noqa: E731
    jax.tree.map(close, *results)


def test_a_chunk_has_at_least_one_position():
    with pytest.raises(ValueError, match=r"'softmax'.*chunk_size is 0, expected at least 1"):
        build(GSHARD, chunk_size=0).init(KEY, *example())


@pytest.mark.parametrize("cls", [SHARED, GSHARD], ids=["shared", "gshard"])
@pytest.mark.optimized
def test_the_logits_of_all_positions_never_exist(cls):
    """Neither in the forward nor in the backward pass, with all that a loss can have."""
    num_classes, chunk_size, sizes = 1021, 64, []
    for length in (512, 1024):
        layer = build(
            cls,
            num_classes=num_classes,
            chunk_size=chunk_size,
            label_smoothing_prob=0.1,
            z_loss_weight=0.1,
            soft_cap_logits=30.0,
        )
        args = example(length, num_classes=num_classes)
        params = layer.init(KEY, *args)["params"]

        def loss(params, x, layer=layer, args=args):
            outputs, updated = layer.apply({"params": params}, x, *args[1:], mutable=["aux_loss"])
            return outputs.avg_xent + sum(x.value for x in updated["aux_loss"].values())

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, args[0]).compile()
        assert largest_array(compiled) <= B * chunk_size * num_classes
        sizes.append(temporary_bytes(compiled))
    # Twice the positions add nothing over the classes: some numbers for each position alone.
    assert sizes[1] - sizes[0] < 512 * B * 100
