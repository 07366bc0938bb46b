"""Behaviours 43-45 of the utilities: inputs made of other inputs, and the eval adaptor."""

import numpy as np
import pytest

from praxis import base_input


class Words(base_input.NumpyInput):
    word: str = "w"

    def ids_to_strings(self, ids, lengths, key=None):
        return [self.word * int(length) for length in lengths]


def numpy_config(count, batch_size, cls=Words, **fields):
    return cls.config(data={"id": np.arange(count)}, batch_size=batch_size, **fields)


def multi(**fields):
    children = {"a": numpy_config(12, 6, word="a"), "b": numpy_config(12, 4, word="b")}
    return base_input.MultiInput.config(**{"input_to_params": children, **fields})


def read(reader):
    batches = []
    while True:
        try:
            batches.append(reader.get_next())
        except StopIteration:
            return batches


def test_multi_input_shapes_and_names():
    """Behaviour 43."""
    config = multi(num_infeed_hosts=3, infeed_host_index=1, is_training=True)
    reader = config.Instantiate()
    batch = reader.get_next()
    assert list(batch) == ["a", "b"]
    assert batch.a.id.shape == (2, 3) and batch.b.id.shape == (2, 2)
    np.testing.assert_array_equal(batch.b.id, [[1, 4], [7, 10]])
    assert base_input.MultiInput.get_batch_size(config) == 2
    assert base_input.MultiInput.get_global_batch_size(config) == 6
    child = reader.get_child("a")
    assert child.name == "train_a" and child.is_training
    assert (child.num_infeed_hosts, child.infeed_host_index) == (3, 1)


def test_multi_input_asks_the_right_child_for_strings():
    """Behaviour 43."""
    ids, lengths = np.zeros([2, 3], np.int32), np.array([1, 2])
    reader = multi(default_input="b").Instantiate()
    assert reader.ids_to_strings(ids, lengths) == ["b", "bb"]
    assert reader.ids_to_strings(ids, lengths, input_name="a") == ["a", "aa"]
    with pytest.raises(ValueError, match=r"has no child 'c', expected one of \['a', 'b'\]"):
        reader.ids_to_strings(ids, lengths, input_name="c")
    with pytest.raises(ValueError, match=r"pass input_name, or set default_input to one of \['a'"):
        multi().Instantiate().ids_to_strings(ids, lengths)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 2}, "batch_size is 2, but it follows from the children"),
        ({"input_to_params": None}, "input_to_params is empty"),
        ({"default_input": "c"}, r"default_input is 'c', expected one of \['a', 'b'\]"),
        ({"reset_for_eval": True}, r"reset_for_eval with 2 children \['a', 'b'\]"),
    ],
)
def test_multi_input_errors(fields, message):
    """Behaviour 43."""
    with pytest.raises(ValueError, match=f"MultiInput 'input': {message}"):
        multi(**fields).Instantiate()


def test_multi_input_state_is_that_of_the_children():
    reader = multi().Instantiate()
    reader.get_next()
    state = reader.get_state()
    rest = reader.get_next()
    restored = multi().Instantiate()
    restored.set_state(state)
    np.testing.assert_array_equal(restored.get_next().a.id, rest.a.id)
    other = multi(input_to_params={"a": numpy_config(12, 6)}).Instantiate()
    with pytest.raises(ValueError, match=r"children \['a', 'b'\], expected \['a'\]"):
        other.set_state(state)
    reader.reset()
    assert reader.get_next().a.id[0, 0] == 0


class Source:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"id": np.int32(index)}


EVAL_DATA = {
    "arrays": lambda count: {"data": {"id": np.arange(count, dtype=np.int32)}},
    "source": lambda count: {"data": Source(count)},
    "input": lambda count: {
        "input": numpy_config(count, 3, num_epochs=1, drop_remainder=False, reset_for_eval=True)
    },
}


