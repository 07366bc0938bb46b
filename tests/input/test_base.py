"""Behaviours 39-42 and 46 of the utilities: the contract of all inputs."""

import copy
import os
import pickle
from typing import Any

import jax
import numpy as np
import pytest

from praxis import base_input
from praxis.core.nested_map import NestedMap


class Counter(base_input.BaseInput):
    """Batch i holds i; ends after `limit` batches."""

    limit: int = 3
    opened: list | None = None

    def __post_init__(self):
        super().__post_init__()
        self._next = 0
        if self.opened is not None:
            self.opened.append(self)

    def get_next(self):
        if self._next == self.limit:
            raise StopIteration
        self._next += 1
        return NestedMap(
            x=np.full([self._batch_rows, 3], self._next, np.int32),
            text=np.array(["word"] * self._batch_rows),
        )

    def reset(self):
        super().reset()
        self._next = 0


class Stateful(Counter):
    def _get_state_internal(self):
        return str(self._next).encode()

    def _set_state_internal(self, state):
        self._next = int(state)


def build(cls: type[base_input.BaseInput] = Stateful, **fields: Any) -> Any:
    return cls.config(**{"batch_size": 2, **fields}).Instantiate()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": None}, "Stateful 'input': batch_size is not set"),
        ({"name": "a b"}, r"must match '\[a-zA-Z0-9.:_\+-\]\+', got 'a b'"),
        ({"name": "été"}, "got 'été'"),
        ({"eval_loop_num_batches": 0}, "eval_loop_num_batches is 0, expected a positive number"),
        ({"eval_loop_num_batches": -2}, "eval_loop_num_batches is -2"),
    ],
)
def test_fields_are_checked_when_built(fields, message):
    """Behaviour 39."""
    with pytest.raises(ValueError, match=message):
        build(**fields)


def test_names_and_hosts_get_defaults():
    assert build().name == "input"
    assert build(is_training=True).name == "train"
    assert build(name="a.b:c_d+e-f").name == "a.b:c_d+e-f"
    assert build().num_infeed_hosts == 1
    assert build(eval_loop_num_batches=-1).eval_loop_num_batches == -1


def test_batch_sizes_of_a_config():
    config = Stateful.config(batch_size=2, num_infeed_hosts=3)
    assert Stateful.get_batch_size(config) == 2
    assert Stateful.get_global_batch_size(config) == 6
    config.num_infeed_hosts = 0
    assert Stateful.get_global_batch_size(config) == 2


def test_padding_adds_rows_of_zeros():
    """Behaviour 40."""
    reader = build(batch_padding_size=1)
    batch = reader.get_next_padded()
    np.testing.assert_array_equal(batch.x, [[1, 1, 1], [1, 1, 1], [0, 0, 0]])
    assert batch.x.dtype == np.int32
    assert list(batch.text) == ["word", "word", ""]
    assert reader.get_next().x.shape == (2, 3)


def test_peeked_batch_is_the_next_one():
    """Behaviour 41."""
    reader = build(batch_padding_size=1)
    peeked = reader.peek_padded()
    assert reader.peek_padded() is peeked
    assert reader.get_next_padded() is peeked
    assert peeked.x.shape == (3, 3)
    assert reader.get_next_padded().x[0, 0] == 2


def test_peek_at_the_end_warns_and_gives_none(caplog):
    """Behaviour 41."""
    reader = build(limit=0)
    with caplog.at_level("WARNING", logger="absl"):
        assert reader.peek_padded() is None
    assert "peeked at the end of the data" in caplog.text
    with pytest.raises(StopIteration):
        reader.get_next_padded()


def test_state_after_a_peek_is_the_one_before_it():
    """Behaviour 41."""
    reader = build()
    reader.get_next_padded()
    before = reader.get_state()
    peeked = reader.peek_padded()
    assert reader.get_state() == before
    restored = build()
    restored.set_state(reader.get_state())
    np.testing.assert_array_equal(restored.get_next_padded().x, peeked.x)
    reader.get_next_padded()
    assert reader.get_state() != before


@pytest.mark.parametrize("drop", ["reset", "set_state"])
def test_reset_and_set_state_drop_the_peek(drop):
    reader = build()
    state = reader.get_state()
    reader.get_next_padded()
    assert reader.peek_padded().x[0, 0] == 2
    if drop == "reset":
        reader.reset()
    else:
        reader.set_state(state)
    assert reader.get_next_padded().x[0, 0] == 1


