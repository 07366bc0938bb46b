"""Behaviours 35 and 48-50 of the utilities, and type aliases."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from praxis import py_utils, pytypes


def test_timeit():
    """Behaviour 35."""
    with py_utils.timeit() as period:
        time.sleep(0.01)
        assert period.end is None and 0.01 <= period.elapsed < 1
    assert period.end is not None
    assert period.elapsed == period.end - period.start
    with py_utils.timeit(min_elapsed=5.0) as period:
        pass
    assert period.elapsed == 5.0


def test_timeit_ends_on_an_error():
    with pytest.raises(KeyError), py_utils.timeit() as period:
        raise KeyError
    assert period.end is not None


@pytest.mark.parametrize(("first_n", "logged"), [(None, 3), (2, 2), (0, 0)])
def test_benchmark_logs_the_first_calls(first_n, logged, caplog):
    """Behaviour 35."""

    @py_utils.benchmark("loading: ", first_n=first_n)
    def double(x, *, plus=0):
        return 2 * x + plus

    with (
        py_utils.logging_verbosity_level(logging.INFO),
        caplog.at_level("INFO", logger="absl"),
    ):
        assert [double(i, plus=1) for i in range(3)] == [1, 3, 5]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == logged
    assert all(message.startswith("loading: double took ") for message in messages)
    assert double.__name__ == "double"


def test_verbosity_is_restored_on_errors():
    previous = logging.get_verbosity()
    with pytest.raises(KeyError), py_utils.logging_verbosity_level(logging.FATAL):
        assert logging.get_verbosity() == logging.FATAL
        raise KeyError
    assert logging.get_verbosity() == previous


def test_stacks_of_threads_are_separate():
    """Behaviour 48."""
    local = py_utils.ThreadLocalStack()
    local.stack.append("main")
    seen = []

    def run():
        seen.append(list(local.stack))
        local.stack.append("thread")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [[]] and local.stack == ["main"]


def provenance():
    values = dict(zip(py_utils.ENUM_PROVENANCE_KEYS, (3, np.int32(1), np.array(8)), strict=True))
    return {**values, "x": 5}


@pytest.mark.parametrize("pop", [False, True])
def test_enumeration_id(pop):
    """Behaviour 49."""
    example = provenance()
    prefix = "_seqio_provenance"
    assert py_utils.get_enumeration_id(example, pop=pop) == (
        f"{prefix}/index_within_shard=3/{prefix}/shard_index=1/{prefix}/num_shards=8"
    )
    assert set(example) == ({"x"} if pop else set(provenance()))


@pytest.mark.parametrize("key", py_utils.ENUM_PROVENANCE_KEYS)
def test_enumeration_id_needs_all_fields(key):
    """Behaviour 49."""
    example = provenance()
    del example[key]
    kept = dict(example)
    assert py_utils.get_enumeration_id(example, pop=True) is None
    assert example == kept


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("p@10", "p-?????-of-00010"),
        ("/a/p@*", "/a/p-?????-of-*"),
        ("p", "p"),
        ("a@b@100000", "a@b-?????-of-100000"),
    ],
)
def test_sharded_file_pattern(pattern, want):
    """Behaviour 50."""
    assert py_utils.sharded_file_pattern_to_glob(pattern) == want


def test_sharded_file_pattern_refuses_commas():
    """Behaviour 50."""
    with pytest.raises(ValueError, match="'p@10,q@10' contains a comma"):
        py_utils.sharded_file_pattern_to_glob("p@10,q@10")


def test_array_types_accept_shape_structs():
    struct = jax.ShapeDtypeStruct((2,), jnp.float32)
    array, host = jnp.ones([2]), np.ones([2])
    assert [isinstance(x, pytypes.JaxArrayT) for x in (array, struct, host, 1)] == [1, 1, 0, 0]
    assert [isinstance(x, pytypes.ArrayT) for x in (array, struct, host, 1)] == [1, 1, 1, 0]


def test_typed_checks_at_run_time():
    pytest.importorskip("beartype")

    @pytypes.typed
    def add(x: pytypes.Float[pytypes.JTensor, "B T"], count: int) -> pytypes.JTensor:
        return x + count

    assert add(jnp.ones([2, 3]), 1).shape == (2, 3)
    with pytest.raises(TypeError):
        add(jnp.ones([2]), 1)
    with pytest.raises(TypeError):
        add(jnp.ones([2, 3]), "1")  # pyright: ignore[reportArgumentType]


def test_typed_is_free_without_beartype(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def fn(x: int) -> int:
        return x

    assert pytypes.typed(fn) is fn