@pytest.mark.parametrize("make", EVAL_DATA.values(), ids=EVAL_DATA)
@pytest.mark.parametrize(("count", "hosts", "num_batches"), [(10, 3, 1), (13, 3, 2), (12, 1, 3)])
def test_eval_adaptor_counts_each_example_once(make, count, hosts, num_batches):
    """Behaviour 44."""
    seen, weights = [], 0.0
    for host in range(hosts):
        reader = base_input.EvalAdaptor.config(
            batch_size=4, num_infeed_hosts=hosts, infeed_host_index=host, **make(count)
        ).Instantiate()
        assert reader.num_samples == count and reader.num_batches == num_batches
        batches = read(reader)
        assert len(batches) == num_batches
        assert all(batch.id.shape == batch.eval_sample_weights.shape == (4,) for batch in batches)
        for batch in batches:
            seen += list(batch.id[batch.eval_sample_weights > 0])
            weights += batch.eval_sample_weights.sum()
        reader.reset()
        assert len(read(reader)) == num_batches
    assert sorted(seen) == list(range(count))
    assert weights == count


def test_eval_adaptor_keeps_weights_of_the_data():
    data = {"id": np.arange(3), "eval_sample_weights": np.array([0.5, 1.0, 0.0], np.float32)}
    batches = read(base_input.EvalAdaptor.config(batch_size=2, data=data).Instantiate())
    np.testing.assert_array_equal([b.eval_sample_weights for b in batches], [[0.5, 1], [0, 0]])


def test_eval_adaptor_runs_to_the_end_by_default_and_has_state():
    config = base_input.EvalAdaptor.config(batch_size=2, data={"id": np.arange(5)})
    reader = config.Instantiate()
    assert reader.reset_for_eval and reader.eval_loop_num_batches == -1
    reader.get_next()
    restored = config.Instantiate()
    restored.set_state(reader.get_state())
    np.testing.assert_array_equal(restored.get_next().id, [2, 3])
    shorter = config.clone().set(data={"id": np.arange(3)}).Instantiate()
    with pytest.raises(ValueError, match="saved with 5 examples, but now there are 3"):
        shorter.set_state(reader.get_state())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of data and input, got neither"),
        ({"data": {"id": np.zeros(1)}, "input": numpy_config(1, 1)}, "got both"),
        ({"data": {"id": np.zeros(0)}}, "the data has no examples"),
    ],
)
def test_eval_adaptor_errors(fields, message):
    with pytest.raises(ValueError, match=f"EvalAdaptor 'input'.*{message}"):
        base_input.EvalAdaptor.config(batch_size=2, **fields).Instantiate()


def test_eval_adaptor_refuses_examples_without_names():
    reader = base_input.EvalAdaptor.config(batch_size=2, data=[1, 2]).Instantiate()
    with pytest.raises(TypeError, match="an example of the source is a ndarray"):
        reader.get_next()


def rebatch(batch_size, **fields):
    return base_input.RebatchInput.config(
        batch_size=batch_size, input=numpy_config(12, 6, num_epochs=1, **fields)
    )


def test_rebatching_slices_larger_batches():
    reader = rebatch(2).Instantiate()
    for _ in range(2):
        batches = read(reader)
        assert [list(batch.id) for batch in batches] == [[i, i + 1] for i in range(0, 12, 2)]
        reader.reset()
    assert reader.ids_to_strings(np.zeros([1, 1]), np.array([2])) == ["ww"]


@pytest.mark.parametrize("taken", range(7))
def test_rebatching_resumes_exactly(taken):
    reader = rebatch(2).Instantiate()
    for _ in range(taken):
        reader.get_next()
    restored = rebatch(2).Instantiate()
    restored.get_next()
    restored.set_state(reader.get_state())
    assert [list(b.id) for b in read(restored)] == [list(b.id) for b in read(reader)]


def test_rebatching_needs_a_multiple():
    """Behaviour 45."""
    with pytest.raises(ValueError, match=r"inner batch of 6 rows is not a multiple.*= 4"):
        rebatch(4).Instantiate()
    with pytest.raises(ValueError, match="input is not set"):
        base_input.RebatchInput.config(batch_size=4).Instantiate()
