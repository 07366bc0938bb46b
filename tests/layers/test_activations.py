"""Activations against their formulas, and the lookup by name."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from praxis import pax_fiddle
from praxis.layers import activations


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("cls", "fields", "formula"),
    [
        (activations.ReLU, {}, relu),
        (activations.SineReLU, {}, lambda x: np.sin(relu(x))),
        (activations.ReLU6, {}, lambda x: np.minimum(relu(x), 6)),
        (activations.SquaredReLU, {}, lambda x: relu(x) ** 2),
        (activations.CubedReLU, {}, lambda x: relu(x) ** 3),
        (activations.LeakyReLU, {}, lambda x: np.where(x > 0, x, 0.01 * x)),
        (activations.LeakyReLU, {"negative_slope": 0.3}, lambda x: np.where(x > 0, x, 0.3 * x)),
        (activations.Sigmoid, {}, sigmoid),
        (activations.Tanh, {}, np.tanh),
        (activations.Exp, {}, np.exp),
        (activations.GELU, {}, gelu_tanh),
        (activations.GELU, {"approximate": False}, gelu_erf),
        (activations.SiLU, {}, lambda x: x * sigmoid(x)),
        (activations.Swish, {}, lambda x: x * sigmoid(x)),
        (activations.Softplus, {}, lambda x: np.log1p(np.exp(x))),
        (activations.ELU, {}, lambda x: np.where(x > 0, x, np.expm1(x))),
        (activations.Identity, {}, lambda x: x),
    ],
)
def test_matches_numpy(cls, fields, formula):
    x = np.linspace(-8.0, 8.0, 33)
    layer = pax_fiddle.build(pax_fiddle.Config(cls, **fields))
    y = layer.apply({}, jnp.float32(x))
    np.testing.assert_allclose(y, formula(x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("swish", activations.Swish),
        ("cubed_relu", activations.CubedReLU),
        ("GELU", activations.GELU),
    ],
)
def test_lookup_ignores_case_and_underscores(name, cls):
    assert activations.BaseActivation.get_subclass_by_name(name) is cls


def test_lookup_of_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"'rellu' matches no direct subclass.*'ReLU'"):
        activations.BaseActivation.get_subclass_by_name("rellu")


def test_lookup_of_an_ambiguous_name_says_where_the_classes_are():
    class Family(activations.BaseActivation):
        """A base of its own, so that this test leaves the shared lookup alone."""

    def define():
        class Gate(Family):
            pass

        return Gate

    kept = [define(), define()]
    with pytest.raises(KeyError, match=r"'gate' is ambiguous: 2 direct subclasses.*Gate"):
        Family.get_subclass_by_name("gate")
    assert len(kept) == 2


def test_base_class_cannot_be_called():
    layer = pax_fiddle.build(pax_fiddle.Config(activations.BaseActivation, name="act"))
    with pytest.raises(NotImplementedError, match=r"BaseActivation 'act' does not define __call__"):
        layer.apply({}, jnp.ones([2]))
