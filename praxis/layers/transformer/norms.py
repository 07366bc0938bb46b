"""Where the sublayers of a transformer layer normalise."""

import dataclasses

from jaxtyping import Array, Float

from praxis import base_layer


@dataclasses.dataclass(frozen=True)
class NormPolicy:
    """Where a residual sublayer, `x + f(x)`, has a normalization LN.

    Attributes:
      pre: f(LN(x)) in place of f(x).
      post: LN(f(x)) in place of f(x).
      skip: LN(x + f(x)) in place of the sum.

    What is passed to a method after x is passed to the normalization.
    """

    pre: bool = False
    post: bool = False
    skip: bool = False

    def names(self, base: str) -> list[str]:
        """The names of the normalization layers; `base` where there is only one."""
        return [f"pre_{base}", f"post_{base}"] if self.pre and self.post else [base]

    def before(
        self, owner: base_layer.BaseLayer, base: str, x: Float[Array, "..."], *paddings: Array
    ) -> Float[Array, "..."]:
        """What the sublayer gets."""
        return getattr(owner, self.names(base)[0])(x, *paddings) if self.pre else x

    def after(
        self, owner: base_layer.BaseLayer, base: str, x: Float[Array, "..."], *paddings: Array
    ) -> Float[Array, "..."]:
        """What is added to the inputs, from the outputs of the sublayer."""
        return getattr(owner, self.names(base)[-1])(x, *paddings) if self.post else x

    def at_end(
        self, owner: base_layer.BaseLayer, base: str, x: Float[Array, "..."], *paddings: Array
    ) -> Float[Array, "..."]:
        """The result, from the sum of inputs and outputs."""
        return getattr(owner, self.names(base)[0])(x, *paddings) if self.skip else x


NORM_POLICIES = {
    "pre": NormPolicy(pre=True),
    "post": NormPolicy(post=True),
    "primer_hybrid": NormPolicy(pre=True, post=True),
    "post_skip": NormPolicy(skip=True),
}


def check_norm_policy(layer: base_layer.BaseLayer) -> None:
    """Refuses a `norm_policy` that is not known.

    Raises:
      ValueError: naming the layer and the policies.
    """
    policy = getattr(layer, "norm_policy")  # noqa: B009  # a field of the layers that ask
    if policy not in NORM_POLICIES:
        raise ValueError(
            f"{layer.path_text}: norm_policy is {policy!r}, expected one of {list(NORM_POLICIES)}."
        )
