"""Grouped-query attention that is computed by cuDNN where there is one."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from praxis.layers.attention.attend import Attended, attend
from praxis.layers.attention.grouped_query import GroupedQueryAttention
from praxis.layers.attention.mask_spec import as_mask


class GpuCudnnFusedGroupedQueryAttention(GroupedQueryAttention):
    """`GroupedQueryAttention` whose calls are one kernel of cuDNN.

    That needs an NVIDIA GPU, bfloat16 or float16, and sizes that cuDNN takes, see
    `fused.fused_attention`; elsewhere the same numbers are computed blockwise, so that a config
    works on all platforms. Decoding steps are those of `GroupedQueryAttention`. Probabilities are
    not returned.

    Attributes:
      is_causal: Hide keys after the query, besides what the mask hides.

    Raises:
      ValueError: during setup, with `atten_logit_cap`.
      NotImplementedError: in calls in training with `atten_dropout_prob` above 0.
    """

    is_causal: bool = False

    def _check_fields(self) -> None:
        super()._check_fields()
        if self.atten_logit_cap > 0.0:
            raise ValueError(
                f"{self.path_text}: atten_logit_cap is set, which a fused kernel does not compute. "
                "Unset it, or take GroupedQueryAttention, whose implementation = 'auto' does."
            )

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        mask: Any,
    ) -> Attended:
        if self.atten_dropout_prob > 0.0 and not self.do_eval:
            raise NotImplementedError(
                f"{self.path_text}: atten_dropout_prob = {self.atten_dropout_prob} in training: a "
                "fused kernel drops no probabilities. Set it to 0, or take GroupedQueryAttention."
            )
        mask = as_mask(mask, query.shape[1], key.shape[1])
        if self.is_causal:
            mask = dataclasses.replace(mask, causal=True)
        implementation = "fused" if self.implementation == "auto" else self.implementation
        return attend(query, key, value, mask, implementation=implementation)
