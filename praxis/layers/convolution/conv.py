"""Convolutions over images and video."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jax import lax
from jaxtyping import Array, Float

from praxis import base_layer, pax_fiddle
from praxis.layers.convolution.padding import conv_padding
from praxis.layers.normalization.base import BaseNormalization, IdentityNorm
from praxis.utils.broadcasting import expand_rank

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field
PADDINGS = ("SAME", "VALID")


def zeros_init() -> Any:
    """Declares an initializer field that starts from 0."""
    return pax_fiddle.instance_field(pax_fiddle.auto_config(lambda: WeightInit.Constant(0.0)))


class BaseConv(base_layer.BaseLayer):
    """What convolutions over any number of axes share.

    Attributes:
      filter_shape: Size of the kernel along each axis, then input channels of a group, then output
        channels. Required.
      filter_stride: Step along each axis, in positions. Required.
      dilations: Distance of the inputs that a kernel meets along each axis, in positions.
      bias: Whether to add `b`.
      bias_init: Initializer of `b`.
      kernel_init: Initializer of `w`; None takes `params_init`.
      padding: "SAME" or "VALID", which pads nothing.
      tf_equivalent_padding: How "SAME" pads. False: by what the kernel spans alone, half before and
        half (the larger one) after. True: as XLA and TensorFlow do, by stride and input size too.
      is_causal: Along the first axis no output sees a later input. Needs `tf_equivalent_padding`
        and "SAME"; the other axes are then padded by what the kernel spans.
    """

    filter_shape: Sequence[int] = ()
    filter_stride: Sequence[int] = ()
    dilations: Sequence[int] = ()
    bias: bool = False
    bias_init: WeightInit = zeros_init()
    kernel_init: WeightInit | None = None
    padding: str = "SAME"
    tf_equivalent_padding: bool = False
    is_causal: bool = False

    # Names of the axes that the kernel moves along, first the one of `is_causal`.
    axes: ClassVar[str] = ""

    @classmethod
    def HParamsDepthwise(
        cls,
        *,
        kernel_shape: Sequence[int],
        in_channels: int,
        channel_multipliers: int = 1,
        **hparams: Any,
    ) -> pax_fiddle.Config:
        """Returns a config of a convolution of each channel on its own.

        Args:
          kernel_shape: Size of the kernel along each axis.
          in_channels: Channels of the inputs.
          channel_multipliers: Channels that each of them gives.
          **hparams: Other fields, without `filter_shape`.

        Raises:
          ValueError: if there are not as many sizes as axes, or there is a `filter_shape`.
        """
        if len(kernel_shape) != len(cls.axes):
            raise ValueError(
                f"{cls.__name__}.HParamsDepthwise: kernel_shape is {tuple(kernel_shape)}, expected "
                f"{len(cls.axes)} sizes, ({', '.join(cls.axes)})."
            )
        if "filter_shape" in hparams:
            raise ValueError(
                f"{cls.__name__}.HParamsDepthwise: filter_shape = {hparams['filter_shape']} is "
                "given, but follows from kernel_shape, in_channels and channel_multipliers. "
                "Leave it out."
            )
        shape = (*kernel_shape, 1, in_channels * channel_multipliers)
        return pax_fiddle.Config(cls, filter_shape=shape, **hparams)

    def check_dimensions(self) -> None:
        """Refuses fields that contradict each other.

        Raises:
          ValueError: naming the layer and the field.
          NotImplementedError: for a causal convolution that is not padded.
        """
        sizes = {"filter_shape": len(self.axes) + 2}
        sizes |= dict.fromkeys(("filter_stride", "dilations"), len(self.axes))
        for field, length in sizes.items():
            value = tuple(getattr(self, field))
            if len(value) != length or min(value) < 1:
                names = [*self.axes, "in", "out"][:length]
                raise ValueError(
                    f"{self.path_text}: {field} is {value}, expected {length} sizes of at least 1, "
                    f"({', '.join(names)}). Set it in the config."
                )
        if self.padding not in PADDINGS:
            raise ValueError(
                f"{self.path_text}: padding is {self.padding!r}, expected one of {PADDINGS}."
            )
        if not self.is_causal:
            return
        if not self.tf_equivalent_padding:
            raise ValueError(
                f"{self.path_text}: is_causal = True needs tf_equivalent_padding = True. Set both."
            )
        if self.padding == "VALID":
            raise NotImplementedError(
                f"{self.path_text}: is_causal = True is not implemented for padding = 'VALID'. "
                "Use 'SAME'."
            )

    def setup(self) -> None:
        self.check_dimensions()
        self.create_variable(
            "w",
            WeightHParams(
                shape=list(self.filter_shape),
                init=self.kernel_init,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )
        if self.bias:
            mapping = self.weight_split_dims_mapping.wt
            self.create_variable(
                "b",
                WeightHParams(
                    shape=[self.filter_shape[-1]],
                    init=self.bias_init,
                    mesh_shape=self.mesh_shape,
                    tensor_split_dims_mapping=None if mapping is None else [mapping[-1]],
                ),
            )

    def _num_groups(self, inputs: Float[Array, "..."]) -> int:
        """Number of groups that the channels of the inputs fall into; refuses others."""
        rank, width = len(self.axes) + 2, self.filter_shape[-2]
        if inputs.ndim != rank or inputs.shape[-1] % width:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected "
                f"[B, {', '.join(self.axes)}, C] with C a multiple of the {width} input channels "
                f"of filter_shape = {tuple(self.filter_shape)}."
            )
        groups = inputs.shape[-1] // width
        if self.filter_shape[-1] % groups:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, which makes {groups} groups "
                f"of channels; the {self.filter_shape[-1]} output channels of filter_shape = "
                f"{tuple(self.filter_shape)} are not a multiple of them."
            )
        return groups

    def _convolve(
        self, inputs: Float[Array, "*B C"], kernel: Float[Array, "..."]
    ) -> Float[Array, "*B_ C_"]:
        """Convolves with a kernel and adds the bias; in `fprop_dtype`."""
        inputs = self._cast_to_fprop_dtype(inputs)
        groups = self._num_groups(inputs)
        outputs = lax.conv_general_dilated(
            inputs,
            kernel,
            window_strides=tuple(self.filter_stride),
            padding=conv_padding(
                self.filter_shape[:-2],
                self.dilations,
                padding=self.padding,
                tf_equivalent_padding=self.tf_equivalent_padding,
                is_causal=self.is_causal,
            ),
            rhs_dilation=tuple(self.dilations),
            dimension_numbers=(f"N{self.axes}C", f"{self.axes}IO", f"N{self.axes}C"),
            feature_group_count=groups,
        )
        return outputs + expand_rank(self.theta.b, outputs.ndim) if self.bias else outputs


class Conv2D(BaseConv):
    """Convolves images.

    Shapes: H and W are the height and the width of the inputs, C their channels, F the output
    channels. With fewer input channels in `filter_shape` than C, the channels fall into groups that
    are convolved on their own: with 1, it is a depthwise convolution.

    Attributes:
      filter_shape: (height, width, input channels of a group, F). Required.
      filter_stride: (height, width), in pixels. Required.
      dilations: (height, width), in pixels.
      bias: Whether to add `b`.
      bias_init: Initializer of `b`.
      kernel_init: Initializer of `w`; None takes `params_init`.
      padding: "SAME" or "VALID", see `BaseConv`.
      tf_equivalent_padding: How "SAME" pads, see `BaseConv`.
      is_causal: Whether no output sees inputs that are further down, see `BaseConv`.
      weight_norm_tpl: Config of a normalization of `w`. F is filled in.

    Variables:
      w: `filter_shape`, sharded with `weight_split_dims_mapping.wt`
      b: [F], with `bias`
      weight_norm: as in `weight_norm_tpl`

    Raises:
      ValueError: during setup, if a shape is missing or has another length, or the fields
        contradict each other; in `__call__`, if the channels do not fit.
      NotImplementedError: during setup, for a causal convolution with padding "VALID".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> config = pax_fiddle.Config(Conv2D, filter_shape=(3, 3, 4, 8), filter_stride=(2, 2))
      >>> layer = pax_fiddle.build(config)
      >>> x = jnp.ones([2, 6, 10, 4])  # [B, H, W, C]
      >>> layer.apply(layer.init(jax.random.PRNGKey(0), x), x).shape
      (2, 3, 5, 8)
    """

    filter_shape: Sequence[int] = (0, 0, 0, 0)
    filter_stride: Sequence[int] = (0, 0)
    dilations: Sequence[int] = (1, 1)
    weight_norm_tpl: pax_fiddle.Config[BaseNormalization] = template_field(IdentityNorm)

    axes: ClassVar[str] = "HW"

    def setup(self) -> None:
        super().setup()
        self.create_child(
            "weight_norm", self.weight_norm_tpl.clone().set(dim=self.filter_shape[-1])
        )

    def __call__(self, inputs: Float[Array, "B H W C"]) -> Float[Array, "B H_ W_ F"]:
        """Convolves `inputs`, [B, H, W, C]; returns [B, H', W', F] in `fprop_dtype`."""
        return self._convolve(inputs, self.weight_norm(self.theta.w))


class Conv3D(BaseConv):
    """Convolves video.

    Shapes: T is the number of frames, H and W are their height and width, C the channels, F the
    output channels. Groups are as in `Conv2D`.

    Attributes:
      filter_shape: (frames, height, width, input channels of a group, F). Required.
      filter_stride: (frames, height, width), in frames and pixels. Required.
      dilations: (frames, height, width), in frames and pixels.
      bias: Whether to add `b`.
      bias_init: Initializer of `b`.
      kernel_init: Initializer of `w`; None takes `params_init`.
      padding: "SAME" or "VALID", see `BaseConv`.
      tf_equivalent_padding: How "SAME" pads, see `BaseConv`.
      is_causal: Whether no output sees later frames, see `BaseConv`.

    Variables:
      w: `filter_shape`, sharded with `weight_split_dims_mapping.wt`
      b: [F], with `bias`

    Raises:
      ValueError: during setup, if a shape is missing or has another length, or the fields
        contradict each other; in `__call__`, if the channels do not fit.
      NotImplementedError: during setup, for a causal convolution with padding "VALID".
    """

    filter_shape: Sequence[int] = (0, 0, 0, 0, 0)
    filter_stride: Sequence[int] = (0, 0, 0)
    dilations: Sequence[int] = (1, 1, 1)

    # Time, height, width; letters of their own for the layout of XLA.
    axes: ClassVar[str] = "THW"

    def __call__(self, inputs: Float[Array, "B T H W C"]) -> Float[Array, "B T_ H_ W_ F"]:
        """Convolves `inputs`, [B, T, H, W, C]; returns [B, T', H', W', F] in `fprop_dtype`."""
        return self._convolve(inputs, self.theta.w)
