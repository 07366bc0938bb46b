"""Lookup-free quantization: the signs of a vector are its code."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Integer

from praxis import base_layer, py_utils
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.utils.broadcasting import expand_rank

ENTROPY_LOSSES = ("softmax", "argmax")
_LARGEST_CODEBOOK = 20  # bits
_EPSILON = 1e-5  # keeps the logarithm of a code that is never used finite


def code_entropies(
    x: Float[Array, "N D"], *, temperature: float, hard: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Entropies, in nats, of the codes of vectors: of one vector on average, and of the batch.

    A vector has the code c, one of the 2^D vectors of signs, with a probability in proportion to
    exp(-|x - c|^2 / temperature). Computed in float32.

    Args:
      x: [N, D].
      temperature: Smaller means nearer to the single nearest code.
      hard: Count the nearest code alone; gradients are those of the probabilities.
    """
    x = x.astype(jnp.float32)
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=x.shape[-1])), np.float32)
    # |x - c|^2 without what all codes share.
    logits = 2.0 / temperature * jnp.einsum("nd,cd->nc", x, signs, precision="highest")
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)
    if hard:
        nearest = jax.nn.one_hot(jnp.argmax(logits, axis=-1), len(signs))
        probs = probs + lax.stop_gradient(nearest - probs)
    mean_probs = jnp.mean(probs, axis=0)
    of_sample = -jnp.mean(jnp.sum(probs * log_probs, axis=-1))
    return of_sample, -jnp.sum(mean_probs * jnp.log(mean_probs + _EPSILON))


