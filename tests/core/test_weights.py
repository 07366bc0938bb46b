"""WeightHParams, WeightInit and the formulas of initialisers (behaviours 66-71)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.base_layer import WeightHParams, WeightInit, init_var

KEY = jax.random.PRNGKey(7)
SHAPES = [(5,), (3, 5), (2, 3, 5), (2, 3, 5, 7)]


def fans(shape):
    if len(shape) == 1:
        return shape[0], shape[0]
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


def normal(shape):
    return jax.random.normal(KEY, shape)


def uniform(shape):
    return jax.random.uniform(KEY, shape, minval=-1.0, maxval=1.0)


def truncated(shape):
    return jax.random.truncated_normal(KEY, -2.0, 2.0, shape)


FORMULAS = {
    "Gaussian": lambda s: 0.5 * normal(s),
    "Uniform": lambda s: 0.5 * uniform(s),
    "TruncatedGaussian": lambda s: 0.5 * truncated(s),
    "Xavier": lambda s: 0.5 * math.sqrt(6 / sum(fans(s))) * uniform(s),
    "GaussianSqrtDim": lambda s: 0.5 / math.sqrt(s[0]) * normal(s),
    "UniformSqrtDim": lambda s: 0.5 / math.sqrt(s[0]) * uniform(s),
    "TruncatedGaussianSqrtDim": lambda s: 0.5 / math.sqrt(s[0]) * truncated(s),
    "GaussianSqrtFanIn": lambda s: 0.5 / math.sqrt(fans(s)[0]) * normal(s),
    "GaussianSqrtFanOut": lambda s: 0.5 / math.sqrt(fans(s)[1]) * normal(s),
    "TruncatedGaussianSqrtFanIn": lambda s: 0.5 / math.sqrt(fans(s)[0]) * truncated(s),
    "TruncatedGaussianSqrtFanOut": lambda s: 0.5 / math.sqrt(fans(s)[1]) * truncated(s),
    "GaussianSqrtFanAvg": lambda s: 0.5 * math.sqrt(2 / sum(fans(s))) * normal(s),
    "UniformSqrtFanAvg": lambda s: 0.5 * math.sqrt(6 / sum(fans(s))) * uniform(s),
    "UniformUnitScaling": lambda s: 0.5 * math.sqrt(3 / max(1, math.prod(s[:-1]))) * uniform(s),
}


def draw(init, shape, dtype=jnp.float32, **fields):
    return init_var(WeightHParams(shape=shape, init=init, dtype=dtype, **fields), KEY, "net/w")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formula(name, shape):
    """Behaviour 66: equal to the last bit but for the rounding of the scale."""
    got = draw(getattr(WeightInit, name)(0.5), shape)
    np.testing.assert_allclose(got, FORMULAS[name](shape), rtol=2e-7)


@pytest.mark.parametrize("name", ["Gaussian", "Uniform", "Constant", "Xavier"])
def test_scalars(name):
    """Behaviour 67."""
    value = draw(getattr(WeightInit, name)(0.5), ())
    assert value.shape == () and np.isfinite(value)


@pytest.mark.parametrize(
    ("shape", "axes", "want"),
    [
        ((64, 1024, 8192), (None, None), (65536, 524288)),
        ((64, 1024, 8192), ([-2], [-1]), (1024, 8192)),
        ((3, 1024, 32, 128), ([-3], [-2, -1]), (1024, 4096)),
        ((7,), (None, None), (7, 7)),
        ((), (None, None), (None, None)),
        ((2, 3, 4, 5), ([0, 1], [2]), (6, 4)),
    ],
)
def test_fans(shape, axes, want):
    """Behaviour 68."""
    assert base_layer.get_fan_in_fan_out(shape, *axes) == want


def test_one_list_of_fan_axes_is_refused():
    """Behaviour 68."""
    with pytest.raises(ValueError, match=r"fan_in_axes = \[0\] and fan_out_axes = None"):
        base_layer.get_fan_in_fan_out([2, 3], [0])


@pytest.mark.parametrize("dtype", ["int32", "bool", "int4", "bfloat16"])
def test_constant_dtypes(dtype):
    """Behaviour 69."""
    value = draw(WeightInit.Constant(1), (2, 3), jnp.dtype(dtype))
    assert value.dtype == jnp.dtype(dtype) and bool((value.astype(jnp.float32) == 1).all())


@pytest.mark.parametrize(
    ("init", "shape", "dtype", "message"),
    [
        (WeightInit.Constant(0.5), (2,), "int32", r"'net/w' of dtype int32 starts at 0.5"),
        (WeightInit("gausian", 1.0), (2,), "float32", r"'net/w'.*'gausian' is unknown.*gaussian"),
        (WeightInit.Gaussian(), (2, 0), "float32", r"'net/w' has shape \[2, 0\].*at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(init, shape, dtype, message):
    """Behaviour 69."""
    with pytest.raises(ValueError, match=message):
        draw(init, shape, jnp.dtype(dtype))


def test_delta_orthogonal_is_orthogonal_at_the_centre():
    """Behaviour 70: rows > columns gives W^T W = rows / columns I; the rest is zero."""
    value = np.asarray(draw(WeightInit.ScaledDeltaOrthogonal(), (3, 4, 6, 2)))
    centre = value[1, 1]
    np.testing.assert_allclose(centre.T @ centre, 3 * np.eye(2), atol=2e-6)
    assert np.count_nonzero(value) == np.count_nonzero(centre)
    with pytest.raises(ValueError, match="ranks 2 to 5"):
        draw(WeightInit.ScaledDeltaOrthogonal(), (1, 1, 1, 1, 2, 2))
    assert draw(WeightInit.ScaledDeltaOrthogonal(), (3, 3), jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(2)])
def test_scale_may_be_a_numpy_number(number):
    """It does not widen the variable."""
    got = draw(WeightInit.Gaussian(number), (3, 5), jnp.bfloat16)
    want = draw(WeightInit.Gaussian(number.item()), (3, 5), jnp.bfloat16)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(jnp.float32), want.astype(jnp.float32))


def test_method_of_a_user():
    function = jax.nn.initializers.orthogonal()
    for _ in range(2):
        base_layer.register_init_method("orthogonal_of_test_weights", function)
    got = draw(WeightInit("orthogonal_of_test_weights", 0.5), (3, 5))
    np.testing.assert_array_equal(got, 0.5 * function(KEY, (3, 5), jnp.float32))
    for taken in ("gaussian", "constant", "orthogonal_of_test_weights"):
        with pytest.raises(ValueError, match=f"'{taken}' has a function already"):
            base_layer.register_init_method(taken, jax.nn.initializers.normal())


def test_var_init_scale():
    """Behaviour 71."""
    scale = base_layer.var_init_scale
    assert scale(WeightHParams([4, 6], WeightInit.Gaussian(0.3))) == 0.3
    assert scale(WeightHParams([4, 6], WeightInit.GaussianSqrtFanIn(0.3))) == 0.15
    xavier = scale(WeightHParams([4, 6], WeightInit.Xavier(0.5)))
    np.testing.assert_allclose(xavier, 0.5 * np.sqrt(6 / 10), rtol=1e-7)
    with pytest.raises(NotImplementedError, match="'uniform'"):
        scale(WeightHParams([4, 6], WeightInit.Uniform()), "w")


def test_full_shape_and_sharding_put_the_stack_in_front():
    hparams = WeightHParams([3, 5], repeat_prefix=[2], tensor_split_dims_mapping=["data", None])
    assert list(hparams.full_shape) == [2, 3, 5]
    assert list(hparams.full_split_dims_mapping or ()) == [-1, "data", None]


def test_mapping_of_wrong_length_names_both():
    """Behaviour 65."""
    with pytest.raises(ValueError, match=r"\['data'\] has 1 entries.*\[3, 5\]"):
        WeightHParams([3, 5], mesh_shape=[1], tensor_split_dims_mapping=["data"])


def test_constructors_are_configs_in_configs():
    config = pax_fiddle.Config(base_layer.BaseLayer)
    assert config.params_init.scale == 1.000001
    config.params_init = pax_fiddle.Config(WeightInit, "gaussian", 0.1)
    config.params_init.scale = 0.2
    assert config.Instantiate().params_init == WeightInit.Gaussian(0.2)
    assert base_layer.is_default_param_init(base_layer.default_param_init())
    assert not base_layer.is_default_param_init(WeightInit.Xavier(1.0))


COLLECTIONS = base_layer.WeightHParamsCollection


@pytest.mark.parametrize(
    ("predicate", "collection"),
    [
        (base_layer.var_not_trainable, COLLECTIONS.NON_TRAINABLE),
        (base_layer.var_requires_mean_sync, COLLECTIONS.REQUIRES_MEAN_SYNC),
        (base_layer.var_requires_sum_sync, COLLECTIONS.REQUIRES_SUM_SYNC),
        (base_layer.var_skip_lp_regularization, COLLECTIONS.SKIP_LP_REGULARIZATION),
        (base_layer.var_overwrite_with_gradient, COLLECTIONS.OVERWRITE_WITH_GRADIENT),
        (base_layer.var_disallow_bfloat16_conversion, COLLECTIONS.DISALLOW_BFLOAT16_CONVERSION),
    ],
)
def test_predicates(predicate, collection):
    assert predicate(WeightHParams([1], collections=[collection]))
    assert not predicate(WeightHParams([1]))
