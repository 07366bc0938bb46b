"""Work grows with the number of layers, not faster; counted, not timed."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from praxis import pax_fiddle
from praxis.base_layer import BaseLayer
from praxis.config import build, copying
from praxis.config.config import PaxBuildable
from praxis.core import inherit, variables
from praxis.layers import transformer_models

COUNTED = {
    "copied configs": (copying, "copy_node"),
    "new configs": (PaxBuildable, "__init__"),
    "builds": (build, "build_with_empty_flax_module_stack"),
    "inherited": (inherit, "copy_base_hparams"),
    "made layers": (BaseLayer, "__post_init__"),
    "variables": (variables, "create_variable"),
}


@pytest.fixture
def counts(monkeypatch):
    """Calls of the functions of COUNTED, by name."""
    made: collections.Counter = collections.Counter()
    for name, (owner, attribute) in COUNTED.items():
        original = getattr(owner, attribute)

        def counting(*args: Any, _call: Any = original, _label: str = name, **kwargs: Any) -> Any:
            made[_label] += 1
            return _call(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, counting)
    return made


def language_model(num_layers):
    config = pax_fiddle.Config(
        transformer_models.TransformerLm, name="lm", vocab_size=5, model_dims=4
    )
    config.stacked_transformer_tpl.set(
        num_layers=num_layers, num_heads=2, model_dims=4, hidden_dims=8
    )
    return config


def test_work_of_a_model_is_linear_in_its_depth(counts):
    """Each further layer costs the same, however many there are before it."""
    ids, paddings = jnp.zeros([1, 2], jnp.int32), jnp.zeros([1, 2])
    totals = []
    for num_layers in (4, 5, 8):
        counts.clear()
        layer = pax_fiddle.instantiate(language_model(num_layers))
        layer.abstract_init_with_metadata(ids, paddings)
        totals.append(dict(counts))
    four, five, eight = totals
    assert set(COUNTED) == set(eight)
    one_layer = {name: five[name] - four[name] for name in COUNTED}
    assert {name: eight[name] - four[name] for name in COUNTED} == {
        name: 4 * count for name, count in one_layer.items()
    }
    # A child is copied once from its template and once more, to be built, with all it holds.
    assert one_layer["copied configs"] <= 40 * one_layer["made layers"]
    assert one_layer["inherited"] <= 3 * one_layer["made layers"]


class Owner(BaseLayer):
    """Has a large field and many children."""

    payload: Any = None
    num_children: int = 1

    def setup(self) -> None:
        for i in range(self.num_children):
            self.create_child(f"child_{i}", Owner.config(num_children=0))

    def __call__(self) -> jax.Array | None:
        for child in self.children.values():
            child()
        return None


class Payload:
    """Counts its deep copies."""

    copies = 0

    def __deepcopy__(self, memo):
        type(self).copies += 1
        return self


@pytest.mark.parametrize("num_children", [1, 7])
def test_children_do_not_copy_what_their_owner_holds(num_children):
    Payload.copies = 0
    config = Owner.config(name="net", payload=Payload(), num_children=num_children)
    config.Instantiate().apply({})
    assert Payload.copies == 0


def test_a_level_copies_what_is_below_it(counts):
    """Nothing above, so that a nest costs no more than the square of its depth."""

    class Chain(BaseLayer):
        next_tpl: pax_fiddle.Config[BaseLayer] | None = None

        def setup(self) -> None:
            if self.next_tpl is not None:
                self.create_child("next", self.next_tpl)

        def __call__(self) -> None:
            if self.next_tpl is not None:
                self.next()

    def copied(depth):
        config = Chain.config()
        for _ in range(depth):
            config = Chain.config(next_tpl=config)
        counts.clear()
        config.set(name="net").Instantiate().apply({})
        return counts["copied configs"]

    assert copied(16) <= 4.5 * copied(8), "at most quadratic in the depth of the nest"
