"""A projection written as an einsum equation."""

from collections.abc import Sequence

from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers import base_ops
from praxis.utils.broadcasting import expand_rank

template_field = base_layer.template_field


class Einsum(base_layer.BaseLayer):
    """Computes `einsum(eqn, inputs, w) + b`.

    The initializer sees the true fans: letters of `w` that are summed out count as fan-in, letters
    of `w` that only the output shares count as fan-out.

    Attributes:
      eqn: Equation of two operands, the inputs first, e.g. "...D,DNH->...NH". Required.
      w_shape: Shape of `w`, one size a letter. Required.
      use_bias: Whether to add `b`; the fan-out letters must then come last in the output.
      einsum_op_tpl: Config of the operation that multiplies.

    Variables:
      w: `w_shape`, sharded with `weight_split_dims_mapping.wt`.
      b: the sizes of the fan-out letters, with `use_bias`; sharded as these axes of `w`.

    Raises:
      ValueError: during setup, if `eqn` is no equation of two operands, does not fit `w_shape`, or
        does not fit a bias.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> heads = pax_fiddle.Config(Einsum, eqn="...D,DNH->...NH", w_shape=(7, 3, 5))
      >>> layer = pax_fiddle.build(heads)
      >>> x = jnp.ones([2, 7])
      >>> layer.apply(layer.init(jax.random.PRNGKey(0), x), x).shape
      (2, 3, 5)
    """

    eqn: str = ""
    w_shape: Sequence[int] = ()
    use_bias: bool = False
    einsum_op_tpl: pax_fiddle.Config[base_layer.BaseLayer] = template_field(base_ops.EinsumOp)

    def setup(self) -> None:
        weight, fan_in, fan_out = self._fan_letters()
        mapping = self.weight_split_dims_mapping.wt
        self.create_variable(
            "w",
            base_layer.WeightHParams(
                shape=list(self.w_shape),
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=mapping,
                fan_in_axes=[weight.index(letter) for letter in fan_in],
                fan_out_axes=[weight.index(letter) for letter in fan_out],
            ),
        )
        if self.use_bias:
            axes = [weight.index(letter) for letter in self._bias_letters(fan_out)]
            self.create_variable(
                "b",
                base_layer.WeightHParams(
                    shape=[self.w_shape[axis] for axis in axes],
                    init=base_layer.WeightInit.Constant(0.0),
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=mapping and [mapping[axis] for axis in axes],
                ),
            )
        self.create_child("einsum", self.einsum_op_tpl)

    def _fan_letters(self) -> tuple[str, str, str]:
        """Splits the equation into the letters of `w`, those of the fan-in and of the fan-out."""
        operands, arrow, output = self.eqn.replace(" ", "").partition("->")
        inputs, comma, weight = operands.partition(",")
        if not (arrow and comma) or "," in weight or "." in weight:
            raise ValueError(
                f"{self.path_text}: eqn is {self.eqn!r}, expected two operands and an output, "
                'e.g. "...D,DNH->...NH".'
            )
        if len(weight) != len(self.w_shape):
            raise ValueError(
                f"{self.path_text}: w_shape is {tuple(self.w_shape)}, expected one size for each "
                f"letter of {weight!r} in eqn = {self.eqn!r}."
            )
        fan_in = "".join(letter for letter in weight if letter not in output)
        fan_out = "".join(letter for letter in weight if letter in output and letter not in inputs)
        return weight, fan_in, fan_out

    def _bias_letters(self, fan_out: str) -> str:
        """The fan-out letters in the order of the output."""
        output = self.eqn.replace(" ", "").partition("->")[2]
        letters = output[len(output) - len(fan_out) :]
        if sorted(letters) != sorted(fan_out):
            raise ValueError(
                f"{self.path_text}: use_bias needs an output that ends with the letters "
                f"{fan_out!r} that only w brings in, eqn is {self.eqn!r}."
            )
        return letters

    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Contracts `inputs` with `w` and adds the bias."""
        self._check_inputs(inputs)
        outputs = self.einsum(self.eqn, inputs, self.theta.w)
        if self.use_bias:
            outputs = outputs + expand_rank(self.theta.b, outputs.ndim)
        return outputs

    def _check_inputs(self, inputs: Float[Array, "..."]) -> None:
        """Refuses inputs that do not fit the equation and the sizes of `w`."""
        operand, weight = self.eqn.replace(" ", "").partition("->")[0].split(",")
        sizes = dict(zip(weight, self.w_shape, strict=True))
        front, dots, back = operand.partition("...")
        rank = len(front) + len(back)
        fits = inputs.ndim >= rank if dots else inputs.ndim == rank
        named = [*zip(front, inputs.shape, strict=False)]
        named += zip(back[::-1], inputs.shape[::-1], strict=False)
        if not fits or any(sizes.get(letter, size) != size for letter, size in named):
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected {operand!r} of "
                f"eqn = {self.eqn!r} with the sizes {sizes} of w."
            )
