"""Attention layers that are computed by cuDNN where there is one."""

import dataclasses

from jaxtyping import Array, Float

from praxis.layers.attention import options
from praxis.layers.attention.attend import Attended, attend
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.hooks import Mask
from praxis.layers.attention.mask_spec import as_mask


class GpuCudnnFusedDotProductAttention(DotProductAttention):
    """`DotProductAttention` whose calls are one kernel of cuDNN.

    That needs an NVIDIA GPU, bfloat16 or float16, and sizes that cuDNN takes, see
    `fused.fused_attention`; elsewhere the same numbers are computed blockwise, so that a config
    works on all platforms. Decoding steps are those of `DotProductAttention`. Probabilities are
    not returned. Fastest without a mask but `is_causal`, or with an `AttentionMask` that is causal.

    Attributes:
      is_causal: Hide keys after the query, besides what the mask hides.

    Raises:
      ValueError: during setup, with `atten_logit_cap`, `attention_extra_logit`, `ngrammer_tpl` or
        einsum templates that the kernel does not know.
      NotImplementedError: in calls in training with `atten_dropout_prob` above 0.
    """

    is_causal: bool = False

    def _check_fields(self) -> None:
        super()._check_fields()
        for field, is_set in {
            "atten_logit_cap": self.atten_logit_cap > 0.0,
            "attention_extra_logit": self.attention_extra_logit is not None,
            "ngrammer_tpl": self.ngrammer_tpl is not None,
            "qk_einsum_tpl": options.is_injected(self.qk_einsum_tpl),
            "pv_einsum_tpl": options.is_injected(self.pv_einsum_tpl),
        }.items():
            if is_set:
                raise ValueError(
                    f"{self.path_text}: {field} is set, which a fused kernel does not compute. "
                    f"Unset it, or take DotProductAttention, whose implementation = 'auto' does."
                )

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S N H"],
        value: Float[Array, "B S N H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        if options.drops(self):
            raise NotImplementedError(
                f"{self.path_text}: atten_dropout_prob = {self.atten_dropout_prob} in training: a "
                "fused kernel drops no probabilities. Set it to 0, or take DotProductAttention."
            )
        mask = as_mask(atten_mask, query.shape[1], key.shape[1])
        if self.is_causal:
            mask = dataclasses.replace(mask, causal=True)
        return attend(
            query,
            key,
            value,
            mask,
            bias=bias,
            implementation="fused" if self.implementation == "auto" else self.implementation,
            **self._score_options(),
        )
