"""Attention over whole sequences in which a query sees the frames near it."""

from typing import Any

from jaxtyping import Array, Float

from praxis.layers.attention.attend import Attended
from praxis.layers.attention.dot_product import DotProductAttention
from praxis.layers.attention.hooks import Mask
from praxis.layers.attention.mask_spec import Window
from praxis.layers.attention.relative import DotProductAttentionXL
from praxis.layers.attention.window import WindowAttention


class LimitedContext(WindowAttention):
    """The part of an attention layer that hides frames that are far from the query.

    It comes after the attention layer among the bases of a class.

    Attributes:
      left_context: Frames up to the query, which counts as one; None is unlimited.
      right_context: Frames after the query; None is unlimited.
    """

    left_context: int | None = None
    right_context: int | None = None

    def _window(self) -> Window | None:
        if self.left_context is None and self.right_context is None:
            return None
        return self.left_context, self.right_context

    def _check_context(self) -> None:
        for field, least in (("left_context", 1), ("right_context", 0)):
            size = getattr(self, field)
            if size is not None and size < least:
                raise ValueError(
                    f"{self.path_text}: {field} is {size}, expected at least {least}, or None for "
                    "no limit."
                )
        self._check_window_cache()

    def _attend(
        self,
        query: Float[Array, "B T N H"],
        key: Float[Array, "B S K H"],
        value: Float[Array, "B S K H"],
        atten_mask: Mask,
        bias: Float[Array, "..."] | None,
    ) -> Attended:
        mask = self._in_window(atten_mask, query.shape[1], key.shape[1])
        return super()._attend(query, key, value, mask, bias)


class DotProductAttentionWithContext(DotProductAttention, LimitedContext):
    """`DotProductAttention` in which the query at i sees the keys at i - left + 1 to i + right.

    Of those, the ones that the mask lets it see. Unless `implementation` is "blockwise", all logits
    are computed: `LocalSelfAttention` computes the visible ones alone.

    Attributes:
      left_context: Frames up to the query, which counts as one; None is unlimited.
      right_context: Frames after the query; None is unlimited.

    Raises:
      ValueError: during setup, if a context is too small.
    """

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check_context()


class DotProductAttentionWithContextXL(DotProductAttentionXL, LimitedContext):
    """`DotProductAttentionXL` with the limits of `DotProductAttentionWithContext`.

    Attributes:
      left_context: Frames up to the query, which counts as one; None is unlimited.
      right_context: Frames after the query; None is unlimited.

    Raises:
      ValueError: during setup, if a context is too small.
    """

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check_context()


def has_limited_context(attention_tpl: Any) -> bool:
    """Whether a config is one of the attentions of this module, with a limit."""
    return issubclass(attention_tpl.cls, LimitedContext) and (
        attention_tpl.left_context is not None or attention_tpl.right_context is not None
    )
