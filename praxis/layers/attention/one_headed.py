"""Projection to the one head of keys, or of values, that all queries share."""

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.utils.broadcasting import expand_rank

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


class OneHeadedAttentionProjection(base_layer.BaseLayer):
    """Computes `inputs @ w + b`, without an axis for heads.

    Shapes: D is `input_dim`, H is `output_dim`.

    Attributes:
      input_dim: D, at least 1. Required.
      output_dim: H, at least 1. Required.
      use_bias: Whether to add `b`.
      einsum_tpl: Config of the operation that multiplies.

    Variables:
      w: [D, H], sharded with `weight_split_dims_mapping.wt`
      b: [H], sharded as the second axis of `w`; with `use_bias`

    Raises:
      ValueError: during setup, if a size is below 1; in `__call__`, if the inputs have another
        width.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> config = pax_fiddle.Config(OneHeadedAttentionProjection, input_dim=5, output_dim=3)
      >>> layer = pax_fiddle.build(config)
      >>> x = jnp.ones([2, 7, 5])
      >>> layer.apply(layer.init(jax.random.PRNGKey(0), x), x).shape
      (2, 7, 3)
    """

    input_dim: int = 0
    output_dim: int = 0
    use_bias: bool = True
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)

    def setup(self) -> None:
        check_sizes(self, "input_dim", "output_dim")
        wt = self.weight_split_dims_mapping.wt
        self.create_variable(
            "w",
            WeightHParams(
                shape=[self.input_dim, self.output_dim],
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=wt,
            ),
        )
        if self.use_bias:
            self.create_variable(
                "b",
                WeightHParams(
                    shape=[self.output_dim],
                    init=WeightInit.Constant(0.0),
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=None if wt is None else [wt[1]],
                ),
            )
        self.create_child("einsum", self.einsum_tpl)

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B H"]:
        """Projects [..., D] to [..., H], in `fprop_dtype`."""
        inputs = self._cast_to_fprop_dtype(inputs)
        check_last_axis(self, inputs, "input_dim")
        outputs = self.einsum("...D,DH->...H", inputs, self.theta.w)
        if self.use_bias:
            outputs += expand_rank(self.theta.b, outputs.ndim)
        return outputs
