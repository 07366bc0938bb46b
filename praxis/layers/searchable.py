"""A layer that is one of several, by a number among its variables."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import DenyList

from praxis import base_layer, pax_fiddle
from praxis.base_layer import WeightHParams, WeightInit
from praxis.pax_fiddle import template_field

AUX_LOSS = base_layer.AUX_LOSS
AuxLossStruct = base_layer.AuxLossStruct
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]

__all__ = ["AutoMLSelect", "WeightHParams", "WeightInit", "template_field"]


class AutoMLSelect(base_layer.BaseLayer):
    """Calls the one of its layers that the variable `decision` numbers.

    All layers have variables; a search writes a number to `decision`, and no program has to be
    compiled again. Auxiliary losses of the chosen layer are reported as one, and summaries left
    out: the names of what a program reports cannot depend on the number.

    Attributes:
      search_options_tpl: Configs of the layers. Their outputs have the same structure, shapes and
        dtypes. Required.

    Variables:
      decision: [], uint8, not trainable: 0 is the first layer, a number beyond the last is the last
      search_options_0, search_options_1, ...: as in `search_options_tpl`

    Raises:
      ValueError: during setup, if there is no layer, or more than `decision` can number; in
        `init`, if the outputs of two layers do not match.
    """

    search_options_tpl: Sequence[LayerTpl] | None = template_field(None)

    def setup(self) -> None:
        limit = jnp.iinfo(jnp.uint8).max + 1
        options = self.search_options_tpl or ()
        if not 0 < len(options) <= limit:
            raise ValueError(
                f"{self.path_text}: search_options_tpl has {len(options)} entries, expected the "
                f"configs of 1 to {limit} layers."
            )
        decision = WeightHParams(shape=[], init=WeightInit.Constant(0), dtype=jnp.uint8)
        self.create_variable("decision", decision, trainable=False)
        self.create_children("search_options", options)

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the chosen layer.

        Args:
          x: What the layer gets first.
          *args: What else it gets.
          **kwargs: What else it gets, by name.

        Returns:
          What the layer returns.
        """

        def option(index: int) -> Callable[[Any], Any]:
            return lambda layer: layer.search_options[index](x, *args, **kwargs)

        branches = [option(index) for index in range(len(self.search_options))]
        if self.is_initializing():
            # Only the branch that is taken would make variables.
            self._check_outputs([branch(self) for branch in branches])
        if self.is_mutable_collection(AUX_LOSS):
            earlier = jax.tree.leaves(self.variables.get(AUX_LOSS, {}), is_leaf=_is_loss)
            branches = [_with_total_loss(branch, earlier) for branch in branches]
        return nn.switch(
            self.get_var("decision").astype(jnp.int32),
            branches,
            self,
            variables=DenyList(base_layer.SUMMARIES),
        )

    def _check_outputs(self, outputs: Sequence[Any]) -> None:
        """Refuses layers whose outputs differ in structure, shape or dtype."""
        texts = [str(jax.eval_shape(lambda output=output: output)) for output in outputs]
        for index, text in enumerate(texts):
            if text != texts[0]:
                raise ValueError(
                    f"{self.path_text}: search_options_0 returns {texts[0]} and search_options_"
                    f"{index} {text}, expected the same structure, shapes and dtypes."
                )


def _is_loss(node: Any) -> bool:
    return isinstance(node, AuxLossStruct)


def _with_total_loss(branch: Callable[[Any], Any], earlier: list[Any]) -> Callable[[Any], Any]:
    """Wraps a branch, so that it reports one loss, as all branches have to report the same."""

    def store(seen: dict[str, Any]) -> dict[str, Any]:
        losses = [*earlier, *jax.tree.leaves(seen, is_leaf=_is_loss)]
        value = sum((jnp.float32(loss.value) for loss in losses), jnp.float32(0))
        weight = sum((jnp.float32(loss.weight) for loss in losses), jnp.float32(0))
        return {AUX_LOSS: {"search_options": AuxLossStruct(value, weight)}}

    return nn.map_variables(
        branch,
        mapped_collections=AUX_LOSS,
        trans_in_fn=lambda _: {},
        trans_out_fn=store,
        mutable=True,
    )
