"""Linear layers: projection, bias, feed-forward, blocks of them, and stacking of frames."""

import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, base_ops
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.sharding import shard_output
from praxis.utils.broadcasting import expand_rank

template_field = base_layer.template_field
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
SplitDimsMapping = base_layer.SplitDimsMapping


def project_last_dim(
    inputs: Float[Array, "*B D"], weight: Float[Array, "_ F"]
) -> Float[Array, "*B F"]:
    """Multiplies the last axis of `inputs` by a matrix.

    Args:
      inputs: [..., D], rank 2 or more.
      weight: [D, F].

    Raises:
      ValueError: if a rank is too small or the sizes of D differ.
    """
    if inputs.ndim < 2 or weight.ndim != 2 or inputs.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"project_last_dim: inputs have shape {inputs.shape} and weight has shape "
            f"{weight.shape}, expected [..., D] of rank 2 or more and [D, F]."
        )
    return jnp.einsum("...y,yz->...z", inputs, weight)


class Linear(base_layer.BaseLayer):
    """Computes `inputs @ w`.

    Shapes: D is `input_dims`, F is `output_dims`.

    Attributes:
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.
      weight_init: Initializer of `w`; None takes `params_init`.
      einsum_tpl: Config of the operation that multiplies.

    Variables:
      w: [D, F], sharded with `weight_split_dims_mapping.wt`.

    Raises:
      ValueError: during setup, if a size is missing or below 1; in `__call__`, if the last axis of
        the inputs is not D.

    Example:
      >>> import jax
      >>> config = pax_fiddle.Config(Linear, name="up", input_dims=4, output_dims=8)
      >>> layer = pax_fiddle.build(config)
      >>> x = jnp.ones([2, 3, 4])  # [B, T, D]
      >>> variables = layer.init(jax.random.PRNGKey(0), x)
      >>> layer.apply(variables, x).shape
      (2, 3, 8)
    """

    input_dims: int = 0
    output_dims: int = 0
    weight_init: WeightInit | None = None
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          out: Of the output, [B, T, F] in training.
          extend_step_out: Of the output of a decoding step, [B, F]; wins over `out` there.
        """

        extend_step_out: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        self.create_variable(
            "w",
            WeightHParams(
                shape=[self.input_dims, self.output_dims],
                init=self.weight_init,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )
        self.create_child("einsum", self.einsum_tpl)

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Projects the last axis.

        Args:
          inputs: [..., D].

        Returns:
          [..., F].
        """
        check_last_axis(self, inputs, "input_dims")
        outputs = self.einsum("...y,yz->...z", inputs, self.theta.w)
        return shard_output(self, outputs)


