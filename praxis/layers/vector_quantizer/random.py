"""A quantizer that is not trained: random projection, random codebook (BEST-RQ)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import linears, quantizer_objectives
from praxis.layers.checks import check_sizes
from praxis.layers.vector_quantizer.nearest import (
    check_groups,
    check_sequence,
    look_up,
    normalise,
    quantize_vector,
)

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
SplitDimsMapping = base_layer.SplitDimsMapping
instance_field = base_layer.instance_field


def _default_init() -> WeightInit:
    return WeightInit.Gaussian()


class RandomVectorQuantizer(base_layer.BaseLayer):
    """Targets for self-supervised training: the code next to a random projection of each frame.

    Chiu et al., "Self-supervised Learning with Random-projection Quantizer for Speech Recognition",
    2022, arXiv:2202.01855. The variables are in `params`, but no gradient reaches them; exclude
    them from optimizers that change variables without gradients. Shapes: D is `latent_dim`, R is
    `stack_ratio`, P is `projection_dim`, G is `num_groups`, H is P / G, V is `num_latent_classes`,
    L is T / R, rounded up.

    Attributes:
      latent_dim: D. Required.
      projection_dim: P, a multiple of G.
      num_latent_classes: V, codes in a codebook. Required.
      num_groups: G, parts of the projected vector with a codebook each.
      low_rank_codebook: With one group, make `random_codebook` [V, P].
      stack_ratio: R, frames that are joined into one.
      normalize_latent_vector: Divide projected vectors by their length.
      normalize_latent_per_group: Divide each part by its own length instead.
      normalize_codebook: Divide vectors of the codebook by their length.
      codebook_init: Initializer of the codebook.
      plot_codebook: Add a summary `codebook`, an image [V, P].

    Variables:
      random_proj: [D R, P]
      random_bias: [P]
      random_codebook: [V, G, H], sharded with `weight_split_dims_mapping.vgh`; or [V, P]

    Raises:
      ValueError: during setup, if a size is missing or sizes do not go together; in calls, for
        inputs of other shapes.
    """

    latent_dim: int | None = None
    projection_dim: int = 16
    num_latent_classes: int | None = None
    num_groups: int = 1
    low_rank_codebook: bool = False
    stack_ratio: int = 1
    normalize_latent_vector: bool = False
    normalize_latent_per_group: bool = True
    normalize_codebook: bool = False
    codebook_init: WeightInit = instance_field(_default_init)
    plot_codebook: bool = False

    class WeightSharding(base_layer.BaseLayer.WeightSharding):
        """Sharding of the variables.

        Attributes:
          vgh: Of the codebook, [V, G, H]; the first and last entry of one that is [V, P].
        """

        vgh: SplitDimsMapping = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          blgh: Of the projected vectors, [B, L, G, H].
        """

        blgh: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(
            self,
            *("latent_dim", "projection_dim", "num_latent_classes", "num_groups", "stack_ratio"),
        )
        assert self.latent_dim is not None and self.num_latent_classes is not None
        check_groups(self, "projection_dim")
        if self.stack_ratio > 1:
            self.create_child(
                "stack",
                pax_fiddle.Config(
                    linears.StackingOverTime,
                    right_context=self.stack_ratio - 1,
                    stride=self.stack_ratio,
                    padding_reduce_option="reduce_max",
                ),
            )
        groups, dims = self.num_groups, self.projection_dim
        self._create("random_proj", [self.latent_dim * self.stack_ratio, dims])
        self._create("random_bias", [dims], WeightInit.Constant(0.0))
        split = self.weight_split_dims_mapping.vgh
        shape = [self.num_latent_classes, groups, dims // groups]
        if self.low_rank_codebook and groups == 1:
            shape = [self.num_latent_classes, dims]
            split = None if split is None else (split[0], split[2])
        self._create("random_codebook", shape, self.codebook_init, split)

    def _create(
        self,
        name: str,
        shape: Sequence[int],
        init: WeightInit | None = None,
        split: SplitDimsMapping = None,
    ) -> None:
        hparams = WeightHParams(
            shape=shape,
            init=init,
            dtype=jnp.float32,
            mesh_shape=self.mesh_shape,
            tensor_split_dims_mapping=split,
            collections=[base_layer.WeightHParamsCollection.SKIP_LP_REGULARIZATION],
        )
        self.create_variable(name, hparams)

    def _codebook(self) -> Float[Array, "V G H"]:
        codebook = self.theta.random_codebook
        codebook = codebook.reshape(codebook.shape[0], self.num_groups, -1)
        return normalise(codebook) if self.normalize_codebook else codebook

    def _project(self, z: Float[Array, "B L _"]) -> Float[Array, "B L G H"]:
        """The projected vectors in their groups."""
        theta = self.theta
        bias = theta.random_bias[jnp.newaxis, jnp.newaxis]
        z = jnp.einsum("bld,dp->blp", z, theta.random_proj) + bias
        if self.normalize_latent_vector and not self.normalize_latent_per_group:
            z = normalise(z)
        latent = z.reshape(*z.shape[:2], self.num_groups, -1)
        if self.normalize_latent_vector and self.normalize_latent_per_group:
            latent = normalise(latent)
        mapping = self.activation_split_dims_mapping.blgh
        return base_layer.maybe_shard(latent, mapping, self.mesh_axis_names)

    def __call__(
        self, z: Float[Array, "B T D"], paddings: Shaped[Array, "B T"]
    ) -> py_utils.NestedMap:
        """Finds the codes of frames.

        Args:
          z: [B, T, D].
          paddings: [B, T], 1 marks padding. Joined frames are padded if one of them is.

        Returns:
          A NestedMap, without gradients, of
          - z_q: [B, L, P], vectors of the codebook; of padded frames too
          - z_codes: [B, L, G], int32
          - z_onehot: [B, L, G, V], float32
          - paddings: [B, L]
          - codebook_coverage: [], share of the codes that the batch has
          - codebook_num_covered_codes: [], that times V
          - pplx, entropy: [], of the codes, see `batch_pplx_entropy_from_codes`
        """
        check_sequence(self, z, paddings)
        if self.stack_ratio > 1:
            z, stacked = self.stack(z, paddings[..., jnp.newaxis])
            paddings = stacked[..., 0]
        codebook = self._codebook()
        if self.plot_codebook:
            self.add_summary(
                "codebook",
                lambda: codebook.reshape(1, codebook.shape[0], -1, 1),
                base_layer.SummaryType.IMAGE,
            )
        z_q, codes, onehot = quantize_vector(self._project(z), codebook)
        num_classes = codebook.shape[0]
        coverage = quantizer_objectives.batch_codebook_coverage(
            codes, num_classes, paddings=paddings
        )
        pplx, entropy, _ = quantizer_objectives.batch_pplx_entropy_from_codes(
            codes, num_classes, paddings=paddings
        )
        return lax.stop_gradient(
            py_utils.NestedMap(
                z_q=z_q.reshape(*z_q.shape[:2], self.projection_dim),
                z_codes=codes,
                z_onehot=onehot,
                paddings=paddings,
                codebook_coverage=coverage,
                codebook_num_covered_codes=coverage * num_classes,
                pplx=pplx,
                entropy=entropy,
            )
        )

    def look_up(self, z_codes: Int[Array, "*B G"]) -> Float[Array, "*B P"]:
        """The vectors [..., P] that codes [..., G] stand for."""
        vectors = look_up(z_codes, self._codebook())
        return lax.stop_gradient(vectors.reshape(*z_codes.shape[:-1], self.projection_dim))