def test_input_without_state():
    """Behaviour 41."""
    reader = build(Counter)
    with pytest.raises(NotImplementedError, match="Counter has no state"):
        reader.get_state()
    with pytest.raises(NotImplementedError, match="Counter has no state"):
        reader.set_state(b"")
    assert reader.peek_padded().x[0, 0] == 1
    with pytest.raises(ValueError, match="Counter 'input': a batch was peeked"):
        reader.get_state()
    assert reader.get_next_padded().x[0, 0] == 1


class OutOfRangeError(Exception):
    """Named as that of a library that is not imported here."""


def test_end_of_data_by_another_name():
    class Ends(Stateful):
        def get_next(self):
            raise OutOfRangeError

    class Breaks(Stateful):
        def get_next(self):
            raise RuntimeError("broken")

    assert build(Ends).peek_padded() is None
    with pytest.raises(RuntimeError, match="broken"):
        build(Breaks).peek_padded()


def test_save_and_restore(tmp_path):
    """Behaviour 42."""
    path = tmp_path / "process_0-of-1"
    reader = build()
    reader.save(path)
    reader.get_next()
    reader.save(path)
    assert os.listdir(tmp_path) == ["process_0-of-1"]
    assert path.read_bytes() == reader.get_state()
    restored = build()
    restored.restore(path)
    assert restored.get_next().x[0, 0] == 2


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    reader = build()
    reader.save(path)
    reader.get_next()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        reader.save(path)
    assert path.read_bytes() == b"0"
    assert os.listdir(tmp_path) == ["state"]


def test_restore_of_foreign_bytes_names_input_and_file(tmp_path):
    """Behaviour 42."""
    path = tmp_path / "state"
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"Stateful 'input': the 4 bytes of '.*state' are not"):
        build().restore(path)
    with pytest.raises(FileNotFoundError):
        build().restore(tmp_path / "absent")


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_pickle_keeps_config_and_state(copier):
    reader = build(limit=5, name="some", batch_padding_size=1)
    reader.get_next_padded()
    peeked = reader.peek_padded()
    restored = copier(reader)
    assert (restored.limit, restored.name) == (5, "some")
    np.testing.assert_array_equal(restored.get_next_padded().x, peeked.x)


def test_pickle_without_state_starts_again():
    reader = build(Counter)
    reader.get_next()
    assert pickle.loads(pickle.dumps(reader)).get_next().x[0, 0] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.get_next(), "BaseInput must implement get_next"),
        (lambda x: x.get_child("a"), "BaseInput 'input' has no children, so no 'a'"),
        (
            lambda x: x.ids_to_strings(np.zeros([1, 2]), np.zeros([1])),
            "BaseInput does not implement ids_to_strings",
        ),
    ],
)
def test_abstract_methods_name_the_class(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call(build(base_input.BaseInput))


def test_dataset_of_a_subclass_is_read():
    class Listed(base_input.BaseInput):
        def __post_init__(self):
            super().__post_init__()
            self.dataset = [{"a": {"x": [1, 2]}}]

    reader = build(Listed)
    for _ in range(2):
        batch = reader.get_next()
        assert isinstance(batch.a, NestedMap)
        np.testing.assert_array_equal(batch.a.x, [1, 2])
        with pytest.raises(StopIteration):
            reader.get_next()
        reader.reset()


def test_specs_provider_reads_another_instance():
    """Behaviour 46."""
    opened = []
    config = Stateful.config(batch_size=2, batch_padding_size=1, opened=opened)
    reader = config.Instantiate()
    provider = base_input.DatasetInputSpecsProvider.config(input_p=config).Instantiate()
    specs = provider.get_input_specs()
    assert specs.x == jax.ShapeDtypeStruct((3, 3), np.int32)
    assert reader.get_next().x[0, 0] == 1


def test_specs_provider_errors():
    with pytest.raises(ValueError, match="DatasetInputSpecsProvider: input_p is not set"):
        base_input.DatasetInputSpecsProvider.config().Instantiate()
    with pytest.raises(NotImplementedError, match="must implement get_input_specs"):
        base_input.BaseInputSpecsProvider.config().Instantiate().get_input_specs()


@pytest.mark.parametrize(
    ("cls", "replacement"),
    [
        (base_input.LingvoInputAdaptor, "IterableInput, GrainInput or NumpyInput"),
        (base_input.LingvoInputAdaptorNewBatchSize, "RebatchInput"),
        (base_input.LingvoEvalAdaptor, "EvalAdaptor"),
        (base_input.LingvoLazyEvalAdaptor, "EvalAdaptor"),
    ],
)
def test_names_of_old_say_what_replaces_them(cls, replacement):
    with pytest.raises(NotImplementedError, match=rf"{cls.__name__} read.*{replacement}"):
        cls.config().Instantiate()
