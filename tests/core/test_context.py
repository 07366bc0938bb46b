"""JaxContext, summaries, losses, boxes, sharding helpers (behaviours 79-82, 85-94, 100)."""

import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from praxis import base_layer, pax_fiddle
from praxis.base_layer import BaseLayer, JaxContext, SummaryType, WeightHParams, WeightInit
from praxis.layers import repeats

KEY = jax.random.PRNGKey(0)


class Reports(BaseLayer):
    """Adds a summary and a loss."""

    name_of_summary: str = "x"
    kind: SummaryType = SummaryType.SCALAR
    verbosity: int = 2
    times: int = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        for number in range(self.times):
            value = x + number
            self.add_summary(self.name_of_summary, lambda v=value: v, self.kind, self.verbosity)
            self.add_aux_loss("loss", x.sum(), weight=1.0 + 2.0 * number)
        return x


def summaries(x, **fields):
    layer = Reports.config(name="net", **fields).Instantiate()
    return layer.apply({}, x, mutable=True)[1]


def test_do_eval():
    """Behaviour 85."""

    class Evaluates(BaseLayer):
        def __call__(self):
            return self.do_eval

    layer = Evaluates()
    assert layer.apply({}) is False
    settings = JaxContext.HParams(do_eval=True)
    with JaxContext.new_context(hparams=settings):
        settings.do_eval = None
        assert layer.apply({}) is True
        with JaxContext.new_context():
            assert base_layer.cur_jax_context().do_eval is True
    assert not JaxContext.has_context()
    with pytest.raises(RuntimeError, match="no JaxContext: enter one"):
        base_layer.cur_jax_context()


