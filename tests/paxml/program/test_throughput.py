"""Speed by a clock that the test holds."""

import pytest

from paxml.program.throughput import SpeedMeter
from praxis.inspection.hardware import hardware_names, hardware_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_means_since_the_last_measurement():
    clock = Clock()
    meter = SpeedMeter(5, 7, utilization_per_step_rate=0.1, clock=clock)
    found = []
    for step in range(8, 16):
        clock.now += 0.5
        found.append(meter.count(step, tokens=100, input_wait_secs=0.125))
    assert [speed is not None for speed in found] == [step % 5 == 0 for step in range(8, 16)]
    first, second = found[2], found[7]
    assert first is not None
    assert first.steps_per_sec == 2.0  # steps 8, 9 and 10 in 1.5 seconds
    assert second is not None
    assert second is meter.latest
    assert second.steps_per_sec == 2.0
    assert second.values() == pytest.approx(
        {
            "input_wait_secs_per_step": 0.125,
            "tokens_per_sec": 200.0,
            "model_flops_utilization": 0.2,
        }
    )


def test_several_steps_a_run_and_nothing_known():
    clock = Clock()
    meter = SpeedMeter(4, 0, clock=clock)
    clock.now = 2.0
    speed = meter.count(4, tokens=0, input_wait_secs=1.0)
    assert speed is not None
    assert speed.steps_per_sec == 2.0
    assert speed.values() == {"input_wait_secs_per_step": 0.25}
    assert SpeedMeter(0, 0, clock=clock).count(10, tokens=0, input_wait_secs=0.0) is None


def test_hardware_by_the_names_of_jax():
    kinds = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA A100-SXM4-80GB": "a100-80gb",
        "NVIDIA A100-SXM4-40GB": "a100",
        "NVIDIA H200": "h200",
        "TPU v5 lite": "tpu-v5e",
        "TPU v5": "tpu-v5p",
        "TPU v4": "tpu-v4",
        "h100": "h100",
    }
    for kind, name in kinds.items():
        found = hardware_of(kind)
        assert found is not None
        assert found.name == name
    assert hardware_of("NVIDIA L40S") is None
    assert hardware_of("cpu") is None
    assert all(hardware_of(name) is not None for name in hardware_names())
