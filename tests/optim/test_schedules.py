from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import pax_fiddle, schedules
from praxis.optim.schedules.decay import check_points


def build(cls, **fields) -> Any:
    return pax_fiddle.build(pax_fiddle.Config(cls, **fields))


def values(schedule, steps, dtype=jnp.int32) -> Any:
    """The values at some steps, and the check that jit gives the same."""
    eager = [float(schedule.value_at(jnp.asarray(step, dtype))) for step in steps]
    jitted = jax.jit(jax.vmap(schedule.value_at))(jnp.asarray(steps, dtype))
    assert jitted.dtype == jnp.float32
    np.testing.assert_allclose(jitted, eager, rtol=2e-6, atol=1e-9)
    return eager


RAMP = {"warmup_steps": 100, "decay_start": 200, "decay_end": 300, "max": 1.0, "min_ratio": 0.01}
RAMP_STEPS = [0, 10, 20, 100, 150, 200, 250, 300, 350]

TABLE = {
    "constant": (schedules.Constant, {"value": 0.3}, [0, 7, 10**6], [0.3, 0.3, 0.3]),
    "piecewise_constant": (
        schedules.PiecewiseConstant,
        {"boundaries": [30, 40, 50], "values": [1, 0.1, 0.01, 0.001]},
        [29, 30, 39, 49, 50, 59],
        [1, 0.1, 0.1, 0.01, 0.001, 0.001],
    ),
    "piecewise_constant_with_zero_and_negative_values": (
        schedules.PiecewiseConstant,
        {"boundaries": [3, 6], "values": [0, -0.5, 0.1]},
        [0, 2, 3, 6],
        [0, 0, -0.5, 0.1],
    ),
    "piecewise_constant_without_boundaries": (
        schedules.PiecewiseConstant,
        {"boundaries": [], "values": [0.7]},
        [0, 9],
        [0.7, 0.7],
    ),
    "linear": (
        schedules.Linear,
        {"start": (100, 0.1), "limit": (200, 1.0)},
        [0, 100, 120, 150, 200, 900],
        [0.1, 0.1, 0.28, 0.55, 1, 1],
    ),
    "exponential": (
        schedules.Exponential,
        {"start": (100, 1.0), "limit": (200, 0.1)},
        [0, 100, 120, 150, 200, 900],
        [1, 1, 0.6309573, 0.3162277, 0.1, 0.1],
    ),
    "sqrt_decay": (
        schedules.SqrtDecay,
        {"decay_start": 4000},
        [0, 4000, 16000],
        [4000**-0.5, 4000**-0.5, 16000**-0.5],
    ),
    "ramp_sqrt": (
        schedules.LinearRampupSqrtDecay,
        {"warmup_steps": 100, "peak": 2.0},
        [0, 10, 50, 100, 200, 500, 1000],
        [0.02, 0.2, 1, 2, 2 / 2**0.5, 2 / 5**0.5, 2 / 10**0.5],
    ),
    "cosine": (
        schedules.Cosine,
        {"initial_value": 0.0, "final_value": 2.0, "total_steps": 8},
        [0, 4, 8, 90],
        [0, 1, 2, 2],
    ),
    "delayed_cosine": (
        schedules.DelayedCosine,
        {"start": (2, 3.0), "limit": (6, 1.0)},
        [0, 2, 4, 6, 90],
        [3, 3, 2, 1, 1],
    ),
    "ramp_cosine": (
        schedules.LinearRampupCosineDecay,
        RAMP,
        RAMP_STEPS,
        [0, 0.1, 0.2, 1, 1, 1, 0.505, 0.01, 0.01],
    ),
    "ramp_exponential": (
        schedules.LinearRampupExponentialDecay,
        RAMP,
        RAMP_STEPS,
        [0, 0.1, 0.2, 1, 1, 1, 0.1, 0.01, 0.01],
    ),
    "ramp_polynomial": (
        schedules.LinearRampupPolynomialDecay,
        {**RAMP, "power": 2},
        RAMP_STEPS,
        [0, 0.1, 0.2, 1, 1, 1, 1 - 0.99 / 4, 0.01, 0.01],
    ),
    "ramp_without_constant_phase": (
        schedules.LinearRampupCosineDecay,
        {**RAMP, "warmup_steps": 150, "decay_start": 150},
        [0, 75, 150, 225, 300],
        [0, 0.5, 1, 0.505, 0.01],
    ),
    "ramp_without_warmup": (
        schedules.LinearRampupExponentialDecay,
        {**RAMP, "warmup_steps": 0, "decay_start": 0},
        [0, 150, 300],
        [1, 0.1, 0.01],
    ),
    "ramp_with_a_jump": (
        schedules.LinearRampupPolynomialDecay,
        {**RAMP, "decay_end": 200},
        [100, 199, 200, 900],
        [1, 1, 0.01, 0.01],
    ),
    "ramp_cosine_is_1_before_start_step": (
        schedules.LinearRampupCosineDecay,
        {**RAMP, "max": 0.5, "start_step": 5},
        [0, 4, 5, 55, 105, 205, 255, 305],
        [1, 1, 0, 0.25, 0.5, 0.5, 0.2525, 0.005],
    ),
    "ramp_piecewise": (
        schedules.LinearRampupPiecewiseConstant,
        {"boundaries": [40, 80], "values": [1.0, 0.1]},
        [0, 10, 39, 40, 79, 80],
        [0, 0.25, 0.975, 1, 1, 0.1],
    ),
    "continuous": (
        schedules.ContinuousSchedule,
        {"initial_value": 3.0, "start_step": 10, "half_life_steps": 20, "min": 0.1},
        [0, 10, 30, 50, 10**6],
        [3, 3, 1.5, 0.75, 0.3],
    ),
}