class Bias(base_layer.BaseLayer):
    """Adds a vector to the last axis.

    Attributes:
      dims: D, at least 1. Required.
      bias_init: The constant that `b` starts from; None takes `params_init`.

    Variables:
      b: [D], sharded with `weight_split_dims_mapping.wt`.

    Raises:
      ValueError: during setup, if `dims` is missing or below 1; in `__call__`, if the last axis of
        the inputs is not D.
    """

    dims: int = 0
    bias_init: float | None = 0.0

    def setup(self) -> None:
        check_sizes(self, "dims")
        init = None if self.bias_init is None else WeightInit.Constant(self.bias_init)
        self.create_variable(
            "b",
            WeightHParams(
                shape=[self.dims],
                init=init,
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=self.weight_split_dims_mapping.wt,
            ),
        )

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Adds `b` to `inputs`, [..., D]."""
        check_last_axis(self, inputs, "dims")
        return inputs + expand_rank(self.theta.b, inputs.ndim)


class FeedForward(base_layer.BaseLayer):
    """Computes `activation(inputs @ w + b)`.

    Shapes: D is `input_dims`, F is `output_dims`.

    Attributes:
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.
      has_bias: Whether to add `b`.
      linear_tpl: Config of the projection. The sizes, `weight_init` and both shardings of this
        layer are filled in.
      bias_tpl: Config of the bias. F and `bias_init` are filled in; the sharding too, when there
        is a mesh and the output of this layer is sharded.
      activation_tpl: Config of the nonlinearity.
      weight_init: Initializer of `w`; None takes `params_init`.
      bias_init: The constant that `b` starts from; None takes `params_init`.
      checkpoint_str: Name of the projection, before the bias, for rematerialization policies;
        None gives no name.

    Variables:
      linear/w: [D, F]
      bias/b: [F], with `has_bias`

    Raises:
      ValueError: during setup, if a size is missing or below 1.
    """

    input_dims: int = 0
    output_dims: int = 0
    has_bias: bool = True
    linear_tpl: LayerTpl = template_field(Linear)
    bias_tpl: LayerTpl = template_field(Bias)
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(activations.ReLU)
    weight_init: WeightInit | None = None
    bias_init: float | None = 0.0
    checkpoint_str: str | None = None

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          out: Of the output, [B, T, F] in training.
          extend_step_out: Of the output of a decoding step, [B, F]; wins over `out` there.
        """

        extend_step_out: SplitDimsMapping = None

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        linear = self.linear_tpl.clone().set(
            input_dims=self.input_dims,
            output_dims=self.output_dims,
            weight_init=self.weight_init,
            weight_split_dims_mapping=self.weight_split_dims_mapping.clone(),
            activation_split_dims_mapping=self.activation_split_dims_mapping.clone(),
        )
        self.create_child("linear", linear)
        if self.has_bias:
            bias = self.bias_tpl.clone().set(dims=self.output_dims, bias_init=self.bias_init)
            out = self.activation_split_dims_mapping.out
            if self.mesh_shape is not None and out is not None:
                bias.weight_split_dims_mapping.wt = [out[-1]]
            self.create_child("bias", bias)
        self.create_child("activation", self.activation_tpl)

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Projects, adds the bias and applies the nonlinearity.

        Args:
          inputs: [..., D].

        Returns:
          [..., F].
        """
        outputs = self.linear(inputs)
        if self.checkpoint_str is not None:
            outputs = checkpoint_name(outputs, self.checkpoint_str)
        if self.has_bias:
            outputs = self.bias(outputs)
        return self.activation(outputs)


class MLPBlock(base_layer.BaseLayer):
    """A chain of feed-forward layers.

    Shapes: D is `ff_tpl.input_dims`, H is `hidden_dims`, F is `ff_tpl.output_dims`.

    Attributes:
      num_layers: Number of feed-forward layers, at least 1.
      hidden_dims: H, the width between two layers.
      activate_final: Whether the last layer applies the nonlinearity of `ff_tpl` too.
      ff_tpl: Config of each layer; its sizes are those of the whole block.

    Variables:
      mlp_layers_0 .. mlp_layers_{num_layers-1}: as in `FeedForward`

    Raises:
      ValueError: during setup, if `num_layers` or `hidden_dims` is below 1.
    """

    num_layers: int = 3
    hidden_dims: int = 128
    activate_final: bool = True
    ff_tpl: LayerTpl = template_field(FeedForward)

    def setup(self) -> None:
        check_sizes(self, "num_layers", "hidden_dims")
        last = self.num_layers - 1
        layers = []
        for i in range(self.num_layers):
            layer = self.ff_tpl.clone()
            layer.input_dims = self.ff_tpl.input_dims if i == 0 else self.hidden_dims
            layer.output_dims = self.ff_tpl.output_dims if i == last else self.hidden_dims
            if i == last and not self.activate_final:
                layer.activation_tpl = pax_fiddle.Config(activations.Identity)
            layers.append(layer)
        self.create_children("mlp_layers", layers)

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Applies the layers in order: [..., D] to [..., F]."""
        outputs = inputs
        for layer in self.mlp_layers:
            outputs = layer(outputs)
        return outputs


