"""Pipelined layers: equal to the layers one after the other, whatever the schedule."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import linears, pipeline, repeats

D, BATCH = 2, 12
KEY = jax.random.PRNGKey(0)
MUTABLE = ["non_trainable", "aux_loss", "summaries", "intermediates"]


class Stage(base_layer.BaseLayer):
    """Adds a unit vector; its gradient is NaN at 0, where bubbles are. Counts, and reports."""

    def setup(self) -> None:
        self.create_variable("w", base_layer.WeightHParams([D, D]))
        zero = base_layer.WeightInit.Constant(0)
        step = base_layer.WeightHParams([], init=zero, dtype=jnp.int32)
        self.create_variable("step", step, trainable=False)

    def __call__(self, x: Any, own: Any, scale: Any = 1.0, flag: bool = True) -> Any:
        assert flag is True
        self.update_var("step", self.get_var("step") + 1)
        self.add_aux_loss("loss", jnp.mean(jnp.square(x)), jnp.float32(0.5))
        self.add_summary("one", jnp.float32(1.0))
        self.add_summary("mean", jnp.mean(x))
        y = x @ self.theta.w
        return x + scale * own * y / jnp.linalg.norm(y, axis=-1, keepdims=True)


def build(stages=(None,), circular_repeat=None, **fields):
    cls = pipeline.LayerwiseShardablePipelined
    if circular_repeat is not None:
        cls = pipeline.CircularLayerwiseShardablePipelined
        fields["circular_repeat"] = circular_repeat
    config = pax_fiddle.Config(
        cls,
        name="pipe",
        single_stage_body=pax_fiddle.Config(Stage),
        polluting_bubbles_with_nan=True,
    )
    config.weight_split_dims_mapping.stages = stages
    return pax_fiddle.build(config.set(**fields))


def reference(weights, x, own):
    """Outputs and summed losses of the layers on the whole batch."""
    loss = jnp.float32(0.0)
    for w in weights:
        loss += jnp.mean(jnp.square(x))
        y = x @ w
        x = x + 0.5 * own * y / jnp.linalg.norm(y, axis=-1, keepdims=True)
    return x, loss


X = jnp.float32(np.random.default_rng(0).standard_normal((BATCH, 3, D)))
OWN = jnp.float32(np.random.default_rng(1).uniform(0.5, 1.5, (BATCH, 1, 1)))
TARGET = jnp.float32(np.random.default_rng(2).standard_normal((BATCH, 3, D)))

CASES = {
    "one_stage": {"num_stages": 1, "num_microbatches": 3},
    "one_microbatch": {"num_stages": 3, "num_microbatches": 1},
    "by_size": {"num_stages": 2, "microbatch_size": 2},
    "more_stages": {"num_stages": 4, "num_microbatches": 3},
    "travelling": {"num_stages": 3, "num_microbatches": 4, "pipeline_broadcast_inputs": True},
    "stream": {"num_stages": 3, "num_microbatches": 6, "stream_io": True},
    "circular": {"num_stages": 2, "num_microbatches": 2, "circular_repeat": 3},
    "circular_late": {"num_stages": 2, "num_microbatches": 3, "circular_repeat": 2},
    "circular_in_time": {
        "num_stages": 2,
        "num_microbatches": 3,
        "circular_repeat": 2,
        "enable_async_circular_transfer": False,
        "pipeline_broadcast_inputs": True,
    },
    "circular_stream": {
        "num_stages": 2,
        "num_microbatches": 4,
        "circular_repeat": 2,
        "stream_io": True,
        "pipeline_broadcast_inputs": True,
    },
    "circular_shared": {
        "num_stages": 2,
        "num_microbatches": 4,
        "circular_repeat": 2,
        "share_weights": True,
    },
}


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_equals_the_layers_one_after_the_other(fields):
    """28, pipeline: outputs, gradients and reports, with NaN in the bubbles."""
    layer = build(**fields)
    variables = jax.jit(layer.init)(KEY, X, OWN)
    weights = variables["params"]["body"]["w"]
    stages, repeat = fields["num_stages"], fields.get("circular_repeat", 1)
    stores_repeats = repeat > 1 and not fields.get("share_weights")
    assert weights.shape == ((repeat,) if stores_repeats else ()) + (stages, D, D)

    def loss(params, x, own):
        filled = {**variables, "params": params}
        y, updated = layer.apply(filled, x, own, scale=0.5, flag=True, mutable=MUTABLE)
        aux = updated["aux_loss"]["body"]["loss"]
        return jnp.vdot(y, TARGET) + aux.value, (y, updated)

    def expected_loss(params, x, own):
        layers = params["body"]["w"].reshape(-1, D, D)
        y, aux = reference(jnp.tile(layers, (repeat * stages // len(layers), 1, 1)), x, own)
        return jnp.vdot(y, TARGET) + aux, y

    arguments = (variables["params"], X, OWN)
    grads, (y, updated) = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arguments)
    expected_grads, expected = jax.jit(jax.grad(expected_loss, argnums=(0, 1, 2), has_aux=True))(
        *arguments
    )
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5),
        grads,
        expected_grads,
    )
    microbatches = fields.get("num_microbatches") or BATCH // fields["microbatch_size"]
    steps = np.asarray(updated["non_trainable"]["body"]["step"])
    np.testing.assert_array_equal(
        steps, np.full(weights.shape[:-2], microbatches * (1 if stores_repeats else repeat))
    )
    assert float(updated["aux_loss"]["body"]["loss"].weight) == 0.5 * stages * repeat
    names = [f"stage{j}" for j in range(stages)]
    if repeat > 1:
        names = [f"circular_layer{i}.{name}" for i in range(repeat) for name in names]
    summaries = updated["summaries"]["body"]
    assert set(summaries) == {f"{kind}.{name}_scalar" for kind in ("one", "mean") for name in names}
    assert {float(summaries[f"one.{name}_scalar"]) for name in names} == {1.0}
    np.testing.assert_allclose(summaries[f"mean.{names[0]}_scalar"], jnp.mean(X), rtol=2e-5)


@pytest.mark.parametrize("circular_repeat", [None, 2])
def test_runs_as_many_iterations_as_the_schedule_says(circular_repeat):
    """R M + S - 1, and the body once in each, for all stages."""
    layer = build(num_stages=3, num_microbatches=4, circular_repeat=circular_repeat)
    variables = layer.init(KEY, X, OWN)
    jaxpr = jax.make_jaxpr(lambda x: layer.apply(variables, x, OWN))(X)
    loops = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    total = 4 * (circular_repeat or 1) + 2
    assert [eqn.params["length"] for eqn in loops] == [total]
    assert layer.num_total_iterations(4) == total
    assert layer.num_valid_iterations(4) == total - 2
    mask = layer.get_valid_microbatch_mask(1, 4)
    np.testing.assert_array_equal(mask, [True, True, False])


@pytest.mark.parametrize("circular_repeat", [None, 2])
def test_metadata_says_how_often_and_how_sharded(circular_repeat):
    """28, pipeline: metadata repeat_prefix [stages] / [repeat, stages]."""
    layer = build(
        num_stages=2,
        num_microbatches=2,
        circular_repeat=circular_repeat,
        stages=("stage",),
        optimizer_dims_mapping=("opt",),
        mesh_axis_names=("stage", "opt"),
    )
    meta = layer.abstract_init_with_metadata(X, OWN)["params"]["body"]["w"]
    front = [circular_repeat] if circular_repeat else []
    none = [-1 if axis is None else axis for axis in meta.repeat_prefix_split_dims_mapping]
    assert list(meta.repeat_prefix) == [*front, 2]
    assert none == [-1 for _ in front] + ["stage"]
    assert list(meta.repeat_optimizer_dims_mapping) == [-1 for _ in front] + ["opt"]


def test_stacked_summaries_and_collected_outputs():
    fields = {"num_stages": 2, "num_microbatches": 3, "circular_repeat": 2}
    layer = build(**fields, unpack_summaries=False, collect_intermediate_outputs=True)
    variables = layer.init(KEY, X, OWN)
    _, updated = layer.apply(variables, X, OWN, mutable=MUTABLE)
    assert updated["summaries"]["body"]["mean_scalar"].shape == (2, 2)
    loop = pax_fiddle.build(
        pax_fiddle.Config(
            repeats.Repeat,
            name="loop",
            sub_tpl=pax_fiddle.Config(Stage),
            x_times=4,
            nd_prefix_shape=(2, 2),
            sublayer_name="body",
            return_intermediate_outputs=True,
        )
    )
    (outputs,) = updated["intermediates"]["pipeline_intermediates"]
    np.testing.assert_allclose(outputs, loop.apply(variables, X, OWN), rtol=2e-5, atol=2e-5)


def test_inputs_that_are_microbatches_already():
    layer, split = build(num_stages=2), build(num_stages=2, num_microbatches=4)
    variables = split.init(KEY, X, OWN)
    x, own = (leaf.reshape(3, 4, *leaf.shape[1:]).swapaxes(0, 1) for leaf in (X, OWN))
    y = layer.apply(variables, x, own)
    assert y.shape == (4, 3, 3, D)
    expected = split.apply(variables, X, OWN)
    np.testing.assert_allclose(y.swapaxes(0, 1).reshape(X.shape), expected, rtol=1e-6)
    assert layer.init(KEY, x, own)["params"]["body"]["w"].shape == (2, D, D)


def test_called_twice_losses_add_up():
    layer = build(num_stages=2, num_microbatches=3)
    variables = layer.init(KEY, X, OWN)
    twice = lambda layer, x: layer(layer(x, OWN), OWN)  # noqa: E731
    _, updated = layer.apply(variables, X, method=twice, mutable=MUTABLE)
    assert float(updated["aux_loss"]["body"]["loss"].weight) == 2.0
    np.testing.assert_array_equal(updated["non_trainable"]["body"]["step"], [6, 6])


class Noise(base_layer.BaseLayer):
    def __call__(self, x: Any) -> Any:
        return x + jax.random.uniform(self.next_prng_key(), x.shape)


def test_stages_and_microbatches_draw_their_own_random_numbers():
    layer = build(single_stage_body=pax_fiddle.Config(Noise), num_stages=2, num_microbatches=4)
    y = layer.apply({}, jnp.zeros([4, 1]), rngs={"random": KEY})
    assert len(np.unique(y)) == 4


@pytest.mark.parametrize("accumulate", [True, False])
def test_gradients_of_bfloat16_weights_add_up_in_float32(accumulate):
    """Of 1, and then 511 times 1/256, which bfloat16 cannot add to 1."""
    count = 512
    body = pax_fiddle.Config(linears.Bias, dims=1, dtype=jnp.bfloat16)
    layer = build(
        single_stage_body=body,
        num_stages=1,
        num_microbatches=count,
        bf16_accum_in_fp32=accumulate,
        dtype=jnp.bfloat16,
        fprop_dtype=jnp.bfloat16,
    )
    x = jnp.zeros([count, 1], jnp.bfloat16)
    variables = layer.init(KEY, x)
    # The backward pass goes from the last microbatch to the first.
    scale = jnp.full([count, 1], 1 / 256).at[-1].set(1.0)

    def loss(params):
        return jnp.vdot(layer.apply({"params": params}, x).astype(jnp.float32), scale)

    grad = jax.grad(loss)(variables["params"])["body"]["b"]
    assert grad.dtype == jnp.bfloat16
    exact = 1 + (count - 1) / 256
    assert (abs(float(grad[0, 0]) - exact) < 0.01 * exact) == accumulate


class Largest(base_layer.BaseLayer):
    """Its "gradient" of `amax` is the largest input, which is to become its value."""

    def setup(self) -> None:
        self.create_variable(
            "amax",
            base_layer.WeightHParams(
                [],
                init=base_layer.WeightInit.Constant(0.0),
                collections=[base_layer.WeightHParamsCollection.OVERWRITE_WITH_GRADIENT],
            ),
        )

    def __call__(self, x: Any) -> Any:
        @jax.custom_vjp
        def remember(x, amax):
            return x

        remember.defvjp(
            lambda x, amax: (x, jnp.max(jnp.abs(x))), lambda largest, grad: (grad, largest)
        )
        return remember(x, self.theta.amax)


def test_variables_that_their_gradient_overwrites_take_the_largest():
    body = pax_fiddle.Config(Largest)
    layer = build(single_stage_body=body, num_stages=2, num_microbatches=3)
    x = jnp.float32([[1.0], [5.0], [2.0]])
    variables = layer.init(KEY, x)
    grad = jax.grad(lambda params: jnp.sum(layer.apply({"params": params}, x)))
    np.testing.assert_array_equal(grad(variables["params"])["body"]["amax"], [5.0, 5.0])


@pytest.mark.parametrize("fields", [CASES["by_size"], CASES["stream"], CASES["circular_late"]])
def test_same_on_a_mesh_of_stages(fields):
    """Each device holds its own stage, and the batch is split over the other axis."""
    stages = fields["num_stages"]
    auto = (jax.sharding.AxisType.Auto,) * 2
    devices = jax.devices()[: 2 * stages]
    mesh = jax.make_mesh((stages, 2), ("stage", "data"), axis_types=auto, devices=devices)
    names = {"mesh_axis_names": ("stage", "data"), "ici_mesh_shape": (stages, 2)}
    layer, plain = build(**fields, **names, stages=("stage",)), build(**fields)
    variables = plain.init(KEY, X, OWN)

    def grads(layer):
        def loss(params, x):
            return jnp.vdot(layer.apply({**variables, "params": params}, x, OWN), TARGET)

        return jax.jit(jax.value_and_grad(loss))

    spec = jax.sharding.PartitionSpec
    prefix = [None] if "circular_repeat" in fields else []
    with jax.set_mesh(mesh):
        place = lambda x, *axes: jax.device_put(x, jax.NamedSharding(mesh, spec(*axes)))  # noqa: E731
        params = jax.tree.map(lambda x: place(x, *prefix, "stage"), variables["params"])
        compiled = grads(layer).lower(params, place(X, "data")).compile()
        assert "collective-permute" in str(compiled.as_text())
        result = compiled(params, place(X, "data"))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5),
        result,
        grads(plain)(variables["params"], X),
    )


# ---- errors -------------------------------------------------------------------------------------


class Narrow(base_layer.BaseLayer):
    def __call__(self, x: Any) -> Any:
        return x[..., :1]


class Pair(base_layer.BaseLayer):
    def __call__(self, x: Any) -> Any:
        return x, x


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_microbatches": 3, "microbatch_size": 4},
            "num_microbatches = 3 and microbatch_size = 4 are both given. Set one",
        ),
        ({"num_microbatches": 5}, "batch 12, expected a multiple of num_microbatches = 5"),
        ({"microbatch_size": 7}, "batch 12, expected a multiple of microbatch_size = 7"),
        ({"num_microbatches": 0}, "batch 12, expected a multiple of num_microbatches = 0"),
        (
            {"num_microbatches": 3, "stream_io": True},
            "stream_io = True needs a multiple of num_stages = 2 microbatches, but there are 3",
        ),
        ({"num_stages": 0}, "num_stages is 0, expected at least 1"),
        ({"single_stage_body": None}, "single_stage_body is None"),
        ({"stages": ("a", "b")}, "stages is ('a', 'b'), expected one"),
        ({"circular_repeat": -1}, "circular_repeat is -1, expected at least 1"),
        (
            {"single_stage_body": pax_fiddle.Config(Narrow)},
            "returns float32[3, 1] for inputs float32[3, 2] of a microbatch, expected the same",
        ),
        ({"single_stage_body": pax_fiddle.Config(Pair)}, "returns the structure PyTreeDef((*, *))"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_name_the_layer_and_the_fields(fields, message):
    layer = build(**{"num_stages": 2, **fields})
    arguments = (X,) if "single_stage_body" in fields else (X, OWN)
    with pytest.raises(ValueError, match=f"Pipelined 'pipe'.*{re.escape(message)}"):
        layer.init(KEY, *arguments)


def test_error_of_inputs_without_a_common_batch():
    layer = build(num_stages=2, num_microbatches=1)
    with pytest.raises(ValueError, match=r"'pipe': inputs have the shapes \[\(3,\), \(2,\)\]"):
        layer.init(KEY, [jnp.zeros([3]), jnp.zeros([2])], OWN)


def test_error_of_too_few_microbatches_to_go_around():
    layer = build(num_stages=3, num_microbatches=2, circular_repeat=2)
    with pytest.raises(
        NotImplementedError,
        match=r"'pipe': circular_repeat = 2 needs at least num_stages = 3 microbatches, .* are 2",
    ):
        layer.init(KEY, X, OWN)
