"""BaseLayer: a Flax module that is configured with Fiddle and declares what it owns."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import module as flax_module
from jax.typing import DTypeLike

from praxis.config.config import CloneAndSetMixin, PaxConfig
from praxis.config.fields import instance_field, template_field
from praxis.config.parameterizable import RemovedHParams
from praxis.core import (
    abstract,
    boxed,
    children,
    inherit,
    names,
    notes,
    quantized,
    reflection,
    variables,
)
from praxis.core.context import JaxContext, cur_jax_context
from praxis.core.summaries import (
    AuxLossStruct,
    SummaryType,
    evaluated,
    get_summary_type_suffix,
    is_kept,
)
from praxis.core.theta import ThetaDescriptor
from praxis.core.weights import SplitDimsMapping, WeightHParams, WeightInit, default_param_init

# In place of `Self`, which beartype knows in decorated classes only.
Own = TypeVar("Own", bound="BaseLayer")


class _Property(property):
    """A property that Flax leaves alone: reading it starts no setup and no named scope."""

    nowrap = True


class BaseLayer(nn.Module):
    """Base class of all layers.

    A layer is a Flax module whose dataclass fields are its configuration. `setup` declares
    variables with `create_variable` and children with `create_child`; `__call__` reads
    `self.theta.w`. Common fields that nobody set are taken over from the parent.

    Attributes:
      dtype: Type variables are stored in. A child's float32 counts as unset, so the parent's is
        taken; the text "float32" keeps it under any parent.
      fprop_dtype: Type of computation; None: `dtype`.
      params_init: Initializer of variables that declare none.
      skip_lp_regularization: No weight decay for the variables of this layer. None: the parent's.
      ici_mesh_shape: Shape of the device mesh inside a slice, or None.
      dcn_mesh_shape: Shape of the mesh across slices; the mesh is the product of the two.
      contiguous_submeshes: Devices of a mesh axis are neighbours.
      mesh_axis_names: Names of the mesh axes.
      shared_weight_layer_id: Layers of one id under one root are one layer.
      weight_split_dims_mapping: Config of the sharding of variables.
      activation_split_dims_mapping: Config of the sharding of activations.
    """

    @dataclasses.dataclass(frozen=True)
    class WeightSharding(CloneAndSetMixin):
        """Sharding of variables.

        Attributes:
          wt: Of the main weight.
        """

        wt: SplitDimsMapping = None

    @dataclasses.dataclass(frozen=True)
    class ActivationSharding(CloneAndSetMixin):
        """Sharding of activations.

        Attributes:
          out: Of the main output.
        """

        out: SplitDimsMapping = None

    dtype: DTypeLike = jnp.float32
    fprop_dtype: DTypeLike | None = None
    params_init: WeightInit = instance_field(default_param_init)
    skip_lp_regularization: bool | None = None
    ici_mesh_shape: Sequence[int] | None = None
    dcn_mesh_shape: Sequence[int] | None = None
    contiguous_submeshes: bool | None = None
    mesh_axis_names: Sequence[str] | None = None
    shared_weight_layer_id: str | None = None
    weight_split_dims_mapping: PaxConfig[WeightSharding] = template_field(WeightSharding)
    activation_split_dims_mapping: PaxConfig[ActivationSharding] = template_field(
        ActivationSharding
    )

    theta: ClassVar = ThetaDescriptor()
    _call_wrapped_method = notes.call_wrapped_method
    HParams: ClassVar[Any] = RemovedHParams()

    # ---- definition and construction ------------------------------------------------------------

    def __init_subclass__(cls, **kwargs: Any) -> None:
        reflection.prepare_class(cls)
        super().__init_subclass__(**kwargs)
        reflection.finish_class(cls)

    def __post_init__(self) -> None:
        reflection.check_dtype(self)
        # A layer held in a field is made twice: alone, then bound to its owner. What it resolved
        # by itself the first time counts as unset the second.
        alone_before = vars(self).get("_fprop_dtype_is_own", False)
        if alone_before:
            object.__setattr__(self, "fprop_dtype", None)
        parent = self.parent
        if parent is flax_module._unspecified_parent:
            parent = flax_module._context.module_stack[-1]
        if isinstance(parent, BaseLayer):
            explicit = not (alone_before and vars(parent)["_fprop_dtype_is_own"])
            self.copy_base_hparams(parent, self, with_fprop_dtype=explicit)
        vars(self).update(
            _fprop_dtype_is_own=self.fprop_dtype is None,
            children={},
            weight_hparams={},
        )
        if self.fprop_dtype is None:
            object.__setattr__(self, "fprop_dtype", variables.plain_dtype(self.dtype))
        super().__post_init__()

    def clone(self: Own, **kwargs: Any) -> Own:
        """Returns a copy, as Flax's `clone`; an `fprop_dtype` that was not set stays so."""
        if vars(self).get("_fprop_dtype_is_own", False):
            kwargs.setdefault("fprop_dtype", None)
        copy = super().clone(**kwargs)
        # Loops and rematerialization run a copy without parents, whose errors name the whole path.
        vars(copy)["_root_name"] = reflection.root_name(reflection.root_of(self))
        return copy

    clone.nowrap = True  # pyright: ignore[reportFunctionMemberAccess]

    @nn.nowrap
    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("__"):
                raise
            raise AttributeError(reflection.no_attribute(self, name)) from error

    def setup(self) -> None:
        """Declares variables and children; runs once for each bound layer, at first use."""
        reflection.reflect_config(self)

    @classmethod
    def config(cls: type[Own], **kwargs: Any) -> PaxConfig[Own]:
        """Returns `pax_fiddle.Config(cls, **kwargs)`."""
        return PaxConfig(cls, **kwargs)

    @staticmethod
    def copy_base_hparams(source: Any, target: Any, *, with_fprop_dtype: bool = True) -> None:
        """Fills the common fields of `target` that nobody set, see `praxis.core.inherit`."""
        inherit.copy_base_hparams(source, target, with_fprop_dtype=with_fprop_dtype)

    # ---- properties -----------------------------------------------------------------------------

    @_Property
    def hparams(self: Own) -> PaxConfig[Own]:
        """A config with the current value of every field; layers in fields as their configs."""
        cached = vars(self).get("_hparams")
        if cached is None:
            cached = vars(self)["_hparams"] = reflection.config_of(
                self, lambda layer: layer.hparams
            )
        return cached

    @_Property
    def path_text(self) -> str:
        """Class and path of the layer, as error messages start: `Linear 'lm/ffn/up'`."""
        root = reflection.root_of(self)
        below = self.scope.path if self.scope is not None else ()
        parts = [part for part in (reflection.root_name(root), *below) if part]
        return f"{type(self).__name__} {'/'.join(parts)!r}"

    @_Property
    def mesh_shape(self) -> Sequence[int] | None:
        """Sizes of the mesh axes, the product of `ici_mesh_shape` and `dcn_mesh_shape`; or None."""
        if self.ici_mesh_shape is None or self.dcn_mesh_shape is None:
            return self.ici_mesh_shape
        pairs = zip(self.ici_mesh_shape, self.dcn_mesh_shape, strict=True)
        return [ici * dcn for ici, dcn in pairs]

    @_Property
    def jax_context(self) -> JaxContext:
        """The current JaxContext; RuntimeError if there is none."""
        return cur_jax_context()

    @_Property
    def do_eval(self) -> bool | None:
        """Whether this is an evaluation; False without a JaxContext."""
        context = JaxContext.top()
        return context.do_eval if context is not None else False

    @_Property
    def reflect_configs(self) -> bool:
        """Whether layers write their configs among the variables."""
        context = JaxContext.top()
        return context is not None and context.self_reflect_configs

    @nn.nowrap
    def get_shard_count_on_dim(self, dim_sharding: str | Sequence[str] | None) -> int:
        """Returns the number of shards of a dim that is split over the named mesh axes.

        Raises:
          ValueError: if the mesh has no such axis.
        """
        if dim_sharding is None or self.mesh_axis_names is None or self.mesh_shape is None:
            return 1
        axes = [dim_sharding] if isinstance(dim_sharding, str) else dim_sharding
        sizes = dict(zip(self.mesh_axis_names, self.mesh_shape, strict=True))
        for axis in axes:
            if axis not in sizes:
                raise ValueError(
                    f"{self.path_text}: the mesh has no axis {axis!r}, it has {list(sizes)}. Name "
                    "one of them, or None for a dim that is not split."
                )
        return math.prod(sizes[axis] for axis in axes)

    # ---- children -------------------------------------------------------------------------------

    @nn.nowrap
    def create_child(self, name: str, params: Any, *, skip_clone: bool = False) -> Any:
        """Builds a child layer; in `setup` it becomes `self.<name>`.

        Args:
          name: Name of the child, and of its part of the variable tree.
          params: Its config. A copy is built, after it took over this layer's common fields.
          skip_clone: Changes `params` itself instead of a copy.

        Returns:
          The child.

        Raises:
          AttributeError: if a field has the name.
          ValueError: if a child has the name, or `params` is no config.
        """
        child = children.create_child(self, name, params, skip_clone)
        if self._state.in_setup:
            setattr(self, name, child)
        return child

    @nn.nowrap
    def create_children(self, name: str, params: Any, *, skip_clone: bool = False) -> Any:
        """Builds the children `<name>_0`, `<name>_1`, ...; in `setup` they become `self.<name>`.

        Args:
          name: Name of the tuple of children.
          params: Their configs.
          skip_clone: Changes the configs themselves instead of copies.

        Returns:
          The children.

        Raises:
          ValueError: if `params` is no sequence, and as `create_child`.
        """
        if not isinstance(params, Sequence):
            raise ValueError(
                f"{self.path_text}: children {name!r} are made from a {type(params).__name__}, "
                "expected a list of configs."
            )
        made = [
            children.create_child(self, f"{name}_{index}", template, skip_clone)
            for index, template in enumerate(params)
        ]
        if self._state.in_setup:
            setattr(self, name, made)
        return made

    # ---- variables ------------------------------------------------------------------------------

    @nn.nowrap
    def create_variable(self, name: str, var_hparams: WeightHParams, trainable: bool = True) -> Any:
        """Declares a variable.

        Args:
          name: Name in the collection `params`, or `non_trainable`.
          var_hparams: Shape, initializer and so on; this layer's defaults fill it up.
          trainable: Whether the learner changes it.

        Returns:
          Its value; that of a trainable one in `fprop_dtype`.

        Raises:
          AttributeError: if a field, method or child has the name.
          ValueError: if sharding or the given value do not fit the shape, or it was not given.
          flax.errors.NameInUseError: if a variable has the name.
        """
        return variables.create_variable(self, name, var_hparams, trainable)

    @nn.nowrap
    def get_var(self, name: str) -> Any:
        """Returns a non-trainable variable as it is stored; ValueError if there is none."""
        return variables.read_non_trainable(self, name)

    @nn.nowrap
    def update_var(self, name: str, new_val: Any) -> None:
        """Stores a new value of a non-trainable variable.

        Nothing is stored while variables are initialised, or when the collection is not mutable,
        as in evaluation.

        Args:
          name: Name of the variable.
          new_val: The value, cast to the variable's dtype.

        Raises:
          ValueError: if there is no such variable, or the shape differs.
        """
        variables.update_non_trainable(self, name, new_val)

    @nn.nowrap
    def get_variable(self, col: str, name: str, default: Any = None) -> Any:
        """Returns a variable of a collection without its box, or `default`."""
        return boxed.maybe_unbox_value(super().get_variable(col, name, default))

    @nn.nowrap
    def create_quantized_variable(
        self,
        name: str,
        weight_hparams: WeightHParams,
        scale_shape: Sequence[int] = (),
        dtype: DTypeLike = jnp.int8,
        use_symmetric: bool = True,
        scale_hparams: WeightHParams | None = None,
    ) -> None:
        """Declares an integer weight, its scale `<name>_quantized_scale` and, unless symmetric, its
        zero point `<name>_quantized_zp`.

        Args:
          name: Name of the weight.
          weight_hparams: Its declaration; dtype and initializer are replaced.
          scale_shape: Shape of scale and zero point.
          dtype: Type of the weight.
          use_symmetric: No zero point.
          scale_hparams: Declaration of scale and zero point in place of `scale_shape`.

        Raises:
          ValueError: if both `scale_shape` and `scale_hparams` are given.
        """  # noqa: D205
        quantized.create_quantized_variable(
            self, name, weight_hparams, scale_shape, dtype, use_symmetric, scale_hparams
        )

    @nn.nowrap
    def get_quantized_weight(self, name: str, use_symmetric: bool = True) -> tuple[Any, Any, Any]:
        """Returns (weight, scale, zero point or None) of a quantized variable."""
        theta = self.theta
        zero_point = None if use_symmetric else theta[name + names.QUANTIZED_ZP_NAME_POSTFIX]
        return theta[name], theta[name + names.QUANTIZED_SCALE_NAME_POSTFIX], zero_point

    @nn.nowrap
    def create_sparse_variable(self, name: str, weight_hparams: WeightHParams) -> None:
        """Declares a weight and its boolean mask `<name>_sparsity_mask`, not trainable."""
        quantized.create_sparse_variable(self, name, weight_hparams)

    @nn.nowrap
    def get_sparse_weight(self, name: str) -> tuple[Any, Any]:
        """Returns (weight, mask) of a sparse variable."""
        return self.theta[name], self.get_var(name + names.SPARSITY_NAME_POSTFIX)

    @nn.nowrap
    def quantize_weight(self) -> dict[str, Any]:
        """Returns the variables as they are to be served; quantized layers override it."""
        return quantized.quantize_weight(self)

    @nn.nowrap
    def quantized_partition_specs(self) -> dict[str, Any]:
        """Returns the boxed PartitionSpecs of `quantize_weight`'s result."""
        return quantized.quantized_partition_specs(self)

    @nn.nowrap
    def next_prng_key(self, name: str = names.RANDOM) -> jax.Array:
        """Returns a new random key; flax.errors.InvalidRngError if the stream was not given."""
        return variables.make_rng(self, name)

    @nn.nowrap
    def _cast_to_fprop_dtype(self, value: Any) -> Any:
        """Returns a tree with its floating leaves in `fprop_dtype`."""
        return variables.cast_to_fprop_dtype(self, value)

    # ---- decoding, summaries, losses ------------------------------------------------------------

    @nn.nowrap
    def get_decode_state(self, name: str) -> Any:
        """Returns an entry of this layer's decode cache; ValueError if there is none."""
        return variables.read_decode_state(self, name)

    @nn.nowrap
    def update_decode_state(self, name: str, new_state: Any) -> None:
        """Stores an entry of the decode cache, where that collection is mutable."""
        if self.is_mutable_collection(names.DECODE_CACHE):
            self.put_variable(names.DECODE_CACHE, name, new_state)

    @nn.nowrap
    def add_summary(
        self,
        name: str,
        tensor: Any | Callable[[], Any],
        summary_type: SummaryType = SummaryType.SCALAR,
        verbosity: int = 2,
    ) -> None:
        """Adds a summary under this layer's path; of one name twice, the last counts.

        Args:
          name: Its name.
          tensor: The value, or a function that returns it, called only when it is kept. Images are
            [B, height, width, channels], audio [B, time, channels]; B may be missing.
          summary_type: What it shows.
          verbosity: It is dropped when the context's `summary_verbosity` is less.

        Raises:
          ValueError: if the rank does not fit the type.
        """
        if not is_kept(verbosity) or not self.is_mutable_collection(names.SUMMARIES):
            return
        value = evaluated(f"{self.path_text} {name}", tensor, summary_type)
        self.put_variable(names.SUMMARIES, name + get_summary_type_suffix(summary_type), value)

    @nn.nowrap
    def add_aux_loss(self, name: str, value: Any, weight: Any = None) -> None:
        """Adds a loss to the collection `aux_loss`; values and weights of one name add up.

        Args:
          name: Its name.
          value: The loss.
          weight: Its weight; None: 1.
        """
        weight = jnp.ones_like(value) if weight is None else weight

        def add(total: AuxLossStruct, more: AuxLossStruct) -> AuxLossStruct:
            return AuxLossStruct(total.value + more.value, total.weight + more.weight)

        self.sow(
            names.AUX_LOSS,
            name,
            AuxLossStruct(value, weight),
            reduce_fn=add,
            init_fn=lambda: AuxLossStruct(0.0, 0.0),
        )

    # ---- init and apply -------------------------------------------------------------------------

    @nn.nowrap
    def init(
        self,
        rngs: Any,
        *args: Any,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Makes the variables of the layer by running it once.

        Args:
          rngs: A key, or keys by stream, `params` among them.
          *args: Arguments of the method.
          method: The method that is run, bound, unbound or by name; None: `__call__`.
          mutable: Collections of the result; None: those that training needs.
          **kwargs: Further arguments of the method.

        Returns:
          Arrays, nested by collection, layer and variable.
        """
        wanted = names.DEFAULT_INIT_MUTABLE_LIST if mutable is None else mutable
        wanted = [wanted] if isinstance(wanted, str) else wanted
        listed = isinstance(wanted, (list, tuple))
        # Variables are made whatever the caller wants to see, or reading them would fail.
        run_with = [*names.DEFAULT_INIT_MUTABLE_LIST, *wanted] if listed else wanted
        made = super().init(rngs, *args, method=method, mutable=run_with, **kwargs)
        kept = {name: made[name] for name in made if name in wanted} if listed else made
        return boxed.maybe_unbox_value(kept)

    @nn.nowrap
    def apply(
        self,
        variables: Mapping[str, Any],
        *args: Any,
        rngs: Any = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = False,
        capture_intermediates: Any = False,
        **kwargs: Any,
    ) -> Any:
        """Runs the layer.

        Args:
          variables: Result of `init`.
          *args: Arguments of the method.
          rngs: A key, or keys by stream.
          method: The method that is run, bound, unbound or by name; None: `__call__`.
          mutable: Collections that may change; True: all.
          capture_intermediates: As in Flax.
          **kwargs: Further arguments of the method.

        Returns:
          The output; with `mutable`, (output, updated collections).
        """
        return super().apply(
            variables,
            *args,
            rngs=rngs,
            method=method,
            mutable=False if mutable is None else mutable,
            capture_intermediates=capture_intermediates,
            **kwargs,
        )

    @nn.nowrap
    def abstract_init_with_metadata(
        self,
        *args: Any,
        do_eval: bool = False,
        method: Callable[..., Any] | str | None = None,
        extra_mutable_list: Sequence[str] | None = None,
        capture_intermediates: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns the WeightHParams of every variable that `init` would make; nothing is allocated.

        Args:
          *args: Arrays or ShapeDtypeStructs; other values are passed on as they are.
          do_eval: Whether the layer is run as in evaluation.
          method: The method that is run; None: `__call__`.
          extra_mutable_list: Further collections of the result.
          capture_intermediates: As in Flax.
          **kwargs: Further arguments of the method.
        """
        tree = abstract.abstract_init(
            self,
            args,
            kwargs,
            context=JaxContext.HParams(do_eval=do_eval),
            mutable=[*names.DEFAULT_INIT_MUTABLE_LIST, *(extra_mutable_list or ())],
            method=method,
            capture_intermediates=capture_intermediates,
        )
        return abstract.metadata_tree(tree)

    @nn.nowrap
    def abstract_init_with_mdl_config(
        self,
        *args: Any,
        do_eval: bool = False,
        method: Callable[..., Any] | str | None = None,
        extra_mutable_list: Sequence[str] | None = None,
        capture_intermediates: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Returns `{"_hparams": config, child: {...}}` of every layer that `init` would set up.

        Args:
          *args: As `abstract_init_with_metadata`.
          do_eval: Whether the layer is run as in evaluation.
          method: The method that is run; None: `__call__`.
          extra_mutable_list: Further mutable collections.
          capture_intermediates: As in Flax.
          **kwargs: Further arguments of the method.
        """
        tree = abstract.abstract_init(
            self,
            args,
            kwargs,
            context=JaxContext.HParams(do_eval=do_eval, self_reflect_configs=True),
            mutable=[
                *names.DEFAULT_INIT_MUTABLE_LIST,
                names.HYPER_PARAMS,
                *(extra_mutable_list or ()),
            ],
            method=method,
            capture_intermediates=capture_intermediates,
        )
        return abstract.config_tree(tree)

    # ---- for the functions of praxis.core -------------------------------------------------------

    @nn.nowrap
    def ensure_setup(self) -> None:
        """Runs `setup` if the layer is bound and it has not run."""
        self._try_setup()

    @nn.nowrap
    def scope_or_raise(self) -> Any:
        """Returns the Flax scope; ValueError on a layer outside `init` and `apply`."""
        if self.scope is None:
            raise ValueError(
                f"{self.path_text}: Can't access variables on unbound modules. Run the layer "
                "through `layer.init(key, ...)` or `layer.apply(variables, ...)`."
            )
        return self.scope
