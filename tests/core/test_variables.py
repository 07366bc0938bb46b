"""Variables of a layer: making, reading, updating, keys (behaviours 55-65, 72-78)."""

import hashlib
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, WeightHParams, WeightInit

KEY = jax.random.PRNGKey(0)
X = jnp.ones((2, 3))
COLLECTIONS = base_layer.WeightHParamsCollection


class Counter(BaseLayer):
    """Multiplies by w and counts its calls."""

    dims: int = 3
    step: float = 1.0

    def setup(self) -> None:
        self.create_variable("w", WeightHParams([self.dims, self.dims]))
        self.create_variable("b", WeightHParams([self.dims], init=WeightInit.Gaussian()))
        self.create_variable(
            "count",
            WeightHParams(
                [self.dims],
                init=WeightInit.Constant(0.0),
                collections=[COLLECTIONS.REQUIRES_MEAN_SYNC],
            ),
            trainable=False,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        before = self.get_var("count")
        self.update_var("count", before + self.step)
        added = self.theta["b"] + (self.get_var("count") - before)
        return x @ self.theta.w + added[None, :]


def build(layer: type[BaseLayer] = Counter, **fields: Any) -> Any:
    return layer.config(name="net", **fields).Instantiate()


def drawn(path, count, key=KEY):
    """The key of the `count`-th draw of a module, by the rule in words."""
    data = "".join(path).encode() + bytes([count])
    number = int.from_bytes(hashlib.sha1(data).digest()[:4], "big")
    return jax.random.fold_in(key, np.uint32(number))


def test_init_gives_plain_arrays_by_collection():
    """Behaviours 55, 76."""
    variables = build().init(KEY, X)
    assert type(variables) is dict
    assert sorted(variables["params"]) == ["b", "w"]
    assert list(variables["non_trainable"]) == ["count"]
    assert isinstance(variables["params"]["w"], jax.Array)

    class Nothing(BaseLayer):
        def __call__(self, x: jax.Array) -> jax.Array:
            return x

    assert build(Nothing).init(KEY, X) == {}
    assert build().init(KEY, X, mutable=["params"]).keys() == {"params"}


def test_keys_of_variables():
    """Behaviour 72: the draws of a module count in order, trainable or not."""
    variables = build().init(KEY, X)
    hparams = WeightHParams([3], init=WeightInit.Gaussian(), dtype=jnp.float32)
    np.testing.assert_array_equal(
        variables["params"]["b"], base_layer.init_var(hparams, drawn((), 2), "b")
    )


def test_updates_are_seen_later_in_the_call_and_returned():
    """Behaviour 61."""
    layer = build()
    variables = layer.init(KEY, X)
    assert variables["non_trainable"]["count"].sum() == 0
    still, changed = layer.apply(variables, X, mutable=["non_trainable"])
    np.testing.assert_array_equal(changed["non_trainable"]["count"], np.ones(3))
    np.testing.assert_allclose(layer.apply(variables, X) + 1.0, still, rtol=1e-6)


def test_apply_returns_a_pair_when_asked():
    """Behaviour 77."""
    layer = build()
    variables = layer.init(KEY, X)
    assert layer.apply(variables, X).shape == (2, 3)
    assert layer.apply(variables, X, mutable=[])[1] == {}


@pytest.mark.parametrize("name", ["wrong", "count"])
def test_update_var_checks_name_and_shape(name):
    """Behaviour 61."""

    class Wrong(Counter):
        def __call__(self, x: jax.Array) -> jax.Array:
            self.update_var(name, jnp.zeros(5))
            return x

    with pytest.raises(ValueError, match=rf"Wrong 'net'.*{name}"):
        build(Wrong).init(KEY, X)


def test_update_var_keeps_the_dtype():
    """Behaviour 61."""

    class Ints(Counter):
        def __call__(self, x: jax.Array) -> jax.Array:
            self.update_var("count", jnp.arange(3))
            return x

    layer = build(Ints)
    _, changed = layer.apply(layer.init(KEY, X), X, mutable=True)
    assert changed["non_trainable"]["count"].dtype == jnp.float32


def test_theta_is_cast_and_other_variables_are_not():
    """Behaviour 60."""

    class Kinds(BaseLayer):
        def setup(self) -> None:
            zero = WeightInit.Constant(0)
            keep = [COLLECTIONS.DISALLOW_BFLOAT16_CONVERSION]
            self.create_variable("plain", WeightHParams([2]))
            self.create_variable("kept", WeightHParams([2], collections=keep))
            self.create_variable("ints", WeightHParams([2], init=zero, dtype=jnp.int32))
            self.create_variable("stat", WeightHParams([2], init=zero), trainable=False)

        def __call__(self):
            theta = self.theta
            return theta.plain, theta.kept, theta.ints, self.get_var("stat")

    layer = build(Kinds, fprop_dtype=jnp.bfloat16)
    dtypes = [x.dtype for x in layer.apply(layer.init(KEY))]
    assert dtypes == [jnp.bfloat16, jnp.float32, jnp.int32, jnp.float32]


def test_defaults_come_from_the_layer_and_the_declaration_is_left_alone():
    """Behaviour 56."""
    declared = WeightHParams([2])

    class Declares(BaseLayer):
        def __call__(self):
            return self.theta.w

        def setup(self) -> None:
            self.create_variable("w", declared)

    layer = build(Declares, dtype=jnp.bfloat16, params_init=WeightInit.Constant(3.0))
    meta = layer.abstract_init_with_metadata()["params"]["w"]
    assert meta.init == WeightInit.Constant(3.0) and meta.dtype == jnp.bfloat16
    assert declared.init is None and declared.dtype is None


def test_collections_in_order_without_duplicates():
    """Behaviour 58."""
    layer = build(skip_lp_regularization=True)
    meta = layer.abstract_init_with_metadata(X)
    assert meta["params"]["w"].collections == [COLLECTIONS.SKIP_LP_REGULARIZATION]
    assert meta["non_trainable"]["count"].collections == [
        COLLECTIONS.REQUIRES_MEAN_SYNC,
        COLLECTIONS.SKIP_LP_REGULARIZATION,
        COLLECTIONS.NON_TRAINABLE,
    ]


@pytest.mark.parametrize("name", ["dims", "get_var", "theta"])
def test_variable_with_the_name_of_an_attribute(name):
    """Behaviour 57."""

    class Clash(BaseLayer):
        dims: int = 0

        def setup(self) -> None:
            self.create_variable(name, WeightHParams([1]))

        def __call__(self):
            return None

    with pytest.raises(AttributeError, match=f"Clash 'net': variable {name!r}"):
        build(Clash).init(KEY)


def test_variable_declared_twice():
    """Behaviour 57."""

    class Twice(Counter):
        def setup(self) -> None:
            super().setup()
            self.create_variable("w", WeightHParams([1]))

    with pytest.raises(flax.errors.NameInUseError):
        build(Twice).init(KEY, X)


def test_missing_variables_are_named():
    """Behaviours 59, 62."""

    class Reads(Counter):
        def __call__(self, kind: Any) -> Any:
            readers = {
                "theta": lambda: self.theta.weight,
                "var": lambda: self.get_var("counts"),
                "state": lambda: self.get_decode_state("key"),
            }
            return readers[kind]()

    layer = build(Reads)
    variables = build().init(KEY, X)
    with pytest.raises(ValueError, match=r"Reads 'net' has no trainable .*'weight'.*'b', 'w'"):
        layer.apply(variables, "theta")
    with pytest.raises(ValueError, match=r"no non-trainable variable 'counts'.*mean 'count'"):
        layer.apply(variables, "var")
    with pytest.raises(ValueError, match=r"no decode state 'key'.*mutable=.'decoder_cache'"):
        layer.apply(variables, "state")


def test_layer_called_outside_init_and_apply():
    """Behaviour 59."""
    with pytest.raises(ValueError, match=r"Counter 'net'.*unbound.*layer.apply"):
        build()(X)


def test_missing_random_stream():
    """Behaviour 74."""

    class Noise(BaseLayer):
        def __call__(self, x: jax.Array) -> jax.Array:
            return x + jax.random.normal(self.next_prng_key(), x.shape)

    layer = build(Noise)
    with pytest.raises(flax.errors.InvalidRngError, match=r"Noise 'net'.*'random'.*rngs="):
        layer.apply({}, X)
    want = X + jax.random.normal(drawn((), 1), X.shape)
    np.testing.assert_array_equal(layer.apply({}, X, rngs={"random": KEY}), want)


def test_variables_of_another_config_are_refused():
    layer, variables = build(), build(dims=3).init(KEY, X)
    variables["params"]["w"] = jnp.ones((3, 5))
    with pytest.raises(ValueError, match=r"Counter 'net': variable 'w' .*\(3, 5\).*\(3, 3\)"):
        layer.apply(variables, X)
    with pytest.raises(ValueError, match=r"Counter 'net': variable 'w'.*not in the collection"):
        layer.apply({"params": {}}, X)


def test_sharding_of_wrong_length_names_the_variable():
    """Behaviour 65."""

    class Sharded(BaseLayer):
        def setup(self) -> None:
            self.create_variable("w", WeightHParams([2, 3], tensor_split_dims_mapping=["data"]))

        def __call__(self):
            return self.theta.w

    with pytest.raises(ValueError, match=r"Sharded 'net': variable 'w' of shape \[2, 3\]"):
        build(Sharded, mesh_axis_names=["data"], ici_mesh_shape=[1]).init(KEY)


def test_quantized_and_sparse_variables():
    """Behaviour 64."""

    class Small(BaseLayer):
        def setup(self) -> None:
            self.create_quantized_variable("q", WeightHParams([2, 3]), [3], use_symmetric=False)
            self.create_sparse_variable("s", WeightHParams([2, 3]))

        def __call__(self):
            return self.get_quantized_weight("q", use_symmetric=False), self.get_sparse_weight("s")

    layer = build(Small)
    variables = layer.init(KEY)
    dtypes = {name: x.dtype for name, x in variables["params"].items()}
    assert dtypes["q"] == jnp.int8 and {"q_quantized_scale", "q_quantized_zp"} < set(dtypes)
    assert variables["non_trainable"]["s_sparsity_mask"].dtype == jnp.bool_
    (_, scale, _), (_, mask) = layer.apply(variables)
    assert scale.shape == (3,) and mask.shape == (2, 3)


def test_compact_layers():
    """Variables and children may be made in a compact `__call__`."""

    class Compact(BaseLayer):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            child = self.create_child("child", Counter.config())
            return child(x) * self.create_variable("scale", WeightHParams([1, 3]))

    layer = build(Compact)
    variables = layer.init(KEY, X)
    assert {"child", "scale"} == set(variables["params"])
    assert layer.apply(variables, X).shape == (2, 3)


def test_plain_flax_module_holds_a_layer():
    """Behaviour 84: its init gives boxes, which its apply takes."""

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return Counter.config().Instantiate()(x)

    variables = Plain().init(KEY, X)
    box = variables["params"]["Counter_0"]["w"]
    assert isinstance(box, base_layer.BoxedParam)
    out: Any = Plain().apply(variables, X)
    assert out.shape == (2, 3)


class NeedsOneArray(BaseLayer):
    """Tells an array that is passed twice from two arrays."""

    def __call__(self, x: jax.Array, y: jax.Array) -> None:
        if x is not y:
            raise ValueError("two arrays")


def test_metadata_of_a_call_with_one_array_twice():
    layer = pax_fiddle.build(pax_fiddle.Config(NeedsOneArray, name="layer"))
    x = jnp.ones([2])
    assert layer.abstract_init_with_metadata(x, x) == {}
    with pytest.raises(ValueError, match="two arrays"):
        layer.abstract_init_with_metadata(x, jnp.ones([2]))


class Remembers(BaseLayer):
    """Keeps its last input in the decoding cache."""

    def __call__(self, x: jax.Array) -> jax.Array:
        self.update_decode_state("last", x)
        return x

    def recall(self) -> jax.Array:
        return self.get_decode_state("last")


def test_decode_state_is_kept_where_it_is_mutable():
    """Behaviour 63: also during init; elsewhere nothing happens."""
    layer = build(Remembers)
    assert layer.init(KEY, X) == {}
    np.testing.assert_array_equal(layer.apply({}, X), X)
    _, state = layer.apply({}, X, mutable=["decoder_cache"])
    np.testing.assert_array_equal(state["decoder_cache"]["last"], X)
    assert layer.init(KEY, X, mutable=["decoder_cache"]).keys() == {"decoder_cache"}
    np.testing.assert_array_equal(layer.apply(state, method="recall"), X)
    _, other = layer.apply(state, X[:1], mutable=["decoder_cache"])
    assert other["decoder_cache"]["last"].shape == (1, 3), "neither shape nor dtype is checked"


def test_updates_do_nothing_in_init_and_keep_the_metadata():
    """Behaviour 61."""
    meta = build().abstract_init_with_metadata(X)["non_trainable"]["count"]
    assert COLLECTIONS.REQUIRES_MEAN_SYNC in meta.collections
    assert meta.init == WeightInit.Constant(0.0)
    np.testing.assert_array_equal(build().init(KEY, X)["non_trainable"]["count"], np.zeros(3))


def test_create_variable_returns_the_value():
    """Behaviour 55: a trainable one in the type of computation, another one as it is stored."""

    class Returns(BaseLayer):
        @nn.compact
        def __call__(self):
            hparams = WeightHParams([2])
            return self.create_variable("w", hparams), self.create_variable("n", hparams, False)

    layer = build(Returns, fprop_dtype=jnp.bfloat16)
    trainable, other = layer.apply(layer.init(KEY))
    assert (trainable.dtype, other.dtype) == (jnp.bfloat16, jnp.float32)


def test_two_declarations_of_a_scale():
    """Behaviour 64."""

    class Twice(BaseLayer):
        def setup(self) -> None:
            scale = WeightHParams([3])
            self.create_quantized_variable("q", WeightHParams([2, 3]), [3], scale_hparams=scale)

        def __call__(self):
            return None

    with pytest.raises(ValueError, match=r"variable 'q' got scale_shape = \[3\] and scale_hparams"):
        build(Twice).init(KEY)


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_point_of_asymmetric_weights_only(symmetric):
    """Behaviour 64."""

    class Small(BaseLayer):
        def setup(self) -> None:
            weight = WeightHParams([2, 3])
            self.create_quantized_variable("q", weight, [3], use_symmetric=symmetric)

        def __call__(self):
            return self.get_quantized_weight("q", use_symmetric=symmetric)

    layer = build(Small)
    variables = layer.init(KEY)
    assert ("q_quantized_zp" in variables["params"]) is not symmetric
    assert (layer.apply(variables)[2] is None) is symmetric


@pytest.mark.parametrize(("shape", "warned"), [([2, 3], True), ([1, 3], False), ([3], False)])
def test_variable_without_sharding_on_a_mesh(shape, warned, caplog):
    """Behaviour 65: a warning where more than one dim could be split."""

    class Plain(BaseLayer):
        def setup(self) -> None:
            self.create_variable("w", WeightHParams(shape))

        def __call__(self):
            return self.theta.w

    layer = build(Plain, mesh_axis_names=["data"], ici_mesh_shape=[1])
    with caplog.at_level("WARNING", logger="absl"):
        layer.init(KEY)
    texts = [record.getMessage() for record in caplog.records]
    assert any("Plain 'net': variable 'w' of shape [2, 3]" in text for text in texts) is warned


def test_parameters_of_plain_flax_have_metadata():
    """`self.param` works in a layer: `theta` reads it, and abstract init tells its shape."""

    class Raw(BaseLayer):
        def setup(self) -> None:
            self.param("w", nn.initializers.ones, (2, 3))

        def __call__(self):
            return self.theta.w

    layer = build(Raw, fprop_dtype=jnp.bfloat16)
    assert layer.apply(layer.init(KEY)).dtype == jnp.bfloat16
    meta = layer.abstract_init_with_metadata()["params"]["w"]
    assert meta == WeightHParams((2, 3), dtype=jnp.float32)


def test_variables_outside_setup_and_compact_methods():
    class Late(BaseLayer):
        def __call__(self):
            self.create_variable("w", WeightHParams([1]))

    with pytest.raises(ValueError, match=r"in `setup\(\)` or in a method wrapped in `@compact`"):
        build(Late).init(KEY)
