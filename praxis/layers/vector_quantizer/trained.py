"""A quantizer whose codebook is trained."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, py_utils
from praxis.layers import quantizer_objectives
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
instance_field = base_layer.instance_field


def _default_init() -> WeightInit:
    return WeightInit.UniformSqrtDim()


def mean_distance(
    x: Float[Array, "B T D"], y: Float[Array, "B T D"], num_frames: Float[Array, ""]
) -> Float[Array, ""]:
    """Mean squared difference of frames, in float32; those of padding have to be equal."""
    distances = jnp.mean(jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32)), axis=-1)
    return jnp.sum(distances) / (1e-7 + num_frames)


class VectorQuantizer(base_layer.BaseLayer):
    """Replaces frames by the nearest vectors of a codebook, which training moves towards them.

    Van den Oord et al., "Neural Discrete Representation Learning", 2017, arXiv:1711.00937: with z_q
    the vector next to z, the loss is `|sg(z) - z_q|^2 + beta |z - sg(z_q)|^2`, and gradients for
    z_q go to z unchanged. Shapes: D is `latent_dim`, G is `num_groups`, V is `num_latent_classes`.

    Attributes:
      num_latent_classes: V, vectors in a codebook. Required.
      latent_dim: D, a multiple of G. Required.
      beta: Weight of the loss that moves z towards the codebook. Required.
      num_groups: G, parts of a frame with a codebook each.
      normalize_latent_vector: Divide frames by their length before distances are taken.
      normalize_latent_per_group: Divide each part by its own length instead. The loss then is of
        the frames as they are; otherwise it is of the divided ones.
      normalize_codebook: Divide vectors of the codebook by their length.
      params_init: Initializer of the codebook.

    Variables:
      w: [V, G, D / G], sharded with `weight_split_dims_mapping.wt`

    Raises:
      ValueError: during setup, if a field is missing or sizes do not go together; in calls, for
        inputs of other shapes.
    """

    num_latent_classes: int | None = None
    latent_dim: int | None = None
    beta: float | None = None
    num_groups: int = 1
    normalize_latent_vector: bool = True
    normalize_latent_per_group: bool = True
    normalize_codebook: bool = True
    params_init: WeightInit = instance_field(_default_init)

    def setup(self) -> None:
        check_sizes(self, "num_latent_classes", "latent_dim", "num_groups")
        assert self.num_latent_classes is not None and self.latent_dim is not None
        check_groups(self, "latent_dim")
        if self.beta is None or self.beta < 0:
            raise ValueError(
                f"{self.path_text}: beta is {self.beta}, expected the weight of a loss, 0 or more. "
                "Set it in the config, e.g. config.beta = 0.25."
            )
        self.create_variable(
            "w",
            WeightHParams(
                shape=[
                    self.num_latent_classes,
                    self.num_groups,
                    self.latent_dim // self.num_groups,
                ],
                dtype=jnp.float32,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )

    def _codebook(self) -> Float[Array, "V G H"]:
        return normalise(self.theta.w) if self.normalize_codebook else self.theta.w

    def __call__(
        self, z: Float[Array, "B T D"], paddings: Shaped[Array, "B T"]
    ) -> py_utils.NestedMap:
        """Quantizes frames.

        Args:
          z: [B, T, D].
          paddings: [B, T], 1 marks padding, which counts nowhere.

        Returns:
          A NestedMap of
          - z_q: [B, T, D], vectors of the codebook, with the gradient of z; 0 in padding
          - z_codes: [B, T, G], int32; 0 in padding
          - z_onehot: [B, T, G, V], float32; 0 in padding
          - loss: [], float32
          - codebook_coverage: [], share of the codes that the batch has
          - codebook_num_covered_words: [], that times V^G, the number of words of G codes
          - pplx, entropy: [], of the codes, see `batch_pplx_entropy_from_codes`
        """
        check_sequence(self, z, paddings)
        assert self.beta is not None  # by setup
        counts = 1.0 - paddings.astype(jnp.float32)  # [B, T]
        # Selected, not multiplied, so that not even NaN gets out of padding.
        is_frame = (counts > 0)[..., jnp.newaxis]
        z = jnp.where(is_frame, z, jnp.zeros_like(z))
        if self.normalize_latent_vector and not self.normalize_latent_per_group:
            z = normalise(z)
        latent = z.reshape(*z.shape[:2], self.num_groups, -1)
        if self.normalize_latent_vector and self.normalize_latent_per_group:
            latent = normalise(latent)
        vectors, codes, onehot = quantize_vector(latent, self._codebook())
        z_q = jnp.where(is_frame, vectors.reshape(z.shape), jnp.zeros([], vectors.dtype))
        codes = jnp.where(is_frame, codes, jnp.zeros_like(codes))
        onehot = jnp.where(is_frame[..., jnp.newaxis], onehot, jnp.zeros_like(onehot))

        num_frames = jnp.sum(counts)
        codebook_loss = mean_distance(lax.stop_gradient(z), z_q, num_frames)
        frame_loss = mean_distance(z, lax.stop_gradient(z_q), num_frames)
        num_classes = onehot.shape[-1]
        coverage = quantizer_objectives.batch_codebook_coverage(
            codes, num_classes, paddings=paddings
        )
        pplx, entropy, _ = quantizer_objectives.batch_pplx_entropy_from_codes(
            codes, num_classes, paddings=paddings
        )
        return py_utils.NestedMap(
            z_q=z + lax.stop_gradient(z_q - z),
            z_codes=codes,
            z_onehot=onehot,
            loss=codebook_loss + self.beta * frame_loss,
            codebook_coverage=coverage,
            codebook_num_covered_words=coverage * float(num_classes) ** self.num_groups,
            pplx=pplx,
            entropy=entropy,
        )

    def look_up(self, z_codes: Int[Array, "*B G"]) -> Float[Array, "*B D"]:
        """The vectors [..., D] that codes [..., G] stand for."""
        assert self.latent_dim is not None  # by setup
        return look_up(z_codes, self._codebook()).reshape(*z_codes.shape[:-1], self.latent_dim)