class LookupFreeQuantizer(base_layer.BaseLayer):
    """Replaces the numbers of a vector by their signs; 0 becomes 1.

    Yu et al., "Language Model Beats Diffusion - Tokenizer is Key to Visual Generation", 2023,
    arXiv:2310.05737, section 3.1. Training wants vectors near their signs, and codes that are
    certain for a vector and evenly used by the batch:
    `commitment_cost mean((sign(x) - x)^2) + ratio (H(code | x) - balance H(code))`. Gradients pass
    the sign unchanged. Shapes: D is `embedding_dim`, G is `num_token_groups`.

    Attributes:
      embedding_dim: D, number of bits.
      num_token_groups: G, indices that a vector gets; each holds ceil(D / G) bits, the last one may
        hold fewer.
      commitment_cost: Weight of the distance to the signs.
      entropy_loss_ratio: Weight of the entropies.
      entropy_loss_balance: Weight of the entropy of the batch among them.
      entropy_loss_type: "softmax", or "argmax" to count the nearest code alone.
      entropy_temperature: Of the probabilities of codes.
      entropy_loss_groups: Parts of the vector, dividing D, whose entropies are taken on their own
        and added. A part of d bits has 2^d codes, all of them in memory for each vector.

    Raises:
      ValueError: during setup, if the fields do not go together; in `__call__`, if the last axis of
        the inputs is not D.
    """

    embedding_dim: int = 8
    num_token_groups: int = 1
    commitment_cost: float = 0.25
    entropy_loss_ratio: float = 0.1
    entropy_loss_balance: float = 1.0
    entropy_loss_type: str = "softmax"
    entropy_temperature: float = 0.01
    entropy_loss_groups: int = 1

    @property
    def bits_per_token(self) -> int:
        """Bits that an index holds."""
        return -(-self.embedding_dim // self.num_token_groups)

    def setup(self) -> None:
        check_sizes(self, "embedding_dim", "num_token_groups", "entropy_loss_groups")
        if self.bits_per_token * (self.num_token_groups - 1) >= self.embedding_dim:
            raise ValueError(
                f"{self.path_text}: num_token_groups = {self.num_token_groups} of "
                f"{self.bits_per_token} bits are more than embedding_dim = {self.embedding_dim} "
                "fills. Use fewer."
            )
        if self.bits_per_token > 32:
            raise ValueError(
                f"{self.path_text}: embedding_dim = {self.embedding_dim} in num_token_groups = "
                f"{self.num_token_groups} makes indices of {self.bits_per_token} bits, more than "
                "32. Use more groups."
            )
        if self.embedding_dim % self.entropy_loss_groups:
            raise ValueError(
                f"{self.path_text}: embedding_dim = {self.embedding_dim} is not a multiple of "
                f"entropy_loss_groups = {self.entropy_loss_groups}."
            )
        bits = self.embedding_dim // self.entropy_loss_groups
        if self.entropy_loss_ratio and bits > _LARGEST_CODEBOOK:
            raise ValueError(
                f"{self.path_text}: the entropy loss would take 2**{bits} codes for each vector. "
                f"Set entropy_loss_groups, now {self.entropy_loss_groups}, to a larger divisor of "
                f"embedding_dim = {self.embedding_dim}."
            )
        if self.entropy_loss_type not in ENTROPY_LOSSES:
            raise ValueError(
                f"{self.path_text}: entropy_loss_type is {self.entropy_loss_type!r}, expected one "
                f"of {ENTROPY_LOSSES}."
            )

    def __call__(
        self, inputs: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B D"], py_utils.NestedMap]:
        """Quantizes `inputs`.

        Args:
          inputs: [..., D].

        Returns:
          The signs [..., D], in training with the gradients of the inputs, and a NestedMap of
          - encodings: [..., D], the signs
          - encoding_indices: [...], or [..., G] with more than one group, uint32
          - raw: [..., D], the inputs
          - quantizer_loss: [], float32, the sum of the next two; all three only in training
          - e_latent_loss: [], the distance to the signs, weighted
          - entropy_loss: [], the entropies, weighted
        """
        check_last_axis(self, inputs, "embedding_dim")
        inputs = self._cast_to_fprop_dtype(inputs)
        signs = jnp.where(inputs >= 0, 1.0, -1.0).astype(inputs.dtype)
        result = py_utils.NestedMap(
            encodings=signs, encoding_indices=self._indices(signs), raw=inputs
        )
        if self.do_eval:
            return signs, result
        distances = jnp.square((signs - inputs).astype(jnp.float32))
        result.e_latent_loss = self.commitment_cost * jnp.mean(distances)
        result.entropy_loss = self._entropy_loss(inputs)
        result.quantizer_loss = result.e_latent_loss + result.entropy_loss
        return inputs + lax.stop_gradient(signs - inputs), result

    def _entropy_loss(self, inputs: Float[Array, "*B D"]) -> Float[Array, ""]:
        if not self.entropy_loss_ratio:
            return jnp.zeros([], jnp.float32)
        bits = self.embedding_dim // self.entropy_loss_groups
        parts = inputs.reshape(-1, self.entropy_loss_groups, bits)
        entropies = [
            code_entropies(
                parts[:, group],
                temperature=self.entropy_temperature,
                hard=self.entropy_loss_type == "argmax",
            )
            for group in range(self.entropy_loss_groups)
        ]
        total = sum(
            (sample - self.entropy_loss_balance * batch for sample, batch in entropies),
            start=jnp.zeros([], jnp.float32),
        )
        return self.entropy_loss_ratio * total

    def _indices(self, signs: Float[Array, "*B D"]) -> Integer[Array, "..."]:
        """Each sign is a bit, the first of a group the lowest."""
        missing = self.bits_per_token * self.num_token_groups - self.embedding_dim
        bits = (signs > 0).astype(jnp.uint32)
        bits = jnp.pad(bits, [*[(0, 0)] * (bits.ndim - 1), (0, missing)])
        bits = bits.reshape(*bits.shape[:-1], self.num_token_groups, self.bits_per_token)
        shifts = expand_rank(jnp.arange(self.bits_per_token, dtype=jnp.uint32), bits.ndim)
        indices = jnp.sum(bits << shifts, axis=-1, dtype=jnp.uint32)
        return indices[..., 0] if self.num_token_groups == 1 else indices

    def decode_ids(self, inputs: Int[Array, "..."]) -> Float[Array, "... D"]:
        """The signs [..., D] that indices stand for; shaped as `__call__` returns them."""
        groups = self.num_token_groups
        if groups == 1:
            inputs = inputs[..., jnp.newaxis]
        elif inputs.shape[-1:] != (groups,):
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected [..., G] with "
                f"G = num_token_groups = {groups}."
            )
        indices = inputs.astype(jnp.uint32)[..., jnp.newaxis]  # [..., G, 1]
        shifts = expand_rank(jnp.arange(self.bits_per_token, dtype=jnp.uint32), indices.ndim)
        bits = (indices >> shifts) & 1
        bits = bits.reshape(*inputs.shape[:-1], -1)[..., : self.embedding_dim]
        return self._cast_to_fprop_dtype(bits.astype(jnp.float32) * 2 - 1)
