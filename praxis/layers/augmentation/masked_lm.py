"""Hides tokens, for models that learn to restore them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer


class MaskedLmDataAugmenter(base_layer.BaseLayer):
    """Replaces some tokens by a mask, some by random ones, and chooses some that stay.

    Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", 2018, arXiv:1810.04805, section 3.1. It does so in evaluation too.

    Attributes:
      vocab_size: Random tokens are below it; at least 1. Required.
      mask_prob: Probability that a token becomes the mask.
      random_prob: Probability that it becomes a random one.
      same_prob: Probability that it is chosen and stays.
      mask_token_id: The mask, at least 0. Required.

    Raises:
      ValueError: during setup, if a size or a probability is out of range.
    """

    vocab_size: int = 0
    mask_prob: float = 0.12
    random_prob: float = 0.015
    same_prob: float = 0.015
    mask_token_id: int = -1

    def setup(self) -> None:
        for field, least in (("vocab_size", 1), ("mask_token_id", 0)):
            if (value := getattr(self, field)) < least:
                raise ValueError(
                    f"{self.path_text}: {field} is {value}, expected at least {least}. Set it in "
                    "the config."
                )
        if not (0.0 < self._chosen_prob < 1.0 and self.random_prob + self.same_prob > 0.0):
            raise ValueError(
                f"{self.path_text}: mask_prob, random_prob and same_prob are {self.mask_prob}, "
                f"{self.random_prob} and {self.same_prob}; expected a sum between 0 and 1, and "
                "more than 0 for the last two together."
            )

    @property
    def _chosen_prob(self) -> float:
        return self.mask_prob + self.random_prob + self.same_prob

    def __call__(
        self, inputs: Int[Array, "B T"], paddings: Shaped[Array, "..."]
    ) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
        """Hides tokens.

        Args:
          inputs: [B, T], tokens.
          paddings: [B, T], 1 marks padding, which is never chosen.

        Returns:
          Tokens [B, T], and 1 for those that were chosen, [B, T], float32.
        """
        if paddings.shape != inputs.shape:
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, inputs have shape "
                f"{inputs.shape}; expected [B, T] of both."
            )

        def happens(prob: float) -> Shaped[Array, "B T"]:
            return jax.random.uniform(self.next_prng_key(), inputs.shape) < prob

        chosen = (paddings == 0) & happens(self._chosen_prob)
        masked = chosen & happens(self.mask_prob / self._chosen_prob)
        others = self.random_prob + self.same_prob
        randomised = chosen & ~masked & happens(self.random_prob / others)
        anything = jax.random.randint(self.next_prng_key(), inputs.shape, 0, self.vocab_size)
        outputs = jnp.where(masked, self.mask_token_id, inputs)
        outputs = jnp.where(randomised, anything.astype(inputs.dtype), outputs)
        return outputs, chosen.astype(jnp.float32)
