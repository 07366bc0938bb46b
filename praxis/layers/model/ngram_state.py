"""N-grams of input tokens in decoding: a step needs the token before it."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Integer, Shaped

from praxis import base_layer

# Decode states, each [B, 1, ...]: the last token, its embedding, and its position in its example.
IDS, EMBS, POSITIONS = "ngrammer_prefix", "ngrammer_prefix_emb", "ngrammer_prefix_segment_pos"
STATES = (IDS, EMBS, POSITIONS)


def set_in_layers(layer: Any, field: str, stack: Any) -> None:
    """Fills a field with one n-grammer for each layer into the config of a stack, if it is set.

    Raises:
      ValueError: if it has another length.
    """
    templates = getattr(layer, field)
    if templates is None:
        return
    if len(templates) != stack.num_layers:
        raise ValueError(
            f"{layer.path_text}: {field} has {len(templates)} entries, expected one for each of "
            f"the num_layers = {stack.num_layers} layers of the stack; None for a layer without."
        )
    stack.ngrammer_tpls = list(templates)


def embed_sequence(
    ngrammer: Any,
    table: Any,
    tokens: Int[Array, "B T"],
    embs: Float[Array, "B T D"],
    paddings: Shaped[Array, "B T"] | None,
    positions: Integer[Array, "B T"] | None,
) -> Float[Array, "B T D"]:
    """Embeddings with n-grams.

    Args:
      ngrammer: The layer that adds them.
      table: The layer that gave the embeddings.
      tokens: [B, T].
      embs: [B, T, D], their embeddings.
      paddings: [B, T], 1 marks padding.
      positions: [B, T], of each token in its example; None: each row is one example.
    """
    extra = {}
    if getattr(ngrammer, "reads_emb_var", False) and not ngrammer.do_eval:
        extra["emb_var"] = table.emb_lookup(jnp.arange(ngrammer.unigram_vocab_size))
    return ngrammer(
        input_ids=tokens, input_embs=embs, paddings=paddings, segment_pos=positions, **extra
    )


def store(
    layer: base_layer.BaseLayer,
    tokens: Int[Array, "B T"],
    embs: Float[Array, "B T D"],
    positions: Integer[Array, "B T"] | None,
    next_step: int | Int[Array, ""],
) -> None:
    """Keeps what is before `next_step`; a first step has no token before it, which its position 0
    tells.
    """  # noqa: D205
    if not layer.is_mutable_collection(base_layer.DECODE_CACHE):
        return
    if positions is None:
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[jnp.newaxis]
        positions = jnp.broadcast_to(positions, tokens.shape)
    last = jnp.clip(jnp.asarray(next_step, jnp.int32) - 1, 0, tokens.shape[1] - 1)
    for name, sequence in zip(STATES, (tokens, embs, positions), strict=True):
        layer.update_decode_state(name, lax.dynamic_slice_in_dim(sequence, last, 1, axis=1))


def extend(
    layer: base_layer.BaseLayer,
    ngrammer: Any,
    tokens: Int[Array, "B L"],
    embs: Float[Array, "B L D"],
    positions: Integer[Array, "B L"],
) -> Float[Array, "B L D"]:
    """Adds n-grams to one decoding step or several, and keeps the last one."""
    new = dict(zip(STATES, (tokens, embs, positions), strict=True))
    with_previous = {}
    for name, x in new.items():
        state = layer.get_decode_state(name)
        with_previous[name] = jnp.concatenate([state, x.astype(state.dtype)], axis=1)
        layer.update_decode_state(name, with_previous[name][:, -1:])
    outputs = ngrammer(
        input_ids=with_previous[IDS],
        input_embs=with_previous[EMBS],
        segment_pos=with_previous[POSITIONS],
    )
    return outputs[:, 1:]


def transform(layer: base_layer.BaseLayer, transform_fn: base_layer.DecodeStateTransformFn) -> None:
    """Applies a function to the states, which have no axis of time: time_dim is -1."""
    for name in STATES:
        layer.update_decode_state(name, transform_fn(layer.get_decode_state(name), 0, -1))


def repeat(layer: base_layer.BaseLayer, num_samples: int) -> None:
    """Repeats the states for each sample, so that the samples of a row are neighbours."""
    transform(layer, lambda x, batch_dim, _: jnp.repeat(x, num_samples, axis=batch_dim))
