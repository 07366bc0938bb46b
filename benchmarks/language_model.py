"""The language model of the figures: its sizes, its batches, and Pax's program for it.

Prenorm, rotary positions, no biases in attention, ReLU, embedding and softmax shared. The other
programs for the same maths are in `by_hand`, `in_linen`, `in_nnx` and `in_equinox`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from praxis import base_layer, decoder_hparams, pax_fiddle, py_utils
from praxis.layers import embedding_softmax, models, transformer_models, transformers

NestedMap = py_utils.NestedMap


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a model and of its batches.

    Attributes:
      layers: Their number.
      width: D; F is four times as much.
      heads: N.
      vocabulary: V.
      batch: B.
      length: T.
      repeated: Whether one scan runs over the layers.
      chunk: Positions of a chunk of Pax's loss; None computes all logits at once.
      implementation: Of Pax's attention.
    """

    layers: int = 4
    width: int = 256
    heads: int = 4
    vocabulary: int = 1024
    batch: int = 4
    length: int = 128
    repeated: bool = False
    chunk: int | None = None
    implementation: str = "auto"

    @property
    def head_width(self) -> int:
        """H."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """F."""
        return 4 * self.width


def config(sizes: Sizes, decoder: Any = None) -> pax_fiddle.Config[models.LanguageModel]:
    """Pax's config of the model."""
    stack = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1 if sizes.repeated else sizes.layers,
        hidden_dims=sizes.hidden,
        num_heads=sizes.heads,
    )
    stack.transformer_layer_params_tpl.tr_atten_tpl.set(
        use_bias=False,
        combine_qkv=True,
        use_rotary_position_emb=True,
        internal_enable_per_dim_scale=False,
        implementation=sizes.implementation,
    )
    if sizes.repeated:
        stack = pax_fiddle.Config(
            transformers.StackedTransformerRepeated, block=stack, x_times=sizes.layers
        )
    lm = pax_fiddle.Config(
        transformer_models.TransformerLm,
        model_dims=sizes.width,
        vocab_size=sizes.vocabulary,
        position_emb_tpl=None,
        stacked_transformer_tpl=stack,
        softmax_tpl=pax_fiddle.Config(
            embedding_softmax.SharedEmbeddingSoftmax,
            lookup_style="index",
            chunk_size=sizes.chunk,
        ),
    )
    decoder = decoder or decoder_hparams.GreedyDecoderHParams()
    return pax_fiddle.Config(models.LanguageModel, name="model", lm_tpl=lm, decoder_tpl=decoder)


def tokens(sizes: Sizes, seed: int = 1) -> jax.Array:
    """[B, T + 1], 1 or above; the last of a row is a label only."""
    shape = (sizes.batch, sizes.length + 1)
    return jax.random.randint(jax.random.PRNGKey(seed), shape, 1, sizes.vocabulary)


def batch_of(ids: jax.Array) -> NestedMap:
    """Pax's batch of tokens, [B, T + 1], without padding."""
    weights = jnp.ones(ids[:, 1:].shape)
    return NestedMap(
        ids=ids[:, :-1], labels=ids[:, 1:], weights=weights, paddings=jnp.zeros_like(weights)
    )


def initial(model: Any, sizes: Sizes) -> Any:
    """Unboxed variables, by collection."""
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), batch_of(tokens(sizes)))
    return base_layer.maybe_unbox_value(nn.unbox(variables))


def loss_of(model: Any) -> Callable[[Any, jax.Array], jax.Array]:
    """Pax's loss of parameters, which are those of the collection, and tokens, [B, T + 1]."""

    def loss(params: Any, ids: jax.Array) -> jax.Array:
        with base_layer.JaxContext.new_context():
            (metrics, _), _ = model.apply(
                {"params": params},
                batch_of(ids),
                mutable=[base_layer.AUX_LOSS, base_layer.SUMMARIES],
                rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
            )
        return metrics.total_loss[0]

    return loss
