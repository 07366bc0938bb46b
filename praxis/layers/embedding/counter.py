"""A count of the tokens a model was trained on."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from praxis import base_layer

COUNTER_NAME = "approx_total_tokens_mm"
TOKENS_IN_A_MILLION = 1e6


class TokenCounter(base_layer.BaseLayer):
    """Adds up the tokens that training has seen, in millions.

    A float32 total: it is exact to about one part in 1e7.

    Variables:
      approx_total_tokens_mm: [], not trainable, float32, millions of tokens.
    """

    def setup(self) -> None:
        collections = base_layer.WeightHParamsCollection
        self.create_variable(
            COUNTER_NAME,
            base_layer.WeightHParams(
                shape=[],
                init=base_layer.WeightInit.Constant(0.0),
                dtype=jnp.float32,
                collections=[
                    collections.REQUIRES_SUM_SYNC,
                    collections.DISALLOW_BFLOAT16_CONVERSION,
                ],
            ),
            trainable=False,
        )

    def __call__(self, inputs: Shaped[Array, "..."], paddings: Shaped[Array, "..."]) -> None:
        """Counts the positions that are not padding; does nothing in evaluation.

        Args:
          inputs: [B, T], not read: only there so that the layer sees a batch like any other.
          paddings: [B, T], 1 marks padding.
        """
        del inputs
        if self.do_eval:
            return
        total = self.get_var(COUNTER_NAME)
        self.add_summary(COUNTER_NAME, total)
        tokens = jnp.sum(1.0 - paddings.astype(jnp.float32))
        self.update_var(COUNTER_NAME, total + tokens / TOKENS_IN_A_MILLION)
