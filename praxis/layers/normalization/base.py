"""What all normalization layers share."""

from collections.abc import Sequence

from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers.checks import check_sizes


class BaseNormalization(base_layer.BaseLayer):
    """Base of all normalizations.

    Attributes:
      dim: D, the size of the last axis of the inputs.
    """

    dim: int = 0

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        """Normalizes `inputs`.

        Args:
          inputs: [..., D].
          paddings: [...], 1 marks padding.
        """
        raise NotImplementedError(
            f"{type(self).__name__} {self.name!r} does not define __call__; "
            "use a subclass such as normalizations.LayerNorm."
        )

    def _create_vector(
        self,
        name: str,
        init: base_layer.WeightInit,
        *,
        shape: Sequence[int] | None = None,
        collections: Sequence[str] = (),
        trainable: bool = True,
    ) -> None:
        """Creates a variable with one value a channel, of shape [D] unless told otherwise."""
        check_sizes(self, "dim")
        self.create_variable(
            name,
            base_layer.WeightHParams(
                shape=[self.dim] if shape is None else list(shape),
                init=init,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
                collections=list(collections),
            ),
            trainable=trainable,
        )


class IdentityNorm(BaseNormalization):
    """Returns its inputs."""

    def __call__(
        self, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "*B D"]:
        return inputs


def channel_paddings(
    layer: base_layer.BaseLayer, inputs: Float[Array, "*B D"], paddings: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """Gives paddings [B, ...] the rank of `inputs`, with axes of size 1 at the end.

    Raises:
      ValueError: if the paddings do not have the leading axes of the inputs, or size 1 there.
    """
    fits = paddings.ndim <= inputs.ndim and all(
        size in (1, full) for size, full in zip(paddings.shape, inputs.shape, strict=False)
    )
    if not fits:
        raise ValueError(
            f"{layer.path_text}: paddings have shape {paddings.shape}, inputs have shape "
            f"{inputs.shape}; expected paddings with the leading axes of the inputs, or 1 there."
        )
    return paddings.reshape(paddings.shape + (1,) * (inputs.ndim - paddings.ndim))