class StackingOverTime(base_layer.BaseLayer):
    """Joins neighbouring frames on the feature axis and keeps every `stride`-th result.

    Shapes: T input frames, W = left_context + 1 + right_context frames in a window,
    T' = ceil(T / stride) windows.

    Attributes:
      left_context: Frames before the centre of a window.
      right_context: Frames after the centre of a window.
      stride: Frames between the centres of two windows. Required, at least 1.
      pad_with_left_frame: Repeat the first frame before the start, instead of zeros.
      pad_with_right_frame: Repeat the last frame after the end, instead of zeros.
      padding_reduce_option: "reduce_min" makes a window padded if all of its frames are,
        "reduce_max" if any is. Frames outside of the inputs count as padded.

    Raises:
      ValueError: during setup, if a field is out of range; in `__call__`, if the paddings do not
        have the shape of the inputs; in `unstack`, if `stride` exceeds W
        or the width of the inputs is no multiple of W.
    """

    left_context: int = 0
    right_context: int = 0
    stride: int = 0
    pad_with_left_frame: bool = False
    pad_with_right_frame: bool = False
    padding_reduce_option: str = "reduce_min"

    @property
    def window_size(self) -> int:
        """W, the number of frames in a window."""
        return self.left_context + 1 + self.right_context

    def setup(self) -> None:
        check_sizes(self, "stride")
        for field in ("left_context", "right_context"):
            if (frames := getattr(self, field)) < 0:
                raise ValueError(f"{self.path_text}: {field} is {frames}, expected 0 or more.")
        if self.padding_reduce_option not in ("reduce_min", "reduce_max"):
            raise ValueError(
                f"{self.path_text}: padding_reduce_option is {self.padding_reduce_option!r}, "
                "expected 'reduce_min' or 'reduce_max'."
            )

    def __call__(
        self,
        inputs: Shaped[Array, "B T D"],
        paddings: Shaped[Array, "..."] | None = None,
    ) -> tuple[Shaped[Array, "B _ _"], Shaped[Array, "B _ 1"] | None]:
        """Stacks the frames of each window.

        Args:
          inputs: [B, T, D].
          paddings: [B, T, 1], 1 marks padding; None means that no frame is padded.

        Returns:
          The windows [B, T', W * D], and their paddings [B, T', 1]: zeros if none were given. With
          W = stride = 1 both arguments come back as they are.
        """
        if paddings is not None and paddings.shape != (*inputs.shape[:2], 1):
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, expected [B, T, 1] with "
                f"the B and T of the inputs, of shape {inputs.shape}."
            )
        if self.window_size == 1 and self.stride == 1:
            return inputs, paddings
        frames = _pad_time(inputs, before=self.left_context, edge=self.pad_with_left_frame)
        frames = _pad_time(frames, after=self.right_context, edge=self.pad_with_right_frame)
        windows = self._join_windows(frames)
        if paddings is None:
            return windows, jnp.zeros((*windows.shape[:2], 1), windows.dtype)
        padded = _pad_time(paddings, before=self.left_context, after=self.right_context, fill=1.0)
        reduce = jnp.min if self.padding_reduce_option == "reduce_min" else jnp.max
        return windows, reduce(self._join_windows(padded), axis=-1, keepdims=True)

    def _join_windows(self, frames: Shaped[Array, "B _ D"]) -> Shaped[Array, "B _ _"]:
        """Joins the frames of each window: [B, T + W - 1, D] to [B, T', W * D]."""
        length = frames.shape[1] - self.window_size + 1
        shifted = [frames[:, i : i + length : self.stride] for i in range(self.window_size)]
        return jnp.concatenate(shifted, axis=-1)

    def unstack(self, stacked: Shaped[Array, "B T W"]) -> Shaped[Array, "B _ _"]:
        """Inverts `__call__` as far as the windows cover the frames.

        Args:
          stacked: [B, T', W * D].

        Returns:
          [B, (T' - 1) * stride + right_context + 1, D]. Frame t comes from window t // stride when
          that one reaches so far to the right, otherwise from the next.
        """
        window = self.window_size
        if window == 1 and self.stride == 1:
            return stacked
        if self.stride > window:
            raise ValueError(
                f"{self.path_text}: stride = {self.stride} exceeds the window of {window} frames "
                "(left_context + 1 + right_context), so some frames are in no window and cannot "
                "be unstacked."
            )
        batch, num_windows, width = stacked.shape
        if width % window:
            raise ValueError(
                f"{self.path_text}: inputs have shape {stacked.shape}, expected a last axis that "
                f"is a multiple of the window of {window} frames."
            )
        frames = stacked.reshape(batch, num_windows, window, width // window)
        time = np.arange((num_windows - 1) * self.stride + self.right_context + 1)
        source = time // self.stride + (time % self.stride > self.right_context)
        # With right_context >= stride the last frames are only in the last window.
        source = np.minimum(source, num_windows - 1)
        return frames[:, source, self.left_context + time - source * self.stride]


def _pad_time(
    frames: Shaped[Array, "B T D"],
    *,
    before: int = 0,
    after: int = 0,
    edge: bool = False,
    fill: float = 0.0,
) -> Shaped[Array, "B _ D"]:
    """Adds frames at the ends of axis 1: copies of the outermost frame, or frames of `fill`."""
    widths = ((0, 0), (before, after), (0, 0))
    if edge:
        return jnp.pad(frames, widths, mode="edge")
    return jnp.pad(frames, widths, constant_values=fill)