def test_contexts_of_threads_are_apart():
    """Behaviour 85."""
    seen = []
    with JaxContext.new_context():
        thread = threading.Thread(target=lambda: seen.append(JaxContext.has_context()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_contexts_are_left_in_order():
    """Behaviour 85."""
    outer, inner = JaxContext.new_context(), JaxContext.new_context()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="not the innermost"):
        outer.__exit__()
    inner.__exit__()
    outer.__exit__()


@pytest.mark.parametrize(("verbosity", "kept"), [(3, True), (4, False)])
def test_verbosity(verbosity, kept):
    """Behaviour 86."""
    with JaxContext.new_context(hparams=JaxContext.HParams(summary_verbosity=3)):
        assert ("summaries" in summaries(jnp.ones(()), verbosity=verbosity)) is kept
    assert "summaries" in summaries(jnp.ones(()), verbosity=verbosity)


def test_dropped_summaries_are_not_evaluated():
    """Behaviour 86: neither above the verbosity nor where summaries are not collected."""
    called = []

    class Lazy(BaseLayer):
        def __call__(self, verbosity: int) -> None:
            self.add_summary("x", lambda: called.append(verbosity) or 1.0, verbosity=verbosity)

    layer = Lazy()
    with JaxContext.new_context(hparams=JaxContext.HParams(summary_verbosity=3)):
        layer.apply({}, 4, mutable=True)
        layer.apply({}, 3)
        layer.apply({}, 2, mutable=True)
    assert called == [2]


@pytest.mark.parametrize("kind", list(SummaryType))
def test_key_suffixes(kind):
    """Behaviour 87."""
    key = "a_b" + base_layer.get_summary_type_suffix(kind)
    assert base_layer.get_summary_type_from_key(key) is kind
    assert base_layer.trim_summary_type_from_key(key) == "a_b"


def test_unknown_key():
    """Behaviour 87."""
    with pytest.raises(ValueError, match="'loss' has no type"):
        base_layer.get_summary_type_from_key("loss")


def test_same_name_twice():
    """Behaviours 88, 90: the last summary wins, losses and weights add up."""
    got = summaries(jnp.float32(5.0), times=2)
    assert got["summaries"]["x_scalar"] == 6.0
    loss = got["aux_loss"]["loss"]
    assert (loss.value, loss.weight) == (10.0, 4.0)


@pytest.mark.parametrize(
    ("kind", "shape", "want"),
    [
        (SummaryType.IMAGE, (2, 3, 1), (1, 2, 3, 1)),
        (SummaryType.AGGREGATE_IMAGE, (2, 3, 1), (1, 2, 3, 1)),
        (SummaryType.IMAGE, (5, 2, 3, 1), (5, 2, 3, 1)),
        (SummaryType.AUDIO, (7, 1), (1, 7, 1)),
    ],
)
def test_batch_dim_of_summaries(kind, shape, want):
    """Behaviour 89."""
    got = summaries(jnp.ones(shape), kind=kind)["summaries"]
    assert [x.shape for x in got.values()] == [want]


def test_losses_of_a_loop_are_summed():
    """Behaviour 90: values and weights; dropped where the collection is not mutable."""
    config = pax_fiddle.Config(repeats.Repeat, sub_tpl=Reports.config(), x_times=3, name="loop")
    layer = config.Instantiate()
    x = jnp.ones(2)
    _, updated = layer.apply(layer.init(KEY, x), x, mutable=["aux_loss"])
    loss = updated["aux_loss"]["sub"]["loss"]
    assert (float(loss.value), float(loss.weight)) == (6.0, 3.0)
    np.testing.assert_array_equal(layer.apply({}, x), x)


def test_image_of_wrong_rank():
    with pytest.raises(ValueError, match=r"Reports 'net' x.*IMAGE has shape \(2,\)"):
        summaries(jnp.ones(2), kind=SummaryType.IMAGE)


def test_global_summaries_are_numbered():
    """Behaviour 88."""
    with JaxContext.new_context():
        for number in range(3):
            base_layer.add_global_summary("g", jnp.asarray(number, jnp.bfloat16))
        found = base_layer.all_global_summaries()
        assert list(found) == ["g_scalar", "g1_scalar", "g2_scalar"]
        assert found["g_scalar"].dtype == jnp.float32
        base_layer.clear_global_summary()
        assert not base_layer.all_global_summaries()


AXIS = {
    "is_initializing": True,
    "x_times": 3,
    "sub_weight_split_dims_mapping": ["data"],
    "optimizer_dims_mapping": None,
}


def test_box_takes_an_axis_and_gives_it_back():
    """Behaviours 80, 81."""
    meta = WeightHParams([2, 5], WeightInit.Gaussian(), jnp.float32, fan_in_axes=[0, -1])
    box = base_layer.BoxedParam(jnp.ones((2, 5)), meta)
    twice = box.add_axis(0, AXIS).add_axis(0, AXIS | {"x_times": 4})
    assert list(twice.meta.full_shape) == [4, 3, 2, 5]
    assert list(twice.meta.full_split_dims_mapping or ()) == ["data", "data", -1, -1]
    assert list(twice.meta.fan_in_axes or ()) == [2, -1]
    assert twice.remove_axis(0, AXIS | {"x_times": 4}).remove_axis(0, AXIS).meta == meta
    assert box.add_axis(0, AXIS | {"is_initializing": False}) is box
    with pytest.raises(ValueError, match="along axis 1"):
        box.add_axis(1, AXIS)
    with pytest.raises(ValueError, match=r"is \(4, .*\(3, "):
        twice.remove_axis(0, AXIS)


def test_unboxing():
    """Behaviour 82."""
    tree = {"a": base_layer.BoxedParam(jnp.ones(2), WeightHParams([2])), "b": jnp.ones((3, 1))}
    assert base_layer.maybe_unbox_value(tree)["a"].shape == (2,)
    assert list(base_layer.unbox_meta(tree)["b"].shape) == [3, 1]


def test_abstract_init_allocates_nothing():
    """Behaviour 79."""

    class Huge(BaseLayer):
        def setup(self) -> None:
            self.create_variable("w", WeightHParams([1 << 20, 1 << 20]))

        def __call__(self, x: jax.Array, flag: bool) -> jax.Array:
            assert self.do_eval and x.dtype == jnp.bfloat16
            return x if flag else self.theta.w

    layer = Huge.config(fprop_dtype=jnp.bfloat16).Instantiate()
    tree = layer.abstract_init_with_metadata(
        jax.ShapeDtypeStruct((2,), jnp.float32), True, do_eval=True
    )
    assert list(tree["params"]["w"].shape) == [1 << 20, 1 << 20]


@pytest.mark.parametrize(
    ("mapping", "want"),
    [
        ([0, -1, None, "mdl"], PartitionSpec("data", None, None, "mdl")),
        ([["data", "mdl"], None], PartitionSpec(("data", "mdl"), None)),
        (None, PartitionSpec()),
    ],
)
def test_partition_specs(mapping, want):
    """Behaviour 93."""
    assert base_layer.to_partition_spec(mapping, ["data", "mdl"]) == want


@pytest.mark.parametrize("entry", ["model", 2])
def test_unknown_mesh_axis(entry):
    """Behaviour 93."""
    with pytest.raises(ValueError, match=rf"mesh axis {entry!r}.*\['data', 'mdl'\]"):
        base_layer.to_partition_spec([entry], ["data", "mdl"])


def test_maybe_shard_under_a_mesh():
    """Behaviour 94."""
    x = jnp.ones((4, 6))
    assert base_layer.maybe_shard(x, None, ["data"]) is x
    assert base_layer.maybe_shard(x, ["data", None], ["data"]) is x, "no mesh is active"
    with pytest.raises(ValueError, match=r"has 1 entries.*\(4, 6\)"):
        base_layer.maybe_shard(x, ["data"], ["data"])
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "mdl"), axis_types=auto)
    with jax.set_mesh(mesh):
        free = jax.make_jaxpr(
            lambda x: base_layer.maybe_shard(x, ["data", "mdl"], ["data", "mdl"], [1])
        )(x)
        assert free.eqns[0].params["unconstrained_dims"] == {1}
        sharded = jax.jit(lambda x: base_layer.maybe_shard(x, ["data", "mdl"], ["data", "mdl"]))(x)
        assert sharded.sharding.spec == PartitionSpec("data", "mdl")
        renamed = JaxContext.HParams(mesh_axes_transpose={"data": "mdl", "mdl": "data"})
        with JaxContext.new_context(hparams=renamed):
            spec = base_layer.maybe_transpose_mesh_axes(PartitionSpec("data", ("mdl",), None))
    assert spec == PartitionSpec("mdl", ("data",), None)


