"""From gradients to new weights: validity, clipping, optimizer, update."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from paxml.learner.gradient import BaseStochasticGradient
from paxml.learner.scaling import add_scalar, global_norm, norms_by_path, scale_to_norm, scaled
from praxis.config.parameterizable import FiddleBaseParameterizable
from praxis.core.initializers import var_init_scale
from praxis.core.weights import var_not_trainable, var_overwrite_with_gradient
from praxis.optim.base import Optimizer
from praxis.optim.transformation import GeneralGradientTransformation
from praxis.optim.trees import is_masked, map_unmasked
from praxis.optim.vectorize import get_transformations_with_vectorized_repeat_prefix
from praxis.utils.trees import BpropMaskedNode

Valid = Bool[Array, ""] | bool  # a Python bool when nothing was checked


class UpdateResult(NamedTuple):
    """Updates of a step, the new optimizer state, and whether the gradients were fit to use."""

    updates: Any
    opt_states: Any
    is_valid: Valid


class Learner(FiddleBaseParameterizable):
    """Turns gradients into new weights.

    Trees of gradients, variables and descriptions may hold `BpropMaskedNode` in place of variables
    that are not trained.

    Attributes:
      loss_name: key of the loss among the model's metrics.
      optimizer: Config of the optimizer. Required to train.
      stochastic_gradient: Config of the way the gradient is made; None for the plain one.
      skip_zero_gradients: no longer supported, must stay None.
      grad_norm_summary: writes the norms of all gradients together.
      grad_norm_individual_vars: writes the norm of the gradient of each variable.
      var_norm_summary: writes the norm of all variables together.
      var_norm_individual_vars: writes the norm of each variable.
      check_valid_step: checks that the norm of the gradients is finite and below
        `skip_step_gradient_norm_value`.
      enable_skip_step_on_gradient_anomalies: leaves variables and optimizer state alone in a step
        that is not valid. The step still counts.
      skip_step_gradient_norm_value: norm from which a step is not valid; 0 for no limit.
      vectorize_on_repeat_prefix: treats each layer of a stack on its own in the optimizer.
      repeat_prefix_sep: separator in the keys of the optimizer state of stacked layers.
      force_repeat_prefix_structure: keeps the state in groups even when nothing is stacked.
      bprop_variable_exclusion: patterns of whole paths, `params/...`, that are not trained.
      bprop_variable_inclusion: patterns of whole paths outside of which nothing is trained.
      keep_optimizer_state_for_excluded_vars: keeps optimizer state for what is not trained.
      scale_update_by_var_norm: multiplies updates of rank 2 and more by the scale of the
        variable's initializer.
      num_microbatches: number of equal parts of the batch whose gradients are made one after
        another and averaged by the weights of their losses, to save memory; a divisor of the
        batch size. The optimizer still makes one update a batch.

    Raises:
      ValueError: when built, if `skip_zero_gradients` is set, if groups are forced without
        vectorization, or if the optimizer has both clip limits; when used, if there is no
        optimizer.
    """

    loss_name: str | None = None
    optimizer: Optimizer | None = None
    stochastic_gradient: BaseStochasticGradient | None = None
    skip_zero_gradients: bool | None = None
    grad_norm_summary: bool = True
    grad_norm_individual_vars: bool = False
    var_norm_summary: bool = True
    var_norm_individual_vars: bool = False
    check_valid_step: bool = True
    enable_skip_step_on_gradient_anomalies: bool = True
    skip_step_gradient_norm_value: float = 0.0
    vectorize_on_repeat_prefix: bool = True
    repeat_prefix_sep: str = "#"
    force_repeat_prefix_structure: bool = False
    bprop_variable_exclusion: str | Sequence[str] = dataclasses.field(default_factory=list)
    bprop_variable_inclusion: str | Sequence[str] = dataclasses.field(default_factory=list)
    keep_optimizer_state_for_excluded_vars: bool = False
    scale_update_by_var_norm: bool = False
    num_microbatches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skip_zero_gradients is not None:
            raise ValueError(
                f"{self._title}: skip_zero_gradients is {self.skip_zero_gradients}, but is no "
                f"longer supported. Leave it at None."
            )
        if self.force_repeat_prefix_structure and not self.vectorize_on_repeat_prefix:
            raise ValueError(
                f"{self._title}: force_repeat_prefix_structure needs vectorize_on_repeat_prefix."
            )
        if self.num_microbatches < 1:
            raise ValueError(
                f"{self._title}: num_microbatches is {self.num_microbatches}, expected at least 1."
            )
        if self.num_microbatches > 1 and self.stochastic_gradient is not None:
            raise ValueError(
                f"{self._title}: num_microbatches = {self.num_microbatches} and "
                f"stochastic_gradient are both set. A private gradient saves memory with its own "
                f"inner_batch_size."
            )
        if self.optimizer is not None:
            self._check_clipping(self.optimizer)

    @property
    def _title(self) -> str:
        return f"{type(self).__name__} {self.name!r}"

    def _check_clipping(self, optimizer: Optimizer) -> None:
        both, single = (
            optimizer.clip_gradient_norm_to_value,
            optimizer.clip_gradient_single_norm_to_value,
        )
        if both and single:
            raise ValueError(
                f"{self._title}: the optimizer has clip_gradient_norm_to_value = {both} and "
                f"clip_gradient_single_norm_to_value = {single}. Set one of them to 0."
            )

    def _require_optimizer(self) -> Optimizer:
        if self.optimizer is None:
            raise ValueError(
                f"{self._title}: optimizer is None. Set it in the config, e.g. "
                f"learner.optimizer = pax_fiddle.Config(optimizers.Adam, learning_rate=1e-3, "
                f"lr_schedule=pax_fiddle.Config(schedules.Constant))."
            )
        return self.optimizer

    # ---- the optimizer ------------------------------------------------------------------------

    def get_grad_tx(self, var_weight_hparams: Any) -> GeneralGradientTransformation:
        """The transformation of gradients to updates.

        Args:
          var_weight_hparams: descriptions of the variables that have optimizer state.
        """
        grad_tx = self._require_optimizer().get_grad_transformation(var_weight_hparams)
        if not self.vectorize_on_repeat_prefix:
            return grad_tx
        return get_transformations_with_vectorized_repeat_prefix(
            grad_tx,
            var_weight_hparams,
            repeat_prefix_sep=self.repeat_prefix_sep,
            force_prefix_structure=self.force_repeat_prefix_structure,
        )

    def plot_learning_rate(self, step: ArrayLike) -> None:
        """Writes the learning rate of the update after `step` updates."""
        learning_rate = self._require_optimizer().get_learning_rate(step)
        add_scalar("lr", learning_rate)
        add_scalar("learning/lr", learning_rate)

    # ---- validity and clipping ----------------------------------------------------------------

    def scale_gradients(
        self,
        raw_grads: Any,
        optimizer_name: str | None = None,
        clip_gradient_norm_to_value: float | None = None,
        clip_gradient_single_norm_to_value: float | None = None,
    ) -> tuple[Any, Valid]:
        """Clips gradients and says whether they are fit to use.

        Args:
          raw_grads: tree of gradients.
          optimizer_name: part of the names of the summaries.
          clip_gradient_norm_to_value: limit of the norm of all together; None for the
            optimizer's, 0 for none.
          clip_gradient_single_norm_to_value: limit of the norm of each; None for the optimizer's.

        Returns:
          (clipped gradients, whether their norm is finite and below
          `skip_step_gradient_norm_value`). True without check.
        """
        optimizer = self._require_optimizer()
        clip, clip_single = clip_gradient_norm_to_value, clip_gradient_single_norm_to_value
        clip = optimizer.clip_gradient_norm_to_value if clip is None else clip
        if clip_single is None:
            clip_single = optimizer.clip_gradient_single_norm_to_value
        scope = f"learning/{optimizer_name}/" if optimizer_name else "learning/"

        if self.grad_norm_individual_vars:
            self.summarize_norms("per_var_grad_norm", raw_grads)
        norm = global_norm(raw_grads)
        if self.grad_norm_summary:
            add_scalar(f"{scope}raw_grad_norm", norm)
        is_valid: Valid = True
        if self.check_valid_step:
            is_valid = jnp.isfinite(norm)
            if self.skip_step_gradient_norm_value:
                is_valid &= norm < self.skip_step_gradient_norm_value
            add_scalar(f"{scope}is_valid_step", jnp.asarray(is_valid, jnp.float32))

        grads, scale = raw_grads, jnp.float32(1.0)
        if clip:
            scale = scale_to_norm(norm, clip)
            grads = jax.tree.map(lambda g: scaled(g, scale), raw_grads)
        elif clip_single:
            grads = jax.tree.map(
                lambda g: scaled(g, scale_to_norm(global_norm(g), clip_single)), raw_grads
            )
        if self.grad_norm_summary:
            add_scalar(f"{scope}grad_scale", scale)
            add_scalar(f"{scope}clipped_grad_norm", global_norm(grads))
        return grads, is_valid

    def _scale(self, grads: Any, var_weight_hparams: Any) -> tuple[Any, Valid]:
        """`scale_gradients` for this learner's optimizers."""
        del var_weight_hparams
        return self.scale_gradients(grads)

    def summarize_norms(self, summary_prefix: str, tensors: Any) -> None:
        """Writes the norm of each leaf as `summary_prefix/path`."""
        for path, norm in norms_by_path(tensors).items():
            add_scalar(f"{summary_prefix}/{path}", norm)

    # ---- the step -----------------------------------------------------------------------------

    def update_states(
        self, grads: Any, states: Any, old_vars: Any, var_weight_hparams: Any
    ) -> tuple[Any, Any]:
        """The first two results of `checked_update`."""
        result = self.checked_update(grads, states, old_vars, var_weight_hparams)
        return result.updates, result.opt_states

    def checked_update(
        self, grads: Any, states: Any, old_vars: Any, var_weight_hparams: Any
    ) -> UpdateResult:
        """Runs the optimizer.

        Args:
          grads: gradients; `BpropMaskedNode` for variables without optimizer state.
          states: the optimizer state, an entry of `TrainState.opt_states`.
          old_vars: the variables.
          var_weight_hparams: descriptions of the variables.

        Returns:
          Updates like `grads`, to add to the variables; the new state; validity. After a step that
          is skipped the updates are 0 and the state is the old one. The update of a variable that
          its gradient overwrites is that gradient.
        """
        overwritten = map_unmasked(_is_overwritten, grads, var_weight_hparams)
        own_grads = map_unmasked(self._without_overwritten, grads, overwritten)
        own_vars = map_unmasked(lambda _, variable: variable, own_grads, old_vars)
        own_hparams = map_unmasked(lambda _, hparams: hparams, own_grads, var_weight_hparams)

        own_grads, is_valid = self._scale(own_grads, own_hparams)
        grad_tx = self.get_grad_tx(own_hparams)
        updates, new_states = grad_tx.update(own_grads, states, own_vars)
        if self.enable_skip_step_on_gradient_anomalies and is_valid is not True:
            updates = jax.tree.map(lambda u: jnp.where(is_valid, u, jnp.zeros_like(u)), updates)
            new_states = jax.tree.map(
                lambda new, old: jnp.where(is_valid, new, old), new_states, states
            )
        if self.grad_norm_summary:
            add_scalar("learning/applied_grad_norm", global_norm(updates))
        updates = map_unmasked(
            lambda grad, is_overwritten, update: grad if is_overwritten else update,
            grads,
            overwritten,
            updates,
        )
        return UpdateResult(updates, new_states, is_valid)

    def _without_overwritten(self, grad: jax.Array, is_overwritten: bool) -> Any:
        if not is_overwritten:
            return grad
        # Kept state has an entry for every variable; this one sees no gradient.
        keep = self.keep_optimizer_state_for_excluded_vars
        return jnp.zeros_like(grad) if keep else BpropMaskedNode()

    def apply_gradient(self, old_vars: Any, transformed_grads: Any, var_weight_hparams: Any) -> Any:
        """The new variables.

        Args:
          old_vars: the variables.
          transformed_grads: updates of `update_states`. Variables without one stay.
          var_weight_hparams: descriptions of the variables.

        Returns:
          old + update for what is trained, the gradient for what it overwrites, else the old value.
        """
        if self.var_norm_summary:
            add_scalar("learning/var_norm", global_norm(old_vars))
        if self.var_norm_individual_vars:
            self.summarize_norms("per_var_norm", old_vars)

        def new_value(update: Any, old: Any, hparams: Any) -> Any:
            if is_masked(update) or is_masked(old):
                return old
            if _is_overwritten(update, hparams):
                return update.astype(old.dtype)
            if var_not_trainable(hparams):
                return old
            if self.scale_update_by_var_norm and len(hparams.shape) > 1:
                update = update * var_init_scale(hparams)
            return (old + update).astype(old.dtype)

        return jax.tree.map(
            new_value, transformed_grads, old_vars, var_weight_hparams, is_leaf=is_masked
        )


def _is_overwritten(_: Any, hparams: Any) -> bool:
    # Only variables that gradients overwrite have a gradient but no description.
    return is_masked(hparams) or var_overwrite_with_gradient(hparams)