@pytest.mark.parametrize(("cls", "fields", "steps", "expected"), TABLE.values(), ids=TABLE.keys())
def test_values(cls, fields, steps, expected):
    """Section 5 of the notes on schedules: values of every kind, eager and under jit."""
    np.testing.assert_allclose(values(build(cls, **fields), steps), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5, 0.5])
@pytest.mark.parametrize("origin", ["start", "limit"])
def test_polynomial_has_its_closed_form(power, origin):
    steps = np.array([0, 10, 100, 10**6])
    ratio = np.clip((steps - 7) / (370 - 7), 0, 1)
    passed = ratio**power if origin == "start" else 1 - (1 - ratio) ** power
    schedule = build(
        schedules.Polynomial, start=(7, 0.9), limit=(370, 1.3), power=power, origin=origin
    )
    np.testing.assert_allclose(values(schedule, steps), 0.9 + passed * 0.4, rtol=2e-5)


@pytest.mark.parametrize("decay_end", [None, 5000])
def test_transformer(decay_end):
    schedule = build(schedules.Transformer, warmup_steps=4000, model_dim=512, decay_end=decay_end)
    steps = [0, 1000, 2000, 3000, 4000, 4500, 5000]
    expected = [1.74693e-7, 1.74867e-4, 3.4956e-4, 5.24253e-4, 6.98684e-4, 6.58735e-4, 6.24937e-4]
    np.testing.assert_allclose(values(schedule, steps), expected, rtol=2e-5)
    before, peak, after, late = values(schedule, [3990, 4000, 4010, 20000])
    assert peak > max(before, after)
    assert late == pytest.approx(6.24937e-4 if decay_end else (512 * 20001) ** -0.5, rel=1e-5)


def test_piecewise_schedule_gives_each_piece_its_own_steps():
    ramp = pax_fiddle.Config(schedules.Linear, start=(0, 0.0), limit=(100, 100.0))
    schedule = build(
        schedules.PiecewiseSchedule, boundaries=[3, 5], schedules=[ramp, ramp.clone(), ramp.clone()]
    )
    np.testing.assert_allclose(values(schedule, range(8)), [0, 1, 2, 0, 1, 0, 1, 2])


def test_cycle_schedule_gives_each_turn_the_absolute_step():
    ramp = pax_fiddle.Config(schedules.Linear, start=(0, 0.0), limit=(100, 100.0))
    low = pax_fiddle.Config(schedules.Constant, value=-1.0)
    schedule = build(schedules.CycleSchedule, steps=[2, 3], schedules=[ramp, low])
    np.testing.assert_allclose(values(schedule, range(8)), [0, 1, -1, -1, -1, 5, 6, -1], atol=1e-6)


@pytest.mark.parametrize(("cls", "fields", "steps", "_"), TABLE.values(), ids=TABLE.keys())
def test_unsigned_and_python_steps_are_the_same(cls, fields, steps, _):
    schedule = build(cls, **fields)
    signed = [float(schedule.value_at(int(step))) for step in steps]
    np.testing.assert_array_equal(signed, values(schedule, steps, jnp.uint32))


