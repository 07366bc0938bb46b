"""N-grams of compressed embeddings, for embeddings that have no discrete tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers.bregman import ActivationType, BregmanPCA
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.ngram import (
    check_ngram_width,
    combine_with_ngrams,
    create_head_norms,
    finish_heads,
    split_heads,
)

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]

# Fields of a BregmanPCA that the layers here pass on to theirs.
PCA_FIELDS = (
    *("num_components", "activation_type", "negative_slope", "mean_beta"),
    *("coefficients_lr", "coefficients_beta", "coefficients_steps"),
    *("components_lr", "components_beta", "start_step", "end_step", "constant_lr_schedule"),
)


class BregmanCompression(base_layer.BaseLayer):
    """Compresses each head of embeddings to the coefficients of a `BregmanPCA`.

    Shapes: N is `num_heads`, H is `dim_per_head`, C is `num_components`.

    Attributes:
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      num_components: C; this and all below as in `BregmanPCA`.
      activation_type: What the embeddings come out of.
      negative_slope: Of a leaky ReLU.
      mean_beta: Weight of the mean in its moving average.
      coefficients_lr: Step size of the coefficients.
      coefficients_beta: Weight of their momentum.
      coefficients_steps: Steps for each batch.
      components_lr: Step size of the components.
      components_beta: Weight of their momentum.
      start_step: First training step that moves the components.
      end_step: The step after the last one that does. Required.
      constant_lr_schedule: Keep `components_lr`, see `BregmanPCA`.

    Variables:
      bregman_layer_{i}: as in `BregmanPCA`, for each head

    Raises:
      ValueError: during setup, if sizes are missing.
    """

    num_heads: int = 0
    dim_per_head: int = 0
    num_components: int = 0
    activation_type: ActivationType = ActivationType.IDENTITY
    negative_slope: float = 0.0
    mean_beta: float = 0.99
    coefficients_lr: float = 0.01
    coefficients_beta: float = 0.9
    coefficients_steps: int = 20
    components_lr: float = 0.01
    components_beta: float = 0.9
    start_step: int = 0
    end_step: int = 0
    constant_lr_schedule: bool = True

    def setup(self) -> None:
        check_sizes(self, "num_heads", "dim_per_head", "num_components")
        fields = {name: getattr(self, name) for name in PCA_FIELDS}
        for head in range(self.num_heads):
            pca = pax_fiddle.Config(BregmanPCA, input_dims=self.dim_per_head, **fields)
            self.create_child(f"bregman_layer_{head}", pca)

    def __call__(
        self, inputs: Float[Array, "B L ..."], paddings: Shaped[Array, "B L"] | None = None
    ) -> Float[Array, "B L N C"]:
        """Compresses embeddings.

        Args:
          inputs: [B, L, N, H] or [B, L, N * H].
          paddings: [B, L], 1 marks padding, which moves no component.

        Returns:
          [B, L, N, C], float32.
        """
        inputs = split_heads(self, inputs, self.num_heads, self.dim_per_head)
        batch, length = inputs.shape[:2]
        mask = None if paddings is None else (1 - paddings).reshape(-1)
        heads = []
        for head in range(self.num_heads):
            vectors = inputs[:, :, head].reshape(batch * length, self.dim_per_head)
            _, coefficients = getattr(self, f"bregman_layer_{head}")(vectors, mask)
            heads.append(coefficients.reshape(batch, length, self.num_components))
        return jnp.stack(heads, axis=2)


class BregmanNgrammer(base_layer.BaseLayer):
    """An n-grammer of embeddings that are compressed, not clustered: pairs are soft.

    The products of the coefficients of an embedding and of the one before it give, with a learned
    correlation, the logits of V pairs, and their softmax averages a table of V rows. Coefficients,
    and so outputs, depend on the whole batch, see `BregmanPCA`. Shapes: N is
    `num_heads`, H is `dim_per_head`, C is `num_components`, E is `ngram_emb_dim`, V is
    `ngram_vocab_size`.

    Attributes:
      ngram_vocab_size: V, at least 1.
      ngram_emb_dim: E, at least 1.
      concat_ngrams: Put pairs in the place of the last E dims of each head. False: add them; then E
        has to be H.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      num_components: C, at least 1. Required. This and all below as in `BregmanPCA`.
      activation_type: What the embeddings come out of.
      negative_slope: Of a leaky ReLU.
      mean_beta: Weight of the mean in its moving average.
      coefficients_lr: Step size of the coefficients.
      coefficients_beta: Weight of their momentum.
      coefficients_steps: Steps for each batch.
      components_lr: Step size of the components.
      components_beta: Weight of their momentum.
      start_step: First training step that moves the components.
      end_step: The step after the last one that does. Required.
      constant_lr_schedule: Keep `components_lr`, see `BregmanPCA`.

    Variables:
      correlation: [C, C, V, N]
      embedding_table: [V, E, N]
      compression_layer: as in `BregmanCompression`
      emb_layer_norm_{i}: as in `LayerNorm`, [H], for each head
      ngram_layer_norm_{i}: as in `LayerNorm`, [E], for each head

    Raises:
      ValueError: during setup, if sizes are missing or do not go together; in calls, for embeddings
        of another width.
    """

    ngram_vocab_size: int = 768 * 256
    ngram_emb_dim: int = 8
    concat_ngrams: bool = True
    num_heads: int = 0
    dim_per_head: int = 0
    num_components: int = 0
    activation_type: ActivationType = ActivationType.IDENTITY
    negative_slope: float = 0.0
    mean_beta: float = 0.99
    coefficients_lr: float = 0.01
    coefficients_beta: float = 0.9
    coefficients_steps: int = 20
    components_lr: float = 0.01
    components_beta: float = 0.9
    start_step: int = 0
    end_step: int = 0
    constant_lr_schedule: bool = True

    def setup(self) -> None:
        check_sizes(
            self,
            *("ngram_vocab_size", "ngram_emb_dim"),
            *("num_heads", "dim_per_head", "num_components"),
        )
        check_ngram_width(self)
        shared = ("num_heads", "dim_per_head", *PCA_FIELDS)
        compression = pax_fiddle.Config(
            BregmanCompression, **{name: getattr(self, name) for name in shared}
        )
        self.create_child("compression_layer", compression)
        components, vocab, heads = self.num_components, self.ngram_vocab_size, self.num_heads
        shapes = {
            "correlation": [components, components, vocab, heads],
            "embedding_table": [vocab, self.ngram_emb_dim, heads],
        }
        for name, shape in shapes.items():
            hparams = base_layer.WeightHParams(shape=shape, mesh_shape=self.mesh_shape)
            self.create_variable(name, hparams)
        for head in range(heads):
            create_head_norms(self, head, self.dim_per_head, self.ngram_emb_dim)

    def __call__(
        self,
        input_ids: Int[Array, "B L"] | None,
        input_embs: Float[Array, "B L ..."],
        paddings: Shaped[Array, "B L"] | None = None,
        merge_heads: bool = True,
        **kwargs: Any,
    ) -> Float[Array, "B L ..."]:
        """Combines embeddings with those of pairs.

        Args:
          input_ids: Not read.
          input_embs: [B, L, N * H] or [B, L, N, H].
          paddings: [B, L], 1 marks padding.
          merge_heads: Return [B, L, N * H].
          **kwargs: `segment_pos` [B, L], position of each token in its example: the first one has
            no partner. Others are not read.

        Returns:
          [B, L, N * H], or [B, L, N, H]; zeros at the padding.
        """
        del input_ids
        embs = split_heads(self, input_embs, self.num_heads, self.dim_per_head)
        coefficients = self.compression_layer(embs, paddings)  # [B, L, N, C]
        coefficients = coefficients.astype(embs.dtype)
        previous = jnp.pad(coefficients, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        segment_pos = kwargs.get("segment_pos")
        if segment_pos is not None:
            is_first = (segment_pos == 0)[:, :, jnp.newaxis, jnp.newaxis]
            previous = jnp.where(is_first, jnp.zeros_like(previous), previous)
        logits = jnp.einsum("BLNI,BLNJ,IJVN->BLNV", previous, coefficients, self.theta.correlation)
        pairs = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(embs.dtype)
        ngrams = jnp.einsum("BLNV,VEN->BLNE", pairs, self.theta.embedding_table)
        outputs = [
            combine_with_ngrams(
                getattr(self, f"emb_layer_norm_{head}")(embs[:, :, head]),
                getattr(self, f"ngram_layer_norm_{head}")(ngrams[:, :, head]),
                self.concat_ngrams,
            )
            for head in range(self.num_heads)
        ]
        return finish_heads(outputs, paddings, merge_heads)
