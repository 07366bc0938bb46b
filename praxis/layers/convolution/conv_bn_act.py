"""Convolution of images, batch normalization and nonlinearity in one layer."""

from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations
from praxis.layers.convolution.conv import Conv2D
from praxis.layers.convolution.padding import same_output_paddings, valid_output_paddings
from praxis.layers.normalization.batch import BatchNorm

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class ConvBNAct(Conv2D):
    """Computes `activation(batch_norm(conv(x)))`.

    Attributes:
      batch_norm_tpl: Config of the normalization; None leaves it out. F is filled in, and the
        moments of the batch are used in training.
      activation_tpl: Config of the nonlinearity.

    Variables:
      w, b, weight_norm: as in `Conv2D`
      bn: as in `batch_norm_tpl`

    Raises:
      ValueError: as `Conv2D`.
    """

    batch_norm_tpl: LayerTpl | None = template_field(BatchNorm)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(activations.ReLU)

    def setup(self) -> None:
        super().setup()
        if self.batch_norm_tpl is not None:
            batch_norm = self.batch_norm_tpl.clone().set(
                dim=self.filter_shape[-1], use_moving_avg_in_training=False
            )
            self.create_child("bn", batch_norm)
        self.create_child("activation", self.activation_tpl)

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H_ W_ F"]:
        """Convolves, normalizes and activates `inputs`, [B, H, W, C]; returns [B, H', W', F]."""
        outputs = super().__call__(inputs)
        if self.batch_norm_tpl is not None:
            outputs = self.bn(outputs)
        return self.activation(outputs)


class ConvBNActWithPadding(ConvBNAct):
    """`ConvBNAct` over sequences, whose height is time, that also says which outputs are padding.

    Padded rows are zeroed before the convolution, so what they hold reaches no output.

    Attributes:
      compat_with_lingvo: With padding "SAME" and a stride s above 1, output i counts as padding if
        row (i + 1) * s - 1 does, or if there is none, as in Lingvo; by default if row i * s does.

    Variables:
      w, b, weight_norm, bn: as in `ConvBNAct`

    Raises:
      ValueError: as `Conv2D`; and during setup, for `compat_with_lingvo` with dilations; in
        `__call__`, if the paddings do not fit.
    """

    compat_with_lingvo: bool = False

    def setup(self) -> None:
        super().setup()
        if self.compat_with_lingvo and tuple(self.dilations) != (1, 1):
            raise ValueError(
                f"{self.path_text}: compat_with_lingvo = True needs dilations = (1, 1), got "
                f"{tuple(self.dilations)}."
            )

    # Paddings come and go beside the images.
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Float[Array, "B H W C"], paddings: Shaped[Array, "..."]
    ) -> tuple[Float[Array, "B H_ W_ F"], Shaped[Array, "B H_"]]:
        """Convolves, normalizes and activates.

        Args:
          inputs: [B, H, W, C].
          paddings: [B, H], 1 marks padding.

        Returns:
          Outputs [B, H', W', F] and their paddings [B, H']. Padded outputs are 0, but for padding
          "SAME" with stride 1, where both the paddings and the padded outputs stay as they are.
          With padding "VALID" an output is padding if all the rows it sees are.
        """
        if paddings.shape != inputs.shape[:2]:
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, inputs have shape "
                f"{inputs.shape}; expected paddings [B, H] = {inputs.shape[:2]}."
            )
        outputs = super().__call__(py_utils.apply_padding(inputs, paddings, axis=0))
        stride = self.filter_stride[0]
        if self.padding == "SAME" and stride == 1:
            return outputs, paddings
        if self.padding == "SAME":
            paddings = same_output_paddings(paddings, stride, from_last=self.compat_with_lingvo)
        else:
            paddings = valid_output_paddings(
                paddings,
                window=self.filter_shape[0],
                stride=stride,
                dilation=self.dilations[0],
            )
        return py_utils.apply_padding(outputs, paddings, axis=0), paddings
