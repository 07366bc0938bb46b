"""N-grams of clusters, for embeddings whose tokens are too many to pair, or not known."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.ngram import Ngrammer, check_ngram_width, split_heads
from praxis.layers.embedding.vector_quantization import (
    VectorQuantization,
    normalise,
    squared_distances,
)

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def partners_by_attention(
    scores: Float[Array, "B N T S"],
    positions: Shaped[Array, " T"],
    causal: bool,
) -> Int[Array, "B T N"]:
    """Index of the other key that each query attends to most; S if it attends to no other.

    Args:
      scores: [B, N, T, S], attention probabilities.
      positions: [T], index of each query among the keys.
      causal: Whether only earlier keys count.
    """
    keys = jnp.arange(scores.shape[-1])[jnp.newaxis]  # [1, S]
    queries = positions[:, jnp.newaxis]  # [T, 1]
    counts = keys < queries if causal else keys != queries
    others = jnp.where(counts[jnp.newaxis, jnp.newaxis], scores, 0.0)
    best = jnp.argmax(others, axis=-1).astype(jnp.int32)
    partner = jnp.where(jnp.max(others, axis=-1) > 0, best, scores.shape[-1])
    return jnp.swapaxes(partner, 1, 2)


class VQNgrammer(base_layer.BaseLayer):
    """An `Ngrammer` of clusters: each head of an embedding is the token of its nearest centroid.

    Roy et al., "N-Grammer: Augmenting Transformers with latent n-grams", 2022, arXiv:2207.06366.
    The clusters of input tokens can be cached, so that evaluation needs no distances. After an
    attention, pairs can be those that attend to each other, see `ngram_using_attention_scores`.
    Shapes: N is `num_heads`, H is `dim_per_head`, K is `num_clusters`, V is `unigram_vocab_size`.

    Attributes:
      num_clusters: K, at least 1. Required.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      ngram_vocab_size: As in `Ngrammer`.
      ngram_emb_dim: As in `Ngrammer`.
      concat_ngrams: As in `Ngrammer`.
      decay: As in `VectorQuantization`.
      epsilon: As in `VectorQuantization`.
      prenormalize: As in `VectorQuantization`.
      unigram_vocab_size: V, more than each input token, to cache their clusters; 0 for no cache.
      use_cached_input_ids_to_cluster_ids: In evaluation, take clusters from the cache.
      enable_cache_updates: In training, cache the clusters of the tokens of the batch.
      full_update_cache_frequency: Number of training steps between updates of the clusters of all
        tokens, from the first step; 0 for none. They need `emb_var`.
      full_update_cache_steps: Further steps of such updates, from 0.
      ngram_using_attention_scores: Pair each token with the other one that it attends to most, not
        with the one before it.
      causal_attention: With that, only earlier tokens count.

    Variables:
      vq_layer: as in `VectorQuantization`
      ngram_layer: as in `Ngrammer`
      input_id_to_cluster_id_cache: [V, N], int32; not trainable
      count: [], int32, training steps, for full updates; not trainable

    Raises:
      ValueError: during setup, if sizes are missing or options do not go together; in calls, if
        an input that the options need is missing.
    """

    ngram_vocab_size: int = 768 * 256
    unigram_vocab_size: int = 0
    ngram_emb_dim: int = 8
    concat_ngrams: bool = False
    num_clusters: int = 0
    num_heads: int = 0
    dim_per_head: int = 0
    decay: float = 0.999
    epsilon: float = 1e-6
    prenormalize: bool = False
    ngram_using_attention_scores: bool = False
    causal_attention: bool = True
    use_cached_input_ids_to_cluster_ids: bool = False
    enable_cache_updates: bool = True
    full_update_cache_frequency: int = 0
    full_update_cache_steps: tuple[int, ...] = ()

    def setup(self) -> None:
        check_sizes(self, "num_clusters", "num_heads", "dim_per_head", "ngram_emb_dim")
        check_ngram_width(self)
        needing_a_cache = (
            "use_cached_input_ids_to_cluster_ids",
            "full_update_cache_frequency",
            "full_update_cache_steps",
        )
        for field in needing_a_cache:
            if getattr(self, field) and not self.unigram_vocab_size:
                raise ValueError(
                    f"{self.path_text}: {field} = {getattr(self, field)!r} needs the cache of "
                    "clusters. Set unigram_vocab_size to the number of input tokens."
                )
        self.create_child("vq_layer", self._clusters_config())
        self.create_child("ngram_layer", self._ngrams_config())
        if self.unigram_vocab_size:
            self._create_counts("input_id_to_cluster_id_cache", self._cache_shape)
        if self.reads_emb_var:
            self._create_counts("count", [])

    @property
    def _cache_shape(self) -> list[int]:
        return [self.unigram_vocab_size, self.num_heads]

    @property
    def reads_emb_var(self) -> bool:
        """Whether calls in training read `emb_var`, the embeddings of all tokens."""
        return bool(self.full_update_cache_frequency or self.full_update_cache_steps)

    def _clusters_config(self) -> LayerTpl:
        return pax_fiddle.Config(
            VectorQuantization,
            num_clusters=self.num_clusters,
            num_heads=self.num_heads,
            dim_per_head=self.dim_per_head,
            decay=self.decay,
            epsilon=self.epsilon,
            prenormalize=self.prenormalize,
        )

    def _ngrams_config(self) -> LayerTpl:
        """The config of the n-grams of clusters; quantized layers replace it."""
        config = pax_fiddle.Config(
            Ngrammer,
            ngram_vocab_size=self.ngram_vocab_size,
            unigram_vocab_size=self.num_clusters,
            ngram_emb_dim=self.ngram_emb_dim,
            concat_ngrams=self.concat_ngrams,
            num_heads=self.num_heads,
            dim_per_head=self.dim_per_head,
        )
        config.weight_split_dims_mapping.wt = self.weight_split_dims_mapping.wt
        return config

    def _create_counts(self, name: str, shape: list[int]) -> None:
        hparams = base_layer.WeightHParams(
            shape=shape,
            dtype=jnp.int32,
            init=base_layer.WeightInit.Constant(0),
            mesh_shape=self.mesh_shape,
        )
        self.create_variable(name, hparams, trainable=False)

    def __call__(
        self,
        input_ids: Int[Array, "B L"] | None,
        input_embs: Float[Array, "B L ..."],
        paddings: Shaped[Array, "B L"] | None = None,
        segment_pos: Int[Array, "B L"] | None = None,
        merge_heads: bool = True,
        attention_scores: Float[Array, "B N L L"] | None = None,
        emb_var: Float[Array, "V _"] | None = None,
        check_time_step_zero: bool = False,
        attention_score: Float[Array, "B N L L"] | None = None,
    ) -> Float[Array, "B L ..."]:
        """Combines embeddings with those of pairs of clusters.

        Args:
          input_ids: [B, L], tokens, for the cache of their clusters; or None.
          input_embs: [B, L, N * H] or [B, L, N, H].
          paddings: [B, L], 1 marks padding.
          segment_pos: [B, L], position of each token in its example; None: there is one example.
          merge_heads: Return [B, L, N * H].
          attention_scores: [B, N, L, L], probabilities, for `ngram_using_attention_scores`.
          emb_var: [V, N * H], embeddings of all tokens, for full updates of the cache.
          check_time_step_zero: Not read: `segment_pos` tells where an example begins.
          attention_score: Another name of `attention_scores`.

        Returns:
          [B, L, N * H], or [B, L, N, H]; zeros at the padding.
        """
        del check_time_step_zero
        embs = split_heads(self, input_embs, self.num_heads, self.dim_per_head)
        pair_ids = None
        if self.ngram_using_attention_scores:
            scores = self._given_scores(attention_scores, attention_score)
            positions = jnp.arange(embs.shape[1])
            pair_ids = partners_by_attention(scores, positions, self.causal_attention)
        return self.ngram_layer(
            self._clusters_of(input_ids, embs, paddings, emb_var),
            embs,
            paddings=paddings,
            segment_pos=segment_pos,
            merge_heads=merge_heads,
            pair_ids=pair_ids,
        )

    def _given_scores(
        self, scores: Float[Array, "..."] | None, alias: Float[Array, "..."] | None
    ) -> Float[Array, "..."]:
        given = alias if scores is None else scores
        if given is None:
            raise ValueError(
                f"{self.path_text}: attention_scores is None, but ngram_using_attention_scores = "
                "True pairs tokens by them. Use this layer after an attention that returns its "
                "probabilities, or unset the field."
            )
        return given

    def _clusters_of(
        self,
        input_ids: Int[Array, "B L"] | None,
        embs: Float[Array, "B L N H"],
        paddings: Shaped[Array, "B L"] | None,
        emb_var: Float[Array, "V _"] | None,
    ) -> Int[Array, "B L N"]:
        """The clusters of tokens, by distance or from the cache, which training updates."""
        cached_ids = input_ids if self.unigram_vocab_size > 0 else None
        reads_cache = self.use_cached_input_ids_to_cluster_ids and self.do_eval
        if cached_ids is not None and reads_cache:
            clusters = self.get_var("input_id_to_cluster_id_cache")[cached_ids]
        else:
            distances, _ = self.vq_layer(embs, paddings)
            clusters = jnp.argmin(distances, axis=-1).astype(jnp.int32)
            if cached_ids is not None and self.enable_cache_updates and not self.do_eval:
                self._update_cache(cached_ids, clusters, emb_var)
        if paddings is not None:
            clusters = jnp.where((paddings == 0)[..., jnp.newaxis], clusters, 0)
        return clusters

    def _update_cache(
        self,
        input_ids: Int[Array, "B L"],
        clusters: Int[Array, "B L N"],
        emb_var: Float[Array, "V _"] | None,
    ) -> None:
        """Caches the clusters of the tokens of a batch; or of all tokens, where it is time."""
        cache = self.get_var("input_id_to_cluster_id_cache")
        of_batch = cache.at[input_ids].set(clusters)
        if not self.reads_emb_var:
            self.update_var("input_id_to_cluster_id_cache", of_batch)
            return
        if emb_var is None:
            raise ValueError(
                f"{self.path_text}: emb_var is None, but full updates of the cache of clusters "
                "read it. Pass the embeddings [V, N * H] of all tokens, or set "
                "full_update_cache_frequency to 0 and full_update_cache_steps to ()."
            )
        count = self.get_var("count")
        new = lax.cond(
            self._is_full_update(count),
            lambda: self._clusters_of_table(lax.stop_gradient(emb_var)),
            lambda: of_batch,
        )
        self.update_var("input_id_to_cluster_id_cache", new)
        self.update_var("count", count + 1)

    def _is_full_update(self, count: Int[Array, ""]) -> Bool[Array, ""]:
        due = jnp.any(count == jnp.asarray(self.full_update_cache_steps, jnp.int32))
        if self.full_update_cache_frequency:
            due |= count % self.full_update_cache_frequency == 0
        return due

    def _clusters_of_table(self, emb_var: Float[Array, "V _"]) -> Int[Array, "V N"]:
        table = split_heads(self, emb_var[jnp.newaxis], self.num_heads, self.dim_per_head)
        if table.shape[1] != self.unigram_vocab_size:
            raise ValueError(
                f"{self.path_text}: emb_var has shape {emb_var.shape}, expected [V, N * H] with "
                f"V = unigram_vocab_size = {self.unigram_vocab_size}."
            )
        if self.prenormalize:
            table = normalise(table, self.epsilon)
        distances = squared_distances(table, self.vq_layer.get_var("means"))
        return jnp.argmin(distances, axis=-1).astype(jnp.int32)[0]

    def extend_step(
        self,
        input_embs: Float[Array, "B S ..."],
        step: TimeStep,
        merge_heads: bool = True,
        attention_score: Float[Array, "B N S"] | None = None,
        attention_scores: Float[Array, "B N S"] | None = None,
        segment_pos: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B ..."]:
        """Combines the embedding of one decoding step with that of its pair.

        Args:
          input_embs: [B, S, N * H] or [B, S, N, H], of all steps up to this one, which is written
            already; later ones are not read.
          step: The step.
          merge_heads: Return [B, N * H].
          attention_score: [B, N, S], probabilities of this step, for
            `ngram_using_attention_scores`.
          attention_scores: Another name of `attention_score`.
          segment_pos: [B], position of the step in its example; None: `step`.

        Returns:
          [B, N * H], or [B, N, H].
        """
        embs = split_heads(self, input_embs, self.num_heads, self.dim_per_head)
        batch, length = embs.shape[:2]
        step = jnp.asarray(step, jnp.int32)
        if self.ngram_using_attention_scores:
            scores = self._given_scores(attention_scores, attention_score)[:, :, jnp.newaxis]
            later = (jnp.arange(length) > step)[jnp.newaxis, jnp.newaxis, jnp.newaxis]
            scores = jnp.where(later, 0.0, scores)
            partner = partners_by_attention(scores, step[jnp.newaxis], self.causal_attention)
        else:
            partner = jnp.broadcast_to(
                jnp.where(step > 0, step - 1, length), (batch, 1, self.num_heads)
            )
        position = jnp.broadcast_to(step, (batch,)) if segment_pos is None else segment_pos
        current = lax.dynamic_slice_in_dim(embs, step, 1, axis=1)  # [B, 1, N, H]
        # Without a partner any vector will do, whose cluster is then replaced by 0.
        others = jnp.take_along_axis(
            embs, jnp.minimum(partner, length - 1)[..., jnp.newaxis], axis=1
        )
        distances, _ = self.vq_layer(
            jnp.concatenate([others, current], axis=1), summarize_and_update=False
        )
        clusters = jnp.argmin(distances, axis=-1).astype(jnp.int32)  # [B, 2, N]
        clusters = clusters.at[:, :1].set(jnp.where(partner == length, 0, clusters[:, :1]))
        outputs = self.ngram_layer(
            clusters,
            jnp.concatenate([current, current], axis=1),
            segment_pos=jnp.stack([jnp.zeros_like(position), position], axis=1),
            merge_heads=merge_heads,
        )
        return outputs[:, 1]

    @classmethod
    def set_canonical_sharding_params(
        cls,
        vqngrammer_p: LayerTpl,
        *,
        replica_axis: str,
        data_axis: str,
        mdl_axis: str,
        ici_mesh_shape: Sequence[int],
        dcn_mesh_shape: Sequence[int] | None,
        mesh_axis_names: Sequence[str],
        training_optimized: bool,
    ) -> LayerTpl:
        """Shards the tables of n-grams over the model axis, and their dims over the data axis.

        Args:
          vqngrammer_p: Config of the layer, which is changed.
          replica_axis: Not read: the tables are copied along it.
          data_axis: Axis that shards dims.
          mdl_axis: Axis that shards rows.
          ici_mesh_shape: Sizes of the mesh axes inside a slice.
          dcn_mesh_shape: Sizes of the mesh axes across slices.
          mesh_axis_names: Names of the mesh axes.
          training_optimized: Not read.

        Returns:
          `vqngrammer_p`.
        """
        del replica_axis, training_optimized
        vqngrammer_p.set(
            ici_mesh_shape=ici_mesh_shape,
            dcn_mesh_shape=dcn_mesh_shape,
            mesh_axis_names=mesh_axis_names,
        )
        vqngrammer_p.weight_split_dims_mapping.wt = [mdl_axis, data_axis]
        return vqngrammer_p
