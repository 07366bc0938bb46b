"""Clusters of vectors, learned by averaging: online k-means for each head."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer
from praxis.layers.checks import check_sizes

# Clusters with a smaller share count as this in geometric means, which would be 0 otherwise.
SMALLEST_SHARE = 1e-6


def squared_distances(
    x: Float[Array, "B L N H"], means: Float[Array, "N K H"]
) -> Float[Array, "B L N K"]:
    """Squared Euclidean distance of each vector to each centroid of its head, float32."""
    x, means = x.astype(jnp.float32), means.astype(jnp.float32)
    products = jnp.einsum("BLNH,NKH->BLNK", x, means)
    x_norms = jnp.sum(jnp.square(x), axis=-1, keepdims=True)  # [B, L, N, 1]
    mean_norms = jnp.sum(jnp.square(means), axis=-1)[jnp.newaxis, jnp.newaxis]  # [1, 1, N, K]
    return x_norms - 2 * products + mean_norms


def normalise(x: Float[Array, "*B H"], epsilon: float) -> Float[Array, "*B H"]:
    """Gives each vector mean 0 and variance 1, computed in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return (centred * lax.rsqrt(variance + epsilon)).astype(x.dtype)


class VectorQuantization(base_layer.BaseLayer):
    """Finds the nearest of K centroids for each head, and moves centroids towards what they get.

    In training the centroids follow the mean of the vectors that are nearest to them; there are no
    gradients. As the clusters of Roy et al., "N-Grammer", 2022, arXiv:2207.06366. Shapes: N is
    `num_heads`, K is `num_clusters`, H is `dim_per_head`.

    Attributes:
      num_clusters: K, at least 1. Required.
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.
      decay: Weight of a centroid in its moving average, from 0 to 1.
      epsilon: Added to the number of vectors of a cluster, and to variances.
      prenormalize: Give each vector mean 0 and variance 1 first.

    Variables:
      means: [N, K, H], the centroids; not trainable

    Raises:
      ValueError: during setup, if a size is missing or `decay` is out of range.
    """

    num_clusters: int = 0
    num_heads: int = 0
    dim_per_head: int = 0
    decay: float = 0.999
    epsilon: float = 1e-6
    prenormalize: bool = False

    def setup(self) -> None:
        check_sizes(self, "num_clusters", "num_heads", "dim_per_head")
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(
                f"{self.path_text}: decay is {self.decay}, expected the weight of old centroids, "
                "from 0 to 1."
            )
        means = base_layer.WeightHParams(
            shape=[self.num_heads, self.num_clusters, self.dim_per_head],
            collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            mesh_shape=self.mesh_shape,
        )
        self.create_variable("means", means, trainable=False)

    def __call__(
        self,
        inputs: Float[Array, "B L N H"],
        paddings: Shaped[Array, "B L"] | None = None,
        summarize_and_update: bool = True,
    ) -> tuple[Float[Array, "B L N K"], Float[Array, "B L N H"]]:
        """Compares vectors with the centroids.

        Args:
          inputs: [B, L, N, H].
          paddings: [B, L], 1 marks padding, which moves no centroid.
          summarize_and_update: Report the clusters, and in training move the centroids.

        Returns:
          Squared distances [B, L, N, K], float32, and nearest centroids [B, L, N, H], zeros at the
          padding.
        """
        expected = (self.num_heads, self.dim_per_head)
        if inputs.ndim != 4 or inputs.shape[2:] != expected:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [B, L, N, H] with "
                f"(N, H) = (num_heads, dim_per_head) = {expected}."
            )
        inputs = lax.stop_gradient(inputs)
        if self.prenormalize:
            inputs = normalise(inputs, self.epsilon)
        means = self.get_var("means")
        distances = squared_distances(inputs, means)
        cluster_ids = jnp.argmin(distances, axis=-1).astype(jnp.int32)  # [B, L, N]
        chosen = jax.nn.one_hot(cluster_ids, self.num_clusters, dtype=jnp.float32)  # [B, L, N, K]
        if paddings is not None:
            kept = (1 - paddings)[:, :, jnp.newaxis, jnp.newaxis]
            chosen *= kept.astype(jnp.float32)
        if summarize_and_update:
            self._summarise_centroids(cluster_ids, means)
            if not self.do_eval:
                self._update(inputs, chosen, means)
        nearest = jnp.einsum("BLNK,NKH->BLNH", chosen, means.astype(jnp.float32))
        return distances, nearest.astype(inputs.dtype)

    def _update(
        self,
        inputs: Float[Array, "B L N H"],
        chosen: Float[Array, "B L N K"],
        means: Float[Array, "N K H"],
    ) -> None:
        """Moves the centroids towards the means of their clusters."""
        counts = jnp.sum(chosen, axis=(0, 1))  # [N, K]
        sums = jnp.einsum("BLNK,BLNH->NKH", chosen, inputs.astype(jnp.float32))
        batch_means = sums / (counts + self.epsilon)[..., jnp.newaxis]
        self.update_var("means", self.decay * means + (1.0 - self.decay) * batch_means)
        self._summarise_clusters(counts)

    def _summarise_centroids(
        self, cluster_ids: Int[Array, "B L N"], means: Float[Array, "N K H"]
    ) -> None:
        norms = jnp.linalg.norm(means, axis=-1)
        for name, statistic in (("avg", jnp.mean), ("max", jnp.max), ("min", jnp.min)):
            self.add_summary(f"k_means/centroid/l2_norm_{name}", statistic(norms))
        self.add_summary(
            "k_means/centroid/cluster_ids",
            cluster_ids[..., jnp.newaxis].astype(jnp.float32),
            base_layer.SummaryType.IMAGE,
        )

    def _summarise_clusters(self, counts: Float[Array, "N K"]) -> None:
        """Reports how evenly the vectors of the batch are spread over the clusters."""
        self.add_summary("k_means/centroid/avg_cluster_count", jnp.mean(counts))
        shares = counts / jnp.maximum(jnp.sum(counts, axis=-1, keepdims=True), 1.0)
        logs = jnp.log(jnp.maximum(shares, SMALLEST_SHARE))
        statistics = {
            "max_cluster_proportion": jnp.max(shares, axis=-1),
            "min_cluster_proportion": jnp.min(shares, axis=-1),
            "geomean_cluster_proportion": jnp.exp(jnp.mean(logs, axis=-1)),
            "inactive_clusters_proportion": jnp.mean((counts == 0).astype(jnp.float32), axis=-1),
        }
        for name, by_head in statistics.items():
            for head in range(self.num_heads):
                self.add_summary(f"k_means/centroid/{name}/head{head}", by_head[head])
