"""What a variable is: how it starts, its shape, type and sharding, and the collections it is in."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from fiddle.experimental import auto_config as fiddle_auto_config
from fiddle.experimental import serialization

from praxis.config.config import PaxConfig

# Of an initializer; NumPy numbers count as Python's.
Scale = float | int | np.generic

SplitDimsMapping = Sequence[str | int | Sequence[str] | None] | None

# The scale that marks an initializer nobody chose, so that a layer may hand its own to a child.
DEFAULT_XAVIER_SCALE = 1.000001


def _initializer(function: Callable[..., "WeightInit"]) -> fiddle_auto_config.AutoConfig:
    """Makes a constructor that a config field shows as an editable `Config(WeightInit, ...)`."""

    def as_buildable(*args: Any, **kwargs: Any) -> PaxConfig:
        made = function(*args, **kwargs)
        return PaxConfig(WeightInit, method=made.method, scale=made.scale)

    return fiddle_auto_config.AutoConfig(
        func=function, buildable_func=as_buildable, always_inline=True
    )


@dataclasses.dataclass
class WeightInit:
    """How a variable starts; `praxis.core.initializers` has the formula of each method.

    In the constructors, n is a standard normal draw, u uniform in [-1, 1), t normal truncated to
    [-2, 2] (its standard deviation, about 0.88, is not corrected), `d0` the first dim of the shape,
    `fan_in` and `fan_out` the fans of `get_fan_in_fan_out`.

    Attributes:
      method: Name of the formula.
      scale: Factor of the formula, or the constant itself.
    """

    method: str
    scale: Scale

    @staticmethod
    @_initializer
    def Gaussian(scale: Scale = 1.0) -> "WeightInit":
        """`scale * n`."""
        return WeightInit("gaussian", scale)

    @staticmethod
    @_initializer
    def Uniform(scale: Scale = 1.0) -> "WeightInit":
        """`scale * u`."""
        return WeightInit("uniform", scale)

    @staticmethod
    @_initializer
    def Constant(scale: Scale = 1.0) -> "WeightInit":
        """`scale` everywhere."""
        return WeightInit("constant", scale)

    @staticmethod
    @_initializer
    def TruncatedGaussian(scale: Scale = 1.0) -> "WeightInit":
        """`scale * t`."""
        return WeightInit("truncated_gaussian", scale)

    @staticmethod
    @_initializer
    def Xavier(scale: Scale = 1.0) -> "WeightInit":
        """`scale * sqrt(6 / (fan_in + fan_out)) * u`.

        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010.
        """
        return WeightInit("xavier", scale)

    @staticmethod
    @_initializer
    def XavierWithFixupParams(
        scale: Scale = 1.0, depth: float = 1.0, layers_per_residual_block: float = 1.0
    ) -> "WeightInit":
        """Xavier with `scale * depth ** (-1 / (2 * layers_per_residual_block))`.

        Zhang et al., "Fixup Initialization", 2019, arXiv:1901.09321.
        """
        fixup = depth ** (-1.0 / (2 * layers_per_residual_block))
        return WeightInit("xavier", scale * fixup)

    @staticmethod
    @_initializer
    def GaussianSqrtDim(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(d0) * n`."""
        return WeightInit("gaussian_sqrt_dim", scale)

    @staticmethod
    @_initializer
    def UniformSqrtDim(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(d0) * u`."""
        return WeightInit("uniform_sqrt_dim", scale)

    @staticmethod
    @_initializer
    def TruncatedGaussianSqrtDim(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(d0) * t`."""
        return WeightInit("truncated_gaussian_sqrt_dim", scale)

    @staticmethod
    @_initializer
    def GaussianSqrtFanIn(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(fan_in) * n`."""
        return WeightInit("gaussian_sqrt_fanin", scale)

    @staticmethod
    @_initializer
    def GaussianSqrtFanOut(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(fan_out) * n`."""
        return WeightInit("gaussian_sqrt_fanout", scale)

    @staticmethod
    @_initializer
    def TruncatedGaussianSqrtFanIn(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(fan_in) * t`."""
        return WeightInit("truncated_gaussian_sqrt_fanin", scale)

    @staticmethod
    @_initializer
    def TruncatedGaussianSqrtFanOut(scale: Scale = 1.0) -> "WeightInit":
        """`scale / sqrt(fan_out) * t`."""
        return WeightInit("truncated_gaussian_sqrt_fanout", scale)

    @staticmethod
    @_initializer
    def GaussianSqrtFanAvg(scale: Scale = 1.0) -> "WeightInit":
        """`scale * sqrt(2 / (fan_in + fan_out)) * n`."""
        return WeightInit("gaussian_sqrt_fanavg", scale)

    @staticmethod
    @_initializer
    def UniformSqrtFanAvg(scale: Scale = 1.0) -> "WeightInit":
        """`scale * sqrt(6 / (fan_in + fan_out)) * u`."""
        return WeightInit("uniform_sqrt_fanavg", scale)

    @staticmethod
    @_initializer
    def UniformUnitScaling(scale: Scale = 1.0) -> "WeightInit":
        """`scale * sqrt(3 / m) * u`, m the product of all dims but the last."""
        return WeightInit("uniform_unit_scaling", scale)

    @staticmethod
    @_initializer
    def ScaledDeltaOrthogonal(scale: Scale = 1.0) -> "WeightInit":
        """An orthogonal matrix at the spatial centre, zero elsewhere; `scale` acts below rank 2.

        Xiao et al., "Dynamical Isometry and a Mean Field Theory of CNNs", 2018, arXiv:1806.05393.
        """
        return WeightInit("delta_orthogonal", scale)


# A config that holds an initializer, not the config of one, can be written as JSON too.
serialization.register_dict_based_object(WeightInit)


@_initializer
def default_param_init() -> WeightInit:
    """The initializer of a layer whose user chose none."""
    return WeightInit("xavier", DEFAULT_XAVIER_SCALE)


def is_default_param_init(p: WeightInit | PaxConfig) -> bool:
    """Returns whether an initializer, or the config of one, is that of `default_param_init`."""
    return p.method == "xavier" and abs(float(p.scale) - DEFAULT_XAVIER_SCALE) < 1e-7


class WeightHParamsCollection:
    """Names in `WeightHParams.collections`; they are stored in saved metadata.

    Attributes:
      SKIP_LP_REGULARIZATION: No weight decay.
      NON_TRAINABLE: The learner leaves the variable alone.
      REQUIRES_MEAN_SYNC: A non-trainable update is averaged over data shards.
      REQUIRES_SUM_SYNC: A non-trainable update is summed over data shards.
      DISALLOW_BFLOAT16_CONVERSION: Stays in its dtype under a low-precision `fprop_dtype`.
      OVERWRITE_WITH_GRADIENT: The learner stores the gradient as the new value.
    """

    SKIP_LP_REGULARIZATION = "__lingvo_jax_skip_regularization"
    NON_TRAINABLE = "_lingvo_jax_non_trainable"
    REQUIRES_MEAN_SYNC = "_requires_mean_sync"
    REQUIRES_SUM_SYNC = "_requires_sum_sync"
    DISALLOW_BFLOAT16_CONVERSION = "_disallow_bfloat16_conversion"
    OVERWRITE_WITH_GRADIENT = "_overwrite_with_gradient"


@dataclasses.dataclass
class WeightHParams:
    """Declares one variable.

    Attributes:
      shape: Shape of one layer's variable, without the dims of a stack of layers.
      init: How it starts; None: the layer's `params_init`.
      dtype: Type it is stored in; None: the layer's `dtype`.
      collections: Names from `WeightHParamsCollection`.
      mesh_shape: Shape of the device mesh, or None.
      tensor_split_dims_mapping: One entry a dim: None or -1 replicates, a name or index is a mesh
        axis, several axes may share a dim.
      repeat_prefix: Sizes of the stacks the layer is in, outermost first.
      repeat_prefix_split_dims_mapping: Sharding of `repeat_prefix`.
      repeat_optimizer_dims_mapping: Sharding of `repeat_prefix` in optimizer state.
      fan_in_axes: Axes whose product is the fan-in; None: the convolution rule.
      fan_out_axes: As `fan_in_axes`, for the fan-out.

    Raises:
      ValueError: if a split-dims mapping and its dims differ in length.
    """

    shape: Sequence[int]
    init: WeightInit | None = None
    dtype: Any = None
    collections: Sequence[str] | None = None
    mesh_shape: Sequence[int] | None = None
    tensor_split_dims_mapping: SplitDimsMapping = None
    repeat_prefix: Sequence[int] | None = None
    repeat_prefix_split_dims_mapping: SplitDimsMapping = None
    repeat_optimizer_dims_mapping: SplitDimsMapping = None
    fan_in_axes: Sequence[int] | None = None
    fan_out_axes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.collections is None:
            self.collections = []
        mapping = self.tensor_split_dims_mapping
        if mapping is None:
            if self.mesh_shape is not None:
                logging.debug("A variable of shape %s has no sharding: replicated.", self.shape)
                self.tensor_split_dims_mapping = [-1] * len(self.shape)
        elif self.mesh_shape is not None and len(mapping) != len(self.shape):
            raise ValueError(
                f"tensor_split_dims_mapping {mapping} has {len(mapping)} entries, expected one for "
                f"each dim of shape {list(self.shape)}."
            )

    @property
    def full_shape(self) -> Sequence[int]:
        """The shape of the stored array: stacks of layers in front."""
        return [*(self.repeat_prefix or ()), *self.shape]

    @property
    def full_split_dims_mapping(self) -> SplitDimsMapping:
        """The sharding of the stored array, one entry a dim of `full_shape`."""
        prefix = self.repeat_prefix or ()
        prefix_mapping = self.repeat_prefix_split_dims_mapping
        if prefix_mapping is None or not prefix:
            prefix_mapping = [-1] * len(prefix)
        if len(prefix_mapping) != len(prefix):
            raise ValueError(
                f"repeat_prefix_split_dims_mapping {prefix_mapping} and repeat_prefix {prefix} "
                "differ in length."
            )
        own = self.tensor_split_dims_mapping
        return [*prefix_mapping, *([-1] * len(self.shape) if own is None else own)]

    def copy_with_defaults(self, init: WeightInit | None, dtype: Any) -> "WeightHParams":
        """Returns a copy that a layer owns, with `init` and `dtype` where none is set."""
        own = copy.copy(self)
        own.init = copy.copy(self.init if self.init is not None else init)
        own.dtype = self.dtype if self.dtype is not None else dtype
        own.collections = list(self.collections or ())
        return own


def _is_in(hparams: WeightHParams, collection: str) -> bool:
    return collection in (hparams.collections or ())


def var_not_trainable(var_hparams: WeightHParams) -> bool:
    """Returns whether the learner leaves the variable alone."""
    return _is_in(var_hparams, WeightHParamsCollection.NON_TRAINABLE)


def var_requires_mean_sync(var_hparams: WeightHParams) -> bool:
    """Returns whether a non-trainable update is averaged over data shards."""
    return _is_in(var_hparams, WeightHParamsCollection.REQUIRES_MEAN_SYNC)


def var_requires_sum_sync(var_hparams: WeightHParams) -> bool:
    """Returns whether a non-trainable update is summed over data shards."""
    return _is_in(var_hparams, WeightHParamsCollection.REQUIRES_SUM_SYNC)


def var_disallow_bfloat16_conversion(var_hparams: WeightHParams) -> bool:
    """Returns whether the variable keeps its dtype under a low-precision `fprop_dtype`."""
    return _is_in(var_hparams, WeightHParamsCollection.DISALLOW_BFLOAT16_CONVERSION)


def var_overwrite_with_gradient(var_hparams: WeightHParams) -> bool:
    """Returns whether the learner stores the gradient as the new value."""
    return _is_in(var_hparams, WeightHParamsCollection.OVERWRITE_WITH_GRADIENT)


def var_skip_lp_regularization(var_params: WeightHParams) -> bool:
    """Returns whether weight decay skips the variable."""
    return _is_in(var_params, WeightHParamsCollection.SKIP_LP_REGULARIZATION)


def assert_has_shape(t: jax.Array, shape: Sequence[int]) -> None:
    """Checks the shape of an array; -1 matches any size.

    Raises:
      ValueError: if a dim or the rank differs, with both shapes.
    """
    given = tuple(t.shape)
    fits = len(given) == len(shape) and all(
        want in (-1, have) for have, want in zip(given, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"An array has shape {given}, expected {tuple(shape)} (-1: any size).")
