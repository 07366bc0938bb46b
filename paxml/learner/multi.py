"""Several optimizers, each for its own variables."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from paxml.learner.learner import Learner, Valid
from paxml.learner.scaling import add_scalar
from praxis.config.config import PaxConfig
from praxis.config.instantiate import instantiate
from praxis.optim.base import OptaxOptimizer, Optimizer
from praxis.optim.ema import apply_ema_weights
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    sharded_chain,
    sharded_masked,
)
from praxis.optim.trees import map_unmasked
from praxis.optim.vectorize import get_transformations_with_vectorized_repeat_prefix
from praxis.utils import trees
from praxis.utils.trees import BpropMaskedNode


class MultiOptimizerLearner(Learner):
    """Trains variables whose path matches a pattern with another optimizer.

    The moving average is that of the main optimizer, over all variables.

    Attributes:
      auxiliary_optimizers: Configs of the other optimizers.
      auxiliary_regex: for each, the pattern of its variables, matched from the start of paths
        `params/...`.
      auxiliary_names: for each, its name in summaries.
      apply_separate_scaling: checks and clips the gradients of each optimizer on their own, with
        its own limits; else all together, with those of the main one.

    Raises:
      ValueError: when built, if the three sequences differ in length; when used, if two patterns
        match one variable.
      TypeError: when built, if some but not all optimizers are `OptaxOptimizer`.
    """

    auxiliary_optimizers: Sequence[PaxConfig[Optimizer]] = ()
    auxiliary_regex: Sequence[str] = ()
    auxiliary_names: Sequence[str] = ()
    apply_separate_scaling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = [
            len(field)
            for field in (self.auxiliary_optimizers, self.auxiliary_regex, self.auxiliary_names)
        ]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"{self._title}: auxiliary_optimizers, auxiliary_regex and auxiliary_names have "
                f"lengths {lengths}, expected equal ones."
            )
        self._auxiliary: list[Optimizer] = [
            instantiate(config) for config in self.auxiliary_optimizers
        ]
        for optimizer in self._auxiliary:
            self._check_clipping(optimizer)
        kinds = {isinstance(o, OptaxOptimizer) for o in (self.optimizer, *self._auxiliary)}
        if len(kinds) > 1:
            raise TypeError(
                f"{self._title}: some optimizers are OptaxOptimizer and some are not; use one kind."
            )

    def _optimizers(self) -> list[tuple[str, Optimizer]]:
        """Names and optimizers, the main one first."""
        auxiliary = zip(self.auxiliary_names, self._auxiliary, strict=True)
        return [("main", self._require_optimizer()), *auxiliary]

    def get_masks(self, var_weight_hparams: Any) -> list[Any]:
        """For each optimizer, the main one first, a tree of booleans: which variables it trains.

        Raises:
          ValueError: if two patterns match one variable.
        """
        patterns = [re.compile(pattern) for pattern in self.auxiliary_regex]

        def owner(path: Any, _: Any) -> int:
            text = trees.path_text(path)
            matching = [i for i, pattern in enumerate(patterns) if pattern.match(text)]
            if len(matching) > 1:
                both = [self.auxiliary_regex[i] for i in matching]
                raise ValueError(
                    f"{self._title}: variable {text!r} matches {both} in auxiliary_regex; the "
                    f"patterns must be non-overlapping."
                )
            return matching[0] + 1 if matching else 0

        owners = jax.tree_util.tree_map_with_path(owner, var_weight_hparams)
        return [
            jax.tree.map(lambda own, number=number: own == number, owners)
            for number in range(len(patterns) + 1)
        ]

    def get_grad_tx(self, var_weight_hparams: Any) -> GeneralGradientTransformation:
        """As `Learner.get_grad_tx`, each optimizer over its own variables.

        The state is ([moving average], main, auxiliary, ...).
        """
        main = self._require_optimizer()
        use_optax = isinstance(main, OptaxOptimizer)
        members: list[Any] = []
        if main.ema_decay > 0.0:
            members.append(apply_ema_weights(main.ema_decay, use_optax))
        masks = self.get_masks(var_weight_hparams)
        for (_, optimizer), mask in zip(self._optimizers(), masks, strict=True):
            inner = optimizer.get_grad_transformation(var_weight_hparams, include_ema=False)
            members.append(sharded_masked(inner, mask))
        chain = optax.chain(*members) if use_optax else sharded_chain(*members)
        if not self.vectorize_on_repeat_prefix:
            return chain
        # Neither repeat_prefix_sep nor the forced structure is used: existing checkpoints of this
        # learner have been written without.
        return get_transformations_with_vectorized_repeat_prefix(chain, var_weight_hparams)

    def plot_learning_rate(self, step: ArrayLike) -> None:
        """Writes the learning rate of each optimizer."""
        for name, optimizer in self._optimizers():
            add_scalar(f"learning/lr_{name}", optimizer.get_learning_rate(step))

    def scale_gradients_by_optimizer(
        self, raw_grads: Any, var_weight_hparams: Any
    ) -> tuple[Any, Valid]:
        """`scale_gradients` for the variables of each optimizer, with its own limits.

        Returns:
          (clipped gradients, whether all are fit to use).
        """
        masks = self.get_masks(var_weight_hparams)
        grads, all_valid = raw_grads, True
        for (name, optimizer), mask in zip(self._optimizers(), masks, strict=True):
            own = map_unmasked(
                lambda grad, keep: grad if keep else BpropMaskedNode(), raw_grads, mask
            )
            own, is_valid = self.scale_gradients(
                own,
                optimizer_name=name,
                clip_gradient_norm_to_value=optimizer.clip_gradient_norm_to_value,
                clip_gradient_single_norm_to_value=optimizer.clip_gradient_single_norm_to_value,
            )
            # Each gradient comes from its own group: a sum of masked trees would spread a NaN.
            grads = map_unmasked(lambda grad, keep, new: new if keep else grad, grads, mask, own)
            all_valid = is_valid if all_valid is True else all_valid & is_valid
        return grads, all_valid

    def _scale(self, grads: Any, var_weight_hparams: Any) -> tuple[Any, Valid]:
        if self.apply_separate_scaling:
            return self.scale_gradients_by_optimizer(grads, var_weight_hparams)
        return self.scale_gradients(grads)
