"""Attention with positions relative to the query, as in Transformer-XL."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax
from praxis.layers.attention import children
from praxis.layers.attention.attend import Attended
from praxis.layers.attention.cache import TimeStep
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.hooks import Mask, Positions
from praxis.layers.attention.window import add_biases
from praxis.layers.checks import check_sizes

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams


def create_relative_positional_embedding(layer: Any) -> None:
    """Gives an attention layer what `relative_logits` reads. To be called in its `setup`.

    Children `pos_emb` and `pos_proj`, a projection to the heads without bias; with `use_bias` also
    variables `u` and `v`, [N, H], which start at 0.

    Args:
      layer: Has the fields of `DotProductAttention` and `rel_pos_emb_dim`.

    Raises:
      ValueError: if `rel_pos_emb_dim` is below 1.
    """
    check_sizes(layer, "rel_pos_emb_dim")
    dims = layer.rel_pos_emb_dim
    embedding = pax_fiddle.Config(embedding_softmax.PositionalEmbedding, embedding_dims=dims)
    layer.create_child("pos_emb", embedding)
    projection = children.input_projection(layer, "pos_proj", dims).set(use_bias=False)
    layer.create_child("pos_proj", projection)
    if not layer.use_bias:
        return
    split = layer.weight_split_dims_mapping.proj
    for name in ("u", "v"):
        layer.create_variable(
            name,
            WeightHParams(
                shape=[layer.num_heads, layer.head_dims],
                init=WeightInit.Constant(0.0),
                mesh_shape=layer.mesh_shape,
                tensor_split_dims_mapping=None if split is None else [split[1], split[2]],
            ),
        )


def add_content_bias(layer: Any, query: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """The queries that meet keys: `query + u`."""
    return query + layer.theta.u[jnp.newaxis, jnp.newaxis] if layer.use_bias else query


def relative_logits(
    layer: Any, query: Float[Array, "B T N H"], ahead: Int[Array, " S"]
) -> Float[Array, "B N T S"]:
    """The part of the logits that depends on the distance of query and key, `(query + v) . R`.

    Args:
      layer: On which `create_relative_positional_embedding` was called.
      query: [B, T, N, H], scaled, at successive positions.
      ahead: [S], positions of keys minus that of the first query; successive if T is above 1.

    Returns:
      [B, N, T, S].
    """
    if layer.use_bias:
        query = query + layer.theta.v[jnp.newaxis, jnp.newaxis]
    target_len = query.shape[1]
    # Position of the query minus that of the key, of all pairs: as for the first query, and for the
    # later ones farther from the first key. R is computed for T + S - 1 distances, not for T S.
    distance = jnp.concatenate([jnp.arange(target_len - 1, 0, -1) - ahead[0], -ahead])
    relative = project_distances(layer, distance)
    return skew(jnp.einsum("BTNH,LNH->BNTL", query, relative))


def project_distances(layer: Any, distance: Int[Array, " L"]) -> Float[Array, "L N H"]:
    """R, the projected embeddings of distances."""
    return layer.pos_proj(layer.pos_emb(position=distance[jnp.newaxis]))[0]


def skew(x: Shaped[Array, "B N T L"]) -> Shaped[Array, "B N T _"]:
    """Shifts row t to the left by T - 1 - t, and keeps the first L - T + 1 columns.

    Dai et al., "Transformer-XL", 2019, arXiv:1901.02860, appendix B: as a change of shape, without
    a gather.
    """
    *lead, num_rows, width = x.shape
    kept = width - num_rows + 1
    if num_rows == 1:
        return x
    flat = x.reshape(*lead, num_rows * width)[..., num_rows - 1 : -1]
    return flat.reshape(*lead, num_rows, width - 1)[..., :kept]


class DotProductAttentionXL(DotProductAttention):
    """Attention whose logits depend on the content of keys and on how far away they are.

    The logit of query i and key j is `(q_i + u) . k_j + (q_i + v) . R_(i - j)`, with queries that
    are scaled already and R the projection of sines and cosines of the distance, in places of the
    row: Dai et al., "Transformer-XL", 2019, arXiv:1901.02860, section 3.3. All logits of the second
    part are held at once.

    Shapes: N is `num_heads`, H is the width of a head, R is `rel_pos_emb_dim`.

    Attributes:
      rel_pos_emb_dim: R, width of the embedding of a distance; at least 1. Required.

    Variables:
      pos_proj/w: [R, N, H]
      u, v: [N, H], with `use_bias`
      and those of `DotProductAttention`

    Raises:
      ValueError: during setup, if `rel_pos_emb_dim` is missing.
    """

    rel_pos_emb_dim: int = 0

    def setup(self) -> None:
        super().setup()
        create_relative_positional_embedding(self)

    def _bias(
        self,
        query: Float[Array, "B T N H"],
        query_pos: Positions,
        key_pos: Positions,
        source_len: int,
    ) -> Float[Array, "..."] | None:
        bias = super()._bias(query, query_pos, key_pos, source_len)
        return add_biases(bias, relative_logits(self, query, jnp.arange(source_len)))

    def _bias_of_steps(
        self, query: Float[Array, "B T N H"], time_step: TimeStep, source_len: int
    ) -> Float[Array, "..."] | None:
        bias = super()._bias_of_steps(query, time_step, source_len)
        return add_biases(bias, relative_logits(self, query, jnp.arange(source_len) - time_step))

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        return super()._attend(add_content_bias(self, query), key, value, atten_mask, bias)

    def _attend_steps(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "b S K H"],
        value: Float[Array, "b S K H"],
        atten_mask: Shaped[Array, "..."],
        bias: Float[Array, "..."] | None,
        time_step: TimeStep,
    ) -> Attended:
        query = add_content_bias(self, query)
        return super()._attend_steps(query, key, value, atten_mask, bias, time_step)
