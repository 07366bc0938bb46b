"""A table with one vector for each id."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer
from praxis.layers import base_ops
from praxis.layers.checks import check_sizes
from praxis.layers.embedding import lookup

instance_field = base_layer.instance_field


class Embedding(base_layer.BaseLayer):
    """Looks up one row of a table for each id.

    Shapes: V is `num_classes`, D is `input_dims`.

    Attributes:
      num_classes: V, at least 1. Required.
      input_dims: D, at least 1: the width of a row. Required.
      lookup_style: 'index' reads `table[ids]`: an id above V - 1 reads the last row and a negative
        one counts from the end. 'matmul' gives zeros for ids outside [0, V).
      scale_sqrt_depth: Whether the rows are multiplied by sqrt(D).
      set_nan_for_oob_id: Whether ids of V and above give NaN, so that they are noticed.
      array_lookup: The op of 'index'.
      einsum: The op of 'matmul'.

    Variables:
      emb_var: [V, D], sharded by `weight_split_dims_mapping.wt`

    Raises:
      ValueError: during setup, if a size is missing or `lookup_style` is unknown.
      TypeError: in a lookup, if the ids are not integers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from praxis import pax_fiddle
      >>> config = pax_fiddle.Config(Embedding, name="emb", num_classes=7, input_dims=4)
      >>> layer = pax_fiddle.build(config)
      >>> ids = jnp.array([[3, 1, 6], [0, 0, 2]])  # [B, T]
      >>> variables = layer.init(jax.random.PRNGKey(0), ids)
      >>> layer.apply(variables, ids).shape
      (2, 3, 4)
    """

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          emb_out_split_dims_mapping: Of the rows, [B, T, D].
        """

        emb_out_split_dims_mapping: base_layer.SplitDimsMapping = None

    num_classes: int = 0
    input_dims: int = 0
    lookup_style: str = lookup.INDEX
    scale_sqrt_depth: bool = False
    set_nan_for_oob_id: bool = False
    array_lookup: base_ops.ArrayLookup = instance_field(base_ops.ArrayLookup)
    einsum: base_ops.EinsumOp = instance_field(base_ops.EinsumOp)

    def setup(self) -> None:
        check_sizes(self, "num_classes", "input_dims")
        lookup.check_style(self, self.lookup_style)
        self.create_variable(
            "emb_var",
            base_layer.WeightHParams(
                shape=[self.num_classes, self.input_dims],
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )

    def __call__(self, ids: Shaped[Array, "*B"]) -> Float[Array, "*B D"]:
        """Same as `emb_lookup`."""
        return self.emb_lookup(ids)

    def emb_lookup(self, ids: Shaped[Array, "*B"]) -> Float[Array, "*B D"]:
        """Looks up the rows.

        Args:
          ids: [...], integers.

        Returns:
          [..., D], in `fprop_dtype`.
        """
        lookup.check_ids(self, ids)
        rows = lookup.lookup_rows(
            self.theta.emb_var,
            ids,
            style=self.lookup_style,
            array_lookup=self.array_lookup,
            einsum=self.einsum,
        )
        if self.set_nan_for_oob_id:
            rows = jnp.where((ids >= self.num_classes)[..., jnp.newaxis], jnp.nan, rows)
        if self.scale_sqrt_depth:
            rows *= math.sqrt(self.input_dims)
        return lookup.shard_rows(self, rows)

    def extend_step(
        self, ids: Shaped[Array, "*B"], *, time_step: Shaped[Array, "..."] | int
    ) -> Float[Array, "*B D"]:
        """Looks up the rows of one decoding step; the result does not depend on the step.

        Args:
          ids: [B] or [B, P], integers.
          time_step: [], the number of the step.

        Returns:
          [B, D] or [B, P, D], in `fprop_dtype`.
        """
        del time_step
        return self.emb_lookup(ids)
