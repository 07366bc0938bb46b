"""DP-SGD: the gradient of each example is clipped, their mean gets noise.

Abadi et al., "Deep Learning with Differential Privacy", 2016, arXiv:1607.00133.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from paxml.learner.dp.clipping import add_noise, clip_by_layer, clip_globally, layer_bounds
from paxml.learner.forward import combine, join_rows, split_rows
from paxml.learner.gradient import BaseStochasticGradient, GradAuxInfo, LossFn, ValueAndGrad
from paxml.learner.scaling import add_scalar
from praxis.utils import trees


@flax.struct.dataclass
class DPGradAuxInfo(GradAuxInfo):
    """What a private gradient returns besides the loss.

    Attributes:
      dp_aux_info: numbers about the clipping, by name.
    """

    dp_aux_info: Any = None


class _Unit(NamedTuple):
    """Results of what is clipped as one: an example, or a group of them."""

    loss: jax.Array
    aux_info: Any
    loss_weight: jax.Array
    dp_info: dict[str, jax.Array]


class DpSgdStochasticGradient(BaseStochasticGradient):
    """g = mean_i clip(g_i) + noise, with g_i the gradient of the loss of example i alone.

    clip(g) = g min(1, l2_norm_clip / |g|). The noise is Gaussian with standard deviation
    `noise_multiplier * l2_norm_clip / B`. Abadi et al., arXiv:1607.00133. Results other than the
    gradient are means over the examples.

    The model sees one example at a time: parts that look at others in the batch, such as batch
    normalization, give no privacy.

    Attributes:
      l2_norm_clip: bound of the norm of the gradient of one example, above 0.
      noise_multiplier: standard deviation of the noise on the sum, in units of the bound.
      normalize_gradients: divides the mean by the bound, before the noise, which then has
        `noise_multiplier / B`.
      use_loss_weight_scaling: multiplies the bound of an example by its loss weight. Only without
        noise.
      inner_batch_size: number of examples whose gradients are in memory at a time; None for all.
      spmd_axis_name: mesh axes that the examples are split over.

    Raises:
      ValueError: when built, for a bound of 0 or less, or for a scaled bound with noise; when
        used, if the batch is not a multiple of `inner_batch_size`.
    """

    l2_norm_clip: float = 0.0
    noise_multiplier: float = 0.0
    normalize_gradients: bool = False
    use_loss_weight_scaling: bool = False
    inner_batch_size: int | None = None
    spmd_axis_name: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_privacy_settings(self)

    def grad_fn(
        self,
        loss_fn: LossFn,
        mdl_vars_grad: Any,
        mdl_vars_nograd_and_inputs: tuple[Any, Any],
        prng_key: jax.Array,
    ) -> ValueAndGrad:
        """As in the base class. Each example gets its own key, whatever the inner batch size."""
        mdl_vars_nograd, inputs = mdl_vars_nograd_and_inputs
        units = self._make_units(inputs)  # [U, examples, ...]
        noise_key, key = jax.random.split(prng_key)
        num_units = jax.tree.leaves(units)[0].shape[0]
        keys = jax.random.split(key, num_units)

        def one(unit: Any, unit_key: jax.Array) -> tuple[Any, _Unit]:
            value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, aux), grads = value_and_grad(mdl_vars_grad, (mdl_vars_nograd, unit), unit_key)
            weight = jnp.asarray(aux.loss_weight, jnp.float32)
            bound = self.l2_norm_clip * (weight if self.use_loss_weight_scaling else 1.0)
            clipped, dp_info = self._clip(grads, bound)
            return clipped, _Unit(loss, aux.aux_info, weight, dp_info)

        def several(some_units: Any, some_keys: jax.Array) -> tuple[Any, _Unit]:
            clipped, results = jax.vmap(one, spmd_axis_name=self.spmd_axis_name)(
                some_units, some_keys
            )
            return jax.tree.map(lambda g: jnp.sum(g, axis=0), clipped), results

        sums, results = self._in_turns(several, units, keys)
        grads = jax.tree.map(lambda s: s / num_units, sums)
        return self._finish(grads, results, num_units, noise_key)

    def process_aux_info(self, aux_info: Any) -> Any:
        """Means over the examples; outputs of examples are joined."""
        count = jax.tree.leaves(aux_info)[0].shape[0]
        return combine(aux_info, jnp.ones([count]), join=_join_units)

    def _make_units(self, inputs: Any) -> Any:
        """What is clipped as one, [U, examples, ...]: here single examples."""
        return jax.tree.map(lambda x: x[:, None], inputs)

    def _examples_in_unit(self) -> int:
        return 1

    def _clip(self, grads: Any, bound: Any) -> tuple[Any, dict[str, jax.Array]]:
        clipped, norm = clip_globally(grads, bound)
        return clipped, {"frac_clipped": (norm > bound).astype(jnp.float32)}

    def _in_turns(self, several: Any, units: Any, keys: jax.Array) -> tuple[Any, _Unit]:
        """Sums and results of all units, `inner_batch_size` examples at a time."""
        if self.inner_batch_size is None:
            return several(units, keys)
        num_units, size = keys.shape[0], self._examples_in_unit()
        turns = num_units * size // self.inner_batch_size
        if turns * self.inner_batch_size != num_units * size or self.inner_batch_size % size:
            raise ValueError(
                f"{type(self).__name__}: inner_batch_size = {self.inner_batch_size} does not "
                f"divide the batch of {num_units * size} examples in groups of {size}."
            )
        parts = split_rows((units, keys), turns, "inner_batch_size")

        def add(sums: Any, part: Any) -> tuple[Any, _Unit]:
            more, results = several(*part)
            return jax.tree.map(jnp.add, sums, more), results

        shapes = jax.eval_shape(several, *jax.tree.map(lambda x: x[0], parts))[0]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        sums, results = jax.lax.scan(add, zeros, parts)
        return sums, join_rows(results)

    def _finish(
        self, grads: Any, results: _Unit, num_units: int, noise_key: jax.Array
    ) -> ValueAndGrad:
        """Normalizes the mean, adds noise, and makes one result of those of all units."""
        bound = self.l2_norm_clip
        if self.normalize_gradients:
            grads, bound = jax.tree.map(lambda g: g / self.l2_norm_clip, grads), 1.0
        if self.noise_multiplier:
            grads = add_noise(grads, self.noise_multiplier * bound / num_units, noise_key)
        dp_info = {name: jnp.mean(value) for name, value in results.dp_info.items()}
        for name, value in dp_info.items():
            add_scalar(f"dp_metrics/{name}", value)
        aux = DPGradAuxInfo(
            aux_info=self.process_aux_info(results.aux_info),
            loss_weight=jnp.mean(results.loss_weight),
            dp_aux_info=dp_info,
        )
        return (jnp.mean(results.loss), aux), grads


class MicrobatchDpSgdStochasticGradient(DpSgdStochasticGradient):
    """Clips the mean gradient of each group of examples instead of each example's.

    The noise is that of B / microbatch_size clipped gradients. `inner_batch_size` counts examples.

    Attributes:
      microbatch_size: number of neighbouring examples in a group; it divides the batch size.
    """

    microbatch_size: int = 1

    def _make_units(self, inputs: Any) -> Any:
        def group(x: jax.Array) -> jax.Array:
            if x.shape[0] % self.microbatch_size:
                raise ValueError(
                    f"{type(self).__name__}: microbatch_size = {self.microbatch_size} does not "
                    f"divide the batch of {x.shape[0]} examples."
                )
            return x.reshape(-1, self.microbatch_size, *x.shape[1:])

        return jax.tree.map(group, inputs)

    def _examples_in_unit(self) -> int:
        return self.microbatch_size


class AugMulDpSgdStochasticGradient(MicrobatchDpSgdStochasticGradient):
    """Repeats each example `microbatch_size` times and clips the mean gradient of its copies.

    The model is to augment each copy at random. De et al., "Unlocking High-Accuracy
    Differentially Private Image Classification through Scale", 2022, arXiv:2204.13650.
    `inner_batch_size` counts copies.
    """

    def _make_units(self, inputs: Any) -> Any:
        return super()._make_units(
            jax.tree.map(lambda x: jnp.repeat(x, self.microbatch_size, axis=0), inputs)
        )


class PerLayerDpSgdStochasticGradient(DpSgdStochasticGradient):
    """Clips each variable's part of the gradient of an example by its own bound.

    The squares of the bounds sum up to that of `l2_norm_clip`, so the noise is the same. McMahan et
    al., "Learning Differentially Private Recurrent Language Models", 2018, arXiv:1710.06963.

    Attributes:
      use_uniform: whether all bounds are equal, l2_norm_clip / sqrt(number of variables); else
        they grow with the root of the size of the variable.
    """

    use_uniform: bool = True

    def _clip(self, grads: Any, bound: Any) -> tuple[Any, dict[str, jax.Array]]:
        bounds = layer_bounds(grads, bound, self.use_uniform)
        clipped, norms = clip_by_layer(grads, bounds)
        flat, _ = jax.tree_util.tree_flatten_with_path(norms)
        info = {
            f"frac_clipped/{trees.path_text(path)}": (norm > own).astype(jnp.float32)
            for (path, norm), own in zip(flat, jax.tree.leaves(bounds), strict=True)
        }
        info["frac_clipped"] = jnp.mean(jnp.stack(list(info.values())))
        return clipped, info


def check_privacy_settings(gradient: Any) -> None:
    """Checks the settings that all private gradients share.

    Raises:
      ValueError: for a bound that is not above 0, or one scaled by the loss weight with noise.
    """
    title = type(gradient).__name__
    if not gradient.l2_norm_clip or gradient.l2_norm_clip < 0:
        raise ValueError(
            f"{title}: l2_norm_clip is {gradient.l2_norm_clip}, expected a bound above 0, e.g. 1.0."
        )
    if gradient.use_loss_weight_scaling and gradient.noise_multiplier:
        raise ValueError(
            f"{title}: use_loss_weight_scaling is True with noise_multiplier = "
            f"{gradient.noise_multiplier}. The noise does not follow a bound that varies: set one "
            "of them to 0."
        )


def _join_units(tree: Any) -> Any:
    """[U, examples, ...] -> [U * examples, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]) if x.ndim > 1 else x, tree)
