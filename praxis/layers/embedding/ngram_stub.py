"""What is left of an n-grammer without n-grams, as a baseline."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import normalizations
from praxis.layers.attention.cache import TimeStep
from praxis.layers.checks import check_sizes
from praxis.layers.embedding.ngram import finish_heads, split_heads


class NgrammerStub(base_layer.BaseLayer):
    """Normalises each head of the embeddings, and takes all arguments of a `VQNgrammer`.

    Shapes: N is `num_heads`, H is `dim_per_head`.

    Attributes:
      num_heads: N, at least 1. Required.
      dim_per_head: H, at least 1. Required.

    Variables:
      emb_layer_norm_{i}: as in `LayerNorm`, [H], for each head

    Raises:
      ValueError: during setup, if a size is missing; in calls, for embeddings of another width.
    """

    num_heads: int = 0
    dim_per_head: int = 0

    def setup(self) -> None:
        check_sizes(self, "num_heads", "dim_per_head")
        norm = pax_fiddle.Config(normalizations.LayerNorm, dim=self.dim_per_head)
        for head in range(self.num_heads):
            self.create_child(f"emb_layer_norm_{head}", norm)

    def __call__(
        self,
        input_ids: Int[Array, "B L"] | None,
        input_embs: Float[Array, "B L ..."],
        paddings: Shaped[Array, "B L"] | None = None,
        segment_pos: Int[Array, "B L"] | None = None,
        merge_heads: bool = True,
        attention_scores: Any = None,
        emb_var: Any = None,
        check_time_step_zero: bool = False,
        attention_score: Any = None,
    ) -> Float[Array, "B L ..."]:
        """Normalises embeddings.

        Args:
          input_ids: Not read.
          input_embs: [B, L, N * H] or [B, L, N, H].
          paddings: [B, L], 1 marks padding.
          segment_pos: Not read.
          merge_heads: Return [B, L, N * H].
          attention_scores: Not read.
          emb_var: Not read.
          check_time_step_zero: Not read.
          attention_score: Not read.

        Returns:
          [B, L, N * H], or [B, L, N, H]; zeros at the padding.
        """
        del input_ids, segment_pos, attention_scores, emb_var, check_time_step_zero, attention_score
        embs = split_heads(self, input_embs, self.num_heads, self.dim_per_head)
        heads = [
            getattr(self, f"emb_layer_norm_{head}")(embs[:, :, head])
            for head in range(self.num_heads)
        ]
        return finish_heads(heads, paddings, merge_heads)

    def extend_step(
        self,
        input_embs: Float[Array, "B S ..."],
        step: TimeStep,
        merge_heads: bool = True,
        attention_score: Any = None,
        attention_scores: Any = None,
        segment_pos: Any = None,
    ) -> Float[Array, "B ..."]:
        """Normalises the embedding of one decoding step.

        Args:
          input_embs: [B, S, N * H] or [B, S, N, H], of all steps.
          step: The step.
          merge_heads: Return [B, N * H].
          attention_score: Not read.
          attention_scores: Not read.
          segment_pos: Not read.

        Returns:
          [B, N * H], or [B, N, H].
        """
        del attention_score, attention_scores, segment_pos
        current = lax.dynamic_slice_in_dim(input_embs, jnp.asarray(step, jnp.int32), 1, axis=1)
        return self(None, current, merge_heads=merge_heads)[:, 0]
