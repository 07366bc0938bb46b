"""Private gradients are compiled often here, so compile fast."""

import jax
import pytest


@pytest.fixture(autouse=True)
def fast_compiles():
    """Turns most optimizations of the compiler off; the numbers stay within the tolerances."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
