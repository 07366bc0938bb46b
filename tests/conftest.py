"""One configuration of JAX for all tests: CPU, eight fake devices, strict shapes."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The fusion emitters make faster programs and take several times as long to do so.
SET = {"xla_force_host_platform_device_count": "8", "xla_cpu_use_fusion_emitters": "false"}
flags = os.environ.get("XLA_FLAGS", "").split()
flags += [f"--{name}={value}" for name, value in SET.items() if name not in str(flags)]
os.environ["XLA_FLAGS"] = " ".join(flags)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the parameter trees under tests/golden instead of comparing with them",
    )