def test_var_partition_specs():
    tree = {"w": WeightHParams([2, 3], repeat_prefix=[4], tensor_split_dims_mapping=[None, "mdl"])}
    specs = base_layer.var_partition_specs(tree, [1, 2], ["data", "mdl"])
    assert specs["w"] == PartitionSpec(None, None, "mdl")
    with pytest.raises(ValueError, match="differ in length"):
        base_layer.var_partition_specs(tree, [1], ["data", "mdl"])


def test_pmap_axis():
    assert not base_layer.is_running_under_pmap()
    inside = jax.vmap(lambda x: x + base_layer.is_running_under_pmap(), axis_name="batch")
    np.testing.assert_array_equal(inside(jnp.zeros(2)), np.ones(2))


def test_assert_has_shape():
    base_layer.assert_has_shape(jnp.ones((2, 3)), [-1, 3])
    with pytest.raises(ValueError, match=r"\(2, 3\), expected \(2, 4\)"):
        base_layer.assert_has_shape(jnp.ones((2, 3)), [2, 4])
    with pytest.raises(ValueError, match="expected"):
        base_layer.assert_has_shape(jnp.ones((2, 3)), [2])


@pytest.mark.slow
def test_import_pulls_in_no_other_framework():
    """Behaviour 100."""
    script = "import praxis.base_layer, sys; print({'tensorflow', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
