"""What `pax describe` says of a mesh: traffic, roofline, whole arrays, the compiled program."""

import dataclasses

import jax.numpy as jnp
import pytest
import toy_experiment
from jax.sharding import PartitionSpec

from paxml.launch import cli
from paxml.tools import describe as describe_lib
from paxml.tools.compile_step import CompiledStep, Exchange, compile_apart, place_of
from paxml.tools.describe import describe
from paxml.tools.roofline import roofline
from paxml.tools.traffic import Traffic, estimate_traffic
from praxis import base_layer
from praxis.inspection.hardware import Hardware

MESH = {"replica": 2, "data": 4, "mdl": 2}
TOKENS = 80


def traffic_of(spec, **fields):
    hparams = base_layer.WeightHParams([16, 24], dtype=jnp.float32, **fields)
    return estimate_traffic(
        [(hparams, spec)], MESH, ("replica", "data"), num_tokens=TOKENS, fprop_bytes=2
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # All-reduce of float32 gradients over 8 devices.
        (PartitionSpec(None, None), Traffic(0.0, 2 * 384 * 4 * 7 / 8, 0.0)),
        # Gathered in bfloat16 twice; scattered over 4, then summed over 2.
        (
            PartitionSpec("data", None),
            Traffic(2 * 384 * 2 * 3 / 4, 384 * 4 * 3 / 4 + 2 * 96 * 4 / 2, 0.0),
        ),
        # Of half the weight; and an all-reduce over 2 of 10 tokens of width 16.
        (
            PartitionSpec("data", "mdl"),
            Traffic(2 * 192 * 2 * 3 / 4, 192 * 4 * 3 / 4 + 2 * 48 * 4 / 2, 2 * 10 * 16 * 2 / 2),
        ),
    ],
    ids=["replicated", "fsdp", "fsdp and tensors"],
)
def test_traffic_by_hand(spec, expected):
    assert dataclasses.astuple(traffic_of(spec)) == pytest.approx(dataclasses.astuple(expected))


def test_traffic_of_a_stack_is_that_of_its_layers():
    one = traffic_of(PartitionSpec("data", "mdl"))
    stack = traffic_of(PartitionSpec(None, "data", "mdl"), repeat_prefix=[3])
    assert dataclasses.astuple(stack) == pytest.approx(
        tuple(3 * value for value in dataclasses.astuple(one))
    )


def test_a_stage_sends_for_its_own_layers_alone():
    """Here `mdl` is the axis of 2 stages, and `data` one of 4 tensors that splits no batch."""
    hparams = base_layer.WeightHParams([16, 24], dtype=jnp.float32, repeat_prefix=[6])
    found = estimate_traffic(
        [(hparams, PartitionSpec("mdl", None, "data"))],
        MESH,
        ("replica",),
        num_tokens=TOKENS,
        fprop_bytes=2,
    )
    assert found.gather_weights == 0
    assert found.reduce_activations == pytest.approx(6 / 2 * 2 * 40 * 16 * 2 * 3 / 4)
    assert found.reduce_gradients == pytest.approx(2 * (6 * 384 / 8) * 4 / 2)


def test_the_roofline_names_the_bound():
    hardware = Hardware(
        "fast", peak_flops=100.0, memory_bytes=1.0, memory_bandwidth=10.0, network_bandwidth=5.0
    )
    found = roofline(hardware, flops=200.0, memory_bytes=5.0, sent_bytes=20.0)
    assert (found.compute, found.memory, found.network) == (2.0, 0.5, 4.0)
    assert (found.step, found.serial, found.bound, found.utilization) == (4.0, 6.5, "network", 0.5)


def test_large_arrays_that_are_not_split_are_named(monkeypatch):
    """The vector w [3] is whole on each device, the matrix m is not."""
    monkeypatch.setattr(describe_lib, "LARGE_ARRAY_BYTES", 12)
    sharded = toy_experiment.variant(MODEL=toy_experiment.Sharded, MESH=[1, 4, 2])
    found = describe(sharded, kind="tpu-v5p")
    assert found.whole_arrays["mdl_vars/params/w"] == 12
    assert not [path for path in found.whole_arrays if path.endswith("/m")]
    text = str(found)
    assert "NOT SPLIT mdl_vars/params/w" in text
    assert "time of a step, at least" in text
    assert describe(toy_experiment.Toy()).whole_arrays == {}


def test_what_the_compiled_program_sends_counts():
    exchanges = [
        Exchange("all-reduce", "lm/ffn", 4, 8, 600e9),
        Exchange("all-gather", "", 1, 8, 1.0),
    ]
    compiled = CompiledStep(8, 1, 2, exchanges, 3.0)
    sharded = toy_experiment.variant(MODEL=toy_experiment.Sharded, MESH=[1, 4, 2])
    found = describe(sharded, kind="tpu-v5p", compiled=compiled)
    assert found.roofline is not None
    assert found.roofline.network == pytest.approx(1.0)
    assert found.roofline.bound == "network"
    assert "lm/ffn" in str(found)
    assert len(compiled.table(most=1).rows) == 2


def test_places_are_layers():
    name = "jit(step)/jvp(lm)/lm.compute/x/while/body/closed_call/x/ffn/...y,yz->...z/dot_general"
    assert place_of(name) == "x/ffn"
    assert place_of("jit(step)/x/(ffn/dot:norm)/mul") == "x"
    assert place_of("") == ""


def test_compiling_apart(capsys):
    """64 devices in another process, while this one has 8; one that fails says why."""
    settings = ["--set=MESH=[1,64,1]", "--set=BATCH=64"]
    arguments = ["describe", "toy_experiment.Toy", "--kind=h100", "--compile", *settings]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "sent by a device" in text
    assert "all-reduce" in text
    with pytest.raises(ValueError, match=r"'toy_experiment.Toy' does not compile for 4 devices"):
        compile_apart("toy_experiment.Toy", ["MESH=[1,3,1]"], 4)