@settings(max_examples=25, deadline=None)
@given(
    warmup=st.integers(0, 50),
    hold=st.integers(0, 50),
    decay=st.integers(1, 50),
    peak=st.floats(0.1, 10.0),
)
def test_ramps_are_bounded_and_continuous(warmup, hold, decay, peak):
    schedule = build(
        schedules.LinearRampupCosineDecay,
        warmup_steps=warmup,
        decay_start=warmup + hold,
        decay_end=warmup + hold + decay,
        max=peak,
        min_ratio=0.1,
    )
    out = np.asarray(jax.vmap(schedule.value_at)(jnp.arange(160)))
    assert out.min() >= -1e-6
    assert out.max() <= peak * (1 + 1e-5)
    steepest = max(1 / max(warmup, 1), np.pi / 2 / decay) * peak
    assert np.abs(np.diff(out)).max() <= steepest * 1.01 + 1e-6


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            build(schedules.Polynomial, start=(3, 2.0), limit=(9, 0.5), power=3, origin="limit"),
            optax.polynomial_schedule(2.0, 0.5, 3, 6, 3),
        ),
        (
            build(schedules.Exponential, start=(3, 2.0), limit=(9, 0.5)),
            optax.exponential_decay(2.0, 6, 0.25, 3, end_value=0.5),
        ),
        (
            build(schedules.Cosine, initial_value=2.0, final_value=0.5, total_steps=7),
            optax.cosine_decay_schedule(2.0, 7, 0.25),
        ),
        (
            build(
                schedules.LinearRampupCosineDecay,
                warmup_steps=4,
                decay_start=4,
                decay_end=12,
                max=2.0,
                min_ratio=0.1,
            ),
            optax.warmup_cosine_decay_schedule(0.0, 2.0, 4, 12, 0.2),
        ),
    ],
    ids=["polynomial", "exponential", "cosine", "ramp_cosine"],
)
def test_equals_optax(ours, theirs):
    steps = jnp.arange(15)
    np.testing.assert_allclose(jax.vmap(ours.value_at)(steps), jax.vmap(theirs)(steps), atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "fields", "message"),
    [
        (schedules.Linear, {"start": (3, 1.0), "limit": (3, 2.0)}, r"Linear: start is at step 3 "),
        (schedules.Linear, {"power": 2}, "Linear: power is 2, expected 1. Use Polynomial"),
        (schedules.Polynomial, {"origin": "end"}, "origin is 'end', expected 'start' or 'limit'"),
        (schedules.Exponential, {"limit": (1, 0.0)}, "limit has value 0.0, expected a positive"),
        (schedules.Cosine, {}, "Cosine: total_steps is 0, expected at least 1"),
        (schedules.DelayedCosine, {"limit": (1, -1.0)}, r"1.0 at start and -1.0 at limit"),
        (schedules.ContinuousSchedule, {"min": 1.5}, "min is 1.5, expected 0 < min < 1"),
        (
            schedules.ContinuousSchedule,
            {"half_life_steps": 0},
            "half_life_steps is 0, expected at least 1",
        ),
        (schedules.LinearRampupSqrtDecay, {"warmup_steps": 0}, "warmup_steps is 0"),
        (schedules.PiecewiseConstant, {}, "values and boundaries must both be set"),
        (
            schedules.PiecewiseConstant,
            {"boundaries": [3, 1], "values": [1, 2, 3]},
            r"boundaries \[3, 1\] are not in increasing order",
        ),
        (
            schedules.PiecewiseSchedule,
            {"boundaries": [3], "schedules": []},
            "0 schedules for 1 boundaries, expected one more",
        ),
        (
            schedules.PiecewiseSchedule,
            {"boundaries": [-3], "schedules": [schedules.Constant()] * 2},
            r"boundaries \[-3\] hold a negative step",
        ),
        (schedules.CycleSchedule, {"steps": [2]}, "0 schedules for 1 steps, expected equal"),
        (
            schedules.LinearRampupPiecewiseConstant,
            {"boundaries": [2], "values": [1.0, 2.0]},
            "2 values for 1 boundaries, expected equal lengths of at least 1",
        ),
        (
            schedules.LinearRampupCosineDecay,
            {"warmup_steps": 9, "decay_start": 5, "decay_end": 10, "max": 1.0},
            "decay_start = 5 is before the end of the warm-up, warmup_steps = 9",
        ),
        (
            schedules.LinearRampupCosineDecay,
            {"decay_start": 5, "decay_end": 4, "max": 1.0},
            "decay_end = 4 is before decay_start = 5",
        ),
        (schedules.LinearRampupPolynomialDecay, {}, "max is 0.0, expected a positive value"),
        (
            schedules.LinearRampupExponentialDecay,
            {"max": 1.0, "min_ratio": 0.0},
            "min_ratio is 0.0, expected a positive ratio",
        ),
    ],
)
def test_errors_say_what_is_wrong(cls, fields, message):
    with pytest.raises(ValueError, match=message):
        cls(**fields)


def test_points_are_pairs():
    with pytest.raises(ValueError, match=r"Linear: start is \(3,\), expected a pair"):
        check_points("Linear", (3,), (5, 1.0))
