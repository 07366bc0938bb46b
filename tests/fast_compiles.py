"""The compiler without most of its optimizations, for tests that compile more than they compute.

A `conftest.py` that imports the fixture turns it on for all tests beside and below it.
"""

import jax
import pytest


@pytest.fixture(autouse=True)
def fast_compiles(request):
    """Turns most optimizations of the compiler off; the numbers stay within the tolerances.

    Tests of the compiled program, of its memory for instance, are marked `optimized`.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update(
        "jax_disable_most_optimizations", request.node.get_closest_marker("optimized") is None
    )
    yield
    jax.config.update("jax_disable_most_optimizations", before)
