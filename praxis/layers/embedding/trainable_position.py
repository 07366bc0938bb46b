"""Position embeddings that are learned."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops
from praxis.layers.checks import check_sizes
from praxis.layers.embedding import lookup
from praxis.layers.embedding.position import PositionalEmbedding, positions_of_length

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class TrainablePositionalEmbedding(PositionalEmbedding):
    """One learned vector for each position.

    Shapes: S is `max_seq_length`, D is `embedding_dims`.

    Attributes:
      max_seq_length: S, at least 1: one more than the last position. Tokens.
      embedding_dims: D, at least 1. Required.
      lookup_style: 'matmul' gives zeros for positions that are not below `seq_length` of the call;
        'index' reads the last of the first `seq_length` vectors for them.
      array_lookup_tpl: Config of the op of 'index'.
      einsum_tpl: Config of the op of 'matmul'.
      min_timescale: Not read.
      max_timescale: Not read.

    Variables:
      emb_var: [S, D], sharded by `weight_split_dims_mapping.wt`

    Raises:
      ValueError: during setup, if a size is missing or `lookup_style` is unknown; in `__call__`, if
        there is neither a length nor positions, or the length is above S.
    """

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          emb_out_split_dims_mapping: Of the vectors, [B, T, D].
        """

        emb_out_split_dims_mapping: base_layer.SplitDimsMapping = None

    max_seq_length: int = 10_240
    lookup_style: str = lookup.MATMUL
    array_lookup_tpl: LayerTpl = template_field(base_ops.ArrayLookup)
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)

    def setup(self) -> None:
        check_sizes(self, "max_seq_length", "embedding_dims")
        lookup.check_style(self, self.lookup_style)
        self.create_variable(
            "emb_var",
            base_layer.WeightHParams(
                shape=[self.max_seq_length, self.embedding_dims],
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )
        self.create_child("array_lookup", self.array_lookup_tpl)
        self.create_child("einsum", self.einsum_tpl)

    def __call__(
        self, seq_length: int | None = None, position: Shaped[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Looks the vectors up.

        Args:
          seq_length: Number of positions in use, at most S; positions are below it. None: T with
            'matmul', S with 'index'. In decoding, where T is 1, pass the longest length.
          position: [B, T], tokens. None: 0 to `seq_length` - 1.

        Returns:
          [B, T, D], or [1, T, D] without `position`; in `fprop_dtype`.
        """
        if position is None:
            position = positions_of_length(self, seq_length)
        elif seq_length is None:
            in_matmul = self.lookup_style == lookup.MATMUL
            seq_length = position.shape[1] if in_matmul else self.max_seq_length
        assert seq_length is not None
        if seq_length > self.max_seq_length:
            raise ValueError(
                f"{self.path_text}: seq_length is {seq_length}, expected at most "
                f"max_seq_length = {self.max_seq_length}. Shorten the sequences, or set "
                "max_seq_length (which changes the shape of emb_var)."
            )
        vectors = lookup.lookup_rows(
            self.theta.emb_var[:seq_length],
            position.astype(jnp.int32),
            style=self.lookup_style,
            array_lookup=self.array_lookup,
            einsum=self.einsum,
        )
        return lookup.shard_rows(self, vectors)
