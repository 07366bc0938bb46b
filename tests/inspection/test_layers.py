"""The table of layers, and its arithmetic against what XLA counts in the compiled program."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from praxis import base_layer, inspection, pax_fiddle
from praxis.inspection.cost import total_cost
from praxis.layers import (
    attentions,
    linears,
    repeats,
    transformer_models,
    transformers,
)

EVAL = base_layer.JaxContext.HParams(do_eval=True)


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def language_model(num_layers, repeated=False):
    block = pax_fiddle.Config(
        transformers.StackedTransformer,
        num_layers=1 if repeated else num_layers,
        num_heads=2,
        model_dims=32,
        hidden_dims=128,
    )
    stack = block
    if repeated:
        stack = pax_fiddle.Config(
            transformers.StackedTransformerRepeated, block=block, x_times=num_layers
        )
    return pax_fiddle.Config(
        transformer_models.TransformerLm,
        name="lm",
        vocab_size=101,
        model_dims=32,
        stacked_transformer_tpl=stack,
    )


class Stack(base_layer.BaseLayer):
    def setup(self):
        sizes = [17, 31, 47, 13]
        self.create_children(
            "linear",
            [
                pax_fiddle.Config(linears.Linear, input_dims=size, output_dims=after)
                for size, after in itertools.pairwise(sizes)
            ],
        )

    def __call__(self, inputs):
        for linear in self.linear:
            inputs = linear(inputs)
        return inputs


ATTENTION = pax_fiddle.Config(
    attentions.DotProductAttention, input_dim=48, hidden_dim=48, num_heads=3
)
SEQUENCE = shape(2, 19, 48)
TOKENS = (shape(2, 23, dtype=jnp.int32), shape(2, 23))
CASES = {
    "linears": (pax_fiddle.Config(Stack), (shape(5, 17),)),
    "feed_forward": (
        pax_fiddle.Config(linears.FeedForward, input_dims=31, output_dims=67),
        (shape(2, 13, 31),),
    ),
    "transformer_feed_forward": (
        pax_fiddle.Config(transformers.TransformerFeedForward, input_dims=31, hidden_dims=67),
        (shape(2, 13, 31), shape(2, 13)),
    ),
    "attention": (ATTENTION, (SEQUENCE, SEQUENCE, SEQUENCE, shape(2, 1, 19, 19))),
    "language_model": (language_model(2), TOKENS),
}


def compiled_cost(layer, args):
    variables = jax.eval_shape(layer.init, jax.random.PRNGKey(0), *args)
    with base_layer.JaxContext.new_context(hparams=EVAL):
        return jax.jit(layer.apply).lower(variables, *args).compile().cost_analysis() or {}


@pytest.mark.parametrize("case", CASES)
def test_flops_agree_with_xla(case):
    config, args = CASES[case]
    layer = pax_fiddle.build(config)
    counted = inspection.layer_costs(layer, *args)[0].total
    measured = compiled_cost(layer, args)
    assert counted.flops == pytest.approx(measured["flops"], rel=0.05)
    assert counted.transcendentals == pytest.approx(measured.get("transcendentals", 0), rel=0.05)


def test_a_repeated_stack_costs_what_the_unrolled_one_does():
    """XLA itself counts the body of a loop once."""
    unrolled, repeated = (
        inspection.layer_costs(pax_fiddle.build(language_model(3, repeated=loop)), *TOKENS)[0]
        for loop in (False, True)
    )
    assert repeated.total.flops == pytest.approx(unrolled.total.flops, rel=0.01)
    assert repeated.num_params == unrolled.num_params


def test_layers_inside_repeat_count_all_rounds():
    sub = pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=3)
    layer = pax_fiddle.build(pax_fiddle.Config(repeats.Repeat, sub_tpl=sub, x_times=5))
    costs = {entry.path: entry for entry in inspection.layer_costs(layer, shape(2, 3))}
    assert costs["sub",].total.flops == 5 * 2 * 2 * 3 * 3
    assert costs["sub",].num_params == 5 * 3 * 3
    assert costs[()].total == costs["sub",].total + costs[()].own


def test_own_costs_add_up_to_the_total():
    config, args = CASES["language_model"]
    costs = inspection.layer_costs(pax_fiddle.build(config), *args)
    assert sum(entry.own.flops for entry in costs) == costs[0].total.flops
    children = [entry for entry in costs if len(entry.path) == 1]
    assert {entry.path[0] for entry in children} == {
        "softmax",
        "position_emb",
        "transformer",
        "final_ln",
    }


def test_nothing_is_allocated():
    """This layer would take 4 PiB."""
    config = pax_fiddle.Config(linears.Linear, input_dims=2**25, output_dims=2**25)
    costs = inspection.layer_costs(pax_fiddle.build(config), shape(2, 2**25))
    assert costs[0].num_params == 2**50
    assert costs[0].total.flops == 2 * 2 * 2.0**50


# Linear: 2 * 10 * 3 and a cast of 15 weights; bias: 10 and a cast of 5; ReLU: 10.
TABLE = """\
layer          class        output         params  FLOPs  traffic
-------------  -----------  -------------  ------  -----  -------
ff             FeedForward  bfloat16[2,5]      20    100     62 B
ff/linear      Linear       bfloat16[2,5]      15     75     62 B
ff/bias        Bias         bfloat16[2,5]       5     15      0 B
ff/activation  ReLU         bfloat16[2,5]       0     10      0 B"""


def test_table():
    config = pax_fiddle.Config(
        linears.FeedForward, name="ff", input_dims=3, output_dims=5, fprop_dtype=jnp.bfloat16
    )
    layer = pax_fiddle.build(config)
    table = inspection.layer_table(layer, shape(2, 3, dtype=jnp.bfloat16), max_depth=1)
    assert str(table) == TABLE


def test_a_method_by_name():
    layer = pax_fiddle.build(pax_fiddle.Config(Twice, name="twice", input_dims=3, output_dims=3))
    once, twice = (
        inspection.layer_costs(layer, shape(2, 3), method=method) for method in (None, "twice")
    )
    assert twice[0].total.flops == 2 * once[0].total.flops
    assert twice[0].method == "twice"
    row = inspection.layer_table(layer, shape(2, 3), method="twice").rows[0]
    assert row[:3] == ("twice", "Twice.twice", "float32[2,3]")


class Twice(linears.Linear):
    def twice(self, inputs):
        return super().__call__(super().__call__(inputs))


def test_given_variables():
    layer = pax_fiddle.build(pax_fiddle.Config(linears.Linear, input_dims=3, output_dims=5))
    variables = {"params": {"w": shape(3, 5)}}
    assert inspection.layer_costs(layer, shape(2, 3), variables=variables)[0].num_params == 15


def test_training_includes_dropout():
    config = pax_fiddle.Config(
        transformers.TransformerFeedForward,
        input_dims=7,
        hidden_dims=5,
        relu_dropout_prob=0.5,
    )
    layer, args = pax_fiddle.build(config), (shape(2, 3, 7), shape(2, 3))
    train, evaluate = (
        inspection.layer_costs(layer, *args, do_eval=do_eval)[0].total.flops
        for do_eval in (False, True)
    )
    assert train > evaluate


def test_plain_flax_modules_are_layers_too():
    class Wraps(base_layer.BaseLayer):
        def setup(self):
            self.dense = nn.Dense(5, use_bias=False)

        def __call__(self, inputs):
            return self.dense(inputs)

    layer = pax_fiddle.build(pax_fiddle.Config(Wraps, name="w"))
    rows = inspection.layer_table(layer, shape(2, 3)).rows
    assert [row[:5] for row in rows] == [
        ("w", "Wraps", "float32[2,5]", "15", "60"),
        ("w/dense", "Dense", "float32[2,5]", "15", "60"),
    ]


def cost_of(function, *args):
    return total_cost(jax.make_jaxpr(function)(*args))


X = jnp.ones([3, 5])


@pytest.mark.parametrize(
    ("name", "function", "flops"),
    [
        ("elementwise", lambda x: x * 2 + 1, 30),
        ("sum", lambda x: jnp.sum(x, axis=1), 12),
        ("movement", lambda x: x.T.reshape(5, 3, 1), 0),
        ("scan", lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, None, length=7)[0], 105),
        # A comparison, its cast to an index, and the more expensive branch.
        ("branches", lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x, lambda: x + x), 17),
        ("dead", lambda x: (x @ x.T, x + 1)[1], 15),
        ("jit", lambda x: jax.jit(jax.jit(lambda y: y + 1))(x), 15),
        ("remat", lambda x: jax.checkpoint(lambda y: y * 3)(x), 15),
        ("custom", lambda x: jax.nn.relu(x), 15),
        ("batched", lambda x: jnp.einsum("btd,bsd->bts", x[None], x[None]), 2 * 3 * 3 * 5),
    ],
)
def test_counting(name, function, flops):
    assert cost_of(function, X).flops == flops


def test_transcendentals_stand_apart():
    cost = cost_of(lambda x: jnp.exp(x) + jnp.tanh(x), X)
    assert (cost.flops, cost.transcendentals) == (15, 30)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions_agree_with_xla(padding, stride, groups):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            [stride, 1],
            padding,
            rhs_dilation=[1, 2],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    args = shape(2, 11, 13, 6), shape(3, 5, 6 // groups, 9)
    measured = jax.jit(convolve).lower(*args).cost_analysis() or {}
    assert cost_of(convolve, *args).flops == measured["flops"]


def test_traffic_of_a_product():
    """Operands and result, once each."""
    assert cost_of(lambda x: x @ x.T, X).num_bytes == 4 * (15 + 15 + 9)


def test_traffic_of_a_look_up_leaves_out_the_rest_of_the_table():
    ids = jnp.zeros([2], jnp.int32)
    table = shape(1000, 7)
    assert cost_of(lambda t: jnp.take(t, ids, axis=0), table).num_bytes < 4 * 100
