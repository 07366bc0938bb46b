"""Muon: momentum made orthogonal."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from praxis.optim.base import BaseOptimizer
from praxis.optim.transformation import (
    LearningRateFn,
    ShardedGradientTransformation,
    with_partition_spec,
)
from praxis.utils.trees import path_text

# Axes of a variable that are summed over, and axes of the outputs; None takes Adam.
MatrixAxes = tuple[Sequence[int], Sequence[int]] | None
_Axes = optax.contrib.MuonDimensionNumbers


def _default_matrices() -> dict[str, MatrixAxes]:
    # Tables are rows by id rather than maps between spaces: Jordan et al. keep Adam for them.
    return {".*(emb|softmax).*": None}


class Muon(BaseOptimizer):
    """`optax.contrib.muon`: steps along the orthogonal factor of the momentum of each matrix.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
    https://kellerjordan.github.io/posts/muon. Variables that are no matrices take Adam, with the
    same learning rate. With `consistent_rms` = 0.2 updates are as large as Adam's: Liu et al.,
    "Muon is Scalable for LLM Training", 2025, arXiv:2502.16982.

    Attributes:
      matrices: by pattern of the whole path of a variable, the axes that its product with the
        inputs sums over and the axes of the outputs, or None for Adam. Other axes are a batch of
        matrices. The first pattern that matches counts; without one, variables of rank 2 are
        matrices. Attention has weights of rank 3: `{".*/(query|key|value)/w": ([0], [1, 2]),
        ".*/post/w": ([1, 2], [0])}`. The default leaves embeddings and softmax to Adam.
      beta: decay of the momentum.
      nesterov: looks one step ahead.
      ns_steps: iterations of Newton and Schulz.
      eps: added to norms and, in Adam, to the root of the second moment.
      consistent_rms: RMS of updates before the learning rate; None scales by the root of outputs
        over inputs instead.
      momentum_dtype: type of the momentum; None for that of the variable.
      adam_beta1: decay of the mean of gradients in Adam.
      adam_beta2: decay of the mean of squared gradients in Adam.

    Raises:
      ValueError: in `init` and `update`, if axes do not fit the variable.
    """

    matrices: Mapping[str, MatrixAxes] = dataclasses.field(default_factory=_default_matrices)
    beta: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    eps: float = 1e-8
    consistent_rms: float | None = None
    momentum_dtype: Any = None
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999

    def _axes(self, params: Any) -> Any:
        """A tree like the variables: axes of each, None for Adam."""

        def axes_of(path: Any, param: jax.Array) -> Any:
            name = path_text(path)
            default = ([0], [1]) if param.ndim == 2 else None
            patterns = self.matrices.items()
            axes = next((axes for p, axes in patterns if re.fullmatch(p, name)), default)
            if axes is None:
                return None
            used = [*axes[0], *axes[1]]
            if len(set(used)) < len(used) or not all(0 <= axis < param.ndim for axis in used):
                raise ValueError(
                    f"Muon: variable {name!r} of shape {list(param.shape)} has axes {axes} in "
                    f"matrices, expected different numbers from 0 to {param.ndim - 1}."
                )
            return _Axes(tuple(axes[0]), tuple(axes[1]))

        return jax.tree_util.tree_map_with_path(axes_of, params)

    def _get_raw_grad_transformation(self, lr: LearningRateFn) -> ShardedGradientTransformation:
        return with_partition_spec(
            optax.contrib.muon(
                lr,
                ns_steps=self.ns_steps,
                beta=self.beta,
                eps=self.eps,
                mu_dtype=self.momentum_dtype,
                nesterov=self.nesterov,
                adam_b1=self.adam_beta1,
                adam_b2=self.adam_beta2,
                muon_weight_dimension_numbers=self._axes,
                consistent_rms=self.consistent_rms,
            )
        )
