"""Inputs over arrays, sources, Grain datasets and iterables: order, shards, exact state."""

import json
import pickle
import subprocess
import sys

import grain
import numpy as np
import pytest

from praxis import base_input


def read(reader, count=None):
    """The next batches, all if no count is given."""
    batches = []
    while count is None or len(batches) < count:
        try:
            batches.append(reader.get_next())
        except StopIteration:
            break
    return batches


def ids(batches):
    return [int(i) for batch in batches for i in batch.id]


class Source:
    """Ten examples that can be read in any order."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"id": np.int64(index), "deep": {"x": np.full([3], index, np.float32)}}


ARRAYS = {"id": np.arange(10), "deep": {"x": np.arange(10.0)[:, np.newaxis] * np.ones([3])}}
DATA = {"arrays": ARRAYS, "source": Source()}


def build(**fields):
    return base_input.NumpyInput.config(**{"batch_size": 3, "data": ARRAYS, **fields}).Instantiate()


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_batches_in_order(data):
    batches = read(build(data=data, num_epochs=1))
    assert [list(batch.id) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert batches[1].deep.x.shape == (3, 3)
    np.testing.assert_array_equal(batches[1].deep.x[:, 0], [3, 4, 5])


def test_last_batch_may_be_short():
    batches = read(build(num_epochs=1, drop_remainder=False))
    assert ids(batches) == list(range(10)) and len(batches[-1].id) == 1


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_each_pass_is_another_permutation_by_the_seed(data):
    fields = {"data": data, "batch_size": 5, "num_epochs": 2, "shuffle": True}
    got = ids(read(build(input_random_seed=3, **fields)))
    first, second = got[:10], got[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))
    assert ids(read(build(input_random_seed=3, **fields))) == got
    assert ids(read(build(input_random_seed=4, **fields))) != got


def test_without_a_number_of_epochs_data_never_ends_unless_evaluation_resets():
    assert len(read(build(), 20)) == 20
    assert len(read(build(reset_for_eval=True))) == 3


def test_reset_starts_again():
    reader = build(num_epochs=1)
    assert ids(read(reader)) == ids(read_again(reader))


def read_again(reader):
    reader.reset()
    return read(reader)


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_processes_read_disjoint_shards_of_one_permutation(hosts):
    per_host = [
        ids(
            read(
                build(
                    batch_size=1,
                    num_epochs=1,
                    shuffle=True,
                    num_infeed_hosts=hosts,
                    infeed_host_index=host,
                )
            )
        )
        for host in range(hosts)
    ]
    assert {len(each) for each in per_host} == {10 // hosts}
    everything = [i for each in per_host for i in each]
    assert len(set(everything)) == len(everything) == 10 // hosts * hosts


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_state_resumes_exactly(taken, num_threads, data, tmp_path):
    fields = {"data": data, "shuffle": True, "num_epochs": 3, "num_threads": num_threads}
    reader = build(**fields)
    read(reader, taken)
    reader.save(tmp_path / "state")
    rest = ids(read(reader))
    restored = build(**fields)
    read(restored, 2)
    restored.restore(tmp_path / "state")
    assert ids(read(restored)) == rest
    assert len(rest) == 30 - 3 * taken


def test_pickled_input_goes_on():
    reader = build(shuffle=True)
    read(reader, 2)
    restored = pickle.loads(pickle.dumps(reader))
    assert ids(read(restored, 5)) == ids(read(reader, 5))


def test_truncated_state_file(tmp_path):
    """Behaviour 42."""
    path = tmp_path / "state"
    reader = build()
    reader.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=r"NumpyInput 'input': .*state'.*perhaps truncated"):
        reader.restore(path)
    path.write_bytes(json.dumps({"other": 1}).encode())
    with pytest.raises(ValueError, match=r"expected the entries \['identity', 'iterator'\]"):
        reader.restore(path)


@pytest.mark.parametrize(
    "fields", [{"batch_size": 2}, {"input_random_seed": 1}, {"num_infeed_hosts": 2}]
)
def test_state_of_other_settings_is_refused(fields):
    state = build().get_state()
    with pytest.raises(ValueError, match=rf"saved with .*'{next(iter(fields))}'.*but now"):
        build(**fields).set_state(state)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": None}, ValueError, "there is no data"),
        ({"data": {}}, ValueError, "has no examples"),
        (
            {"data": {"a": np.zeros(2), "b": {"c": np.zeros(3)}}},
            ValueError,
            r"disagree on the number of examples: \{'a': 2, 'b/c': 3\}",
        ),
        ({"data": np.zeros([4, 2])}, TypeError, r"array of shape \(4, 2\), expected a dict"),
        ({"data": iter([1])}, TypeError, "data is a list_iterator, expected"),
        ({"batch_size": 11, "num_epochs": 1}, ValueError, "10 examples over 1 processes are too"),
        ({"num_infeed_hosts": 11}, ValueError, "10 examples over 11 processes are too few"),
    ],
)
def test_data_errors_name_the_input(fields, error, message):
    with pytest.raises(error, match=f"NumpyInput 'input': .*{message}"):
        build(**fields).get_next()


def test_data_may_be_made_by_a_subclass():
    class Made(base_input.NumpyInput):
        def load(self):
            return {"id": np.arange(4)}

    reader = Made.config(batch_size=4).Instantiate()
    assert ids([reader.get_next()]) == [0, 1, 2, 3]
    assert reader.num_samples == 4


class Squares(base_input.GrainInput):
    as_iter: bool = False

    def make_dataset(self):
        dataset = grain.MapDataset.range(12).seed(self.input_random_seed or 0).shuffle()
        dataset = dataset.map(lambda i: {"id": i, "square": i * i})
        if self.as_iter:
            return dataset.to_iter_dataset().filter(lambda x: x["id"] % 2 == 0).batch(2)
        return dataset.batch(self._batch_rows)


@pytest.mark.parametrize("as_iter", [False, True])
def test_grain_datasets_of_both_kinds_resume_exactly(as_iter):
    config = Squares.config(batch_size=2, as_iter=as_iter)
    reader = config.Instantiate()
    read(reader, 1)
    state = reader.get_state()
    json.loads(state)
    rest = read(reader)
    restored = config.Instantiate()
    restored.set_state(state)
    assert ids(read(restored)) == ids(rest)
    assert len(rest) == (2 if as_iter else 5)
    np.testing.assert_array_equal(rest[0].square, rest[0].id ** 2)


def test_grain_input_without_a_dataset():
    reader = base_input.GrainInput.config(batch_size=1).Instantiate()
    with pytest.raises(NotImplementedError, match="GrainInput must implement make_dataset"):
        reader.get_next()


def count_up(reader):
    for start in range(0, 6, reader.batch_size):
        yield {"id": np.arange(start, start + reader.batch_size)}


@pytest.mark.parametrize("taken", [0, 2, 4])
def test_iterables_resume_by_position(taken):
    config = base_input.IterableInput.config(batch_size=2, make_iterator=count_up, num_epochs=2)
    reader = config.Instantiate()
    read(reader, taken)
    state = reader.get_state()
    restored = config.Instantiate()
    read(restored, 1)
    restored.set_state(state)
    assert ids(read(restored)) == (2 * list(range(6)))[2 * taken :]
    reader.reset()
    assert len(read(reader)) == 6


def test_iterable_errors():
    with pytest.raises(ValueError, match="make_iterator is not set"):
        base_input.IterableInput.config(batch_size=2).Instantiate()
    config = base_input.IterableInput.config(
        batch_size=2, make_iterator=lambda reader: [], num_epochs=None
    )
    with pytest.raises(ValueError, match="make_iterator gave no batches"):
        config.Instantiate().get_next()


def test_importing_inputs_does_not_import_grain():
    code = (
        "import sys, praxis.base_input; "
        "bad = {'grain', 'tensorflow', 'torch'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Packed(base_input.GrainInput):
    """Sequences of 1 to 6 numbers, packed by Grain, whose state has tuples."""

    def make_dataset(self):
        sequences = grain.MapDataset.range(6).map(lambda i: {"x": np.arange(i + 1) + 10 * i})
        rows = grain.experimental.ConcatThenSplitIterDataset(
            sequences.to_iter_dataset(), length_struct={"x": 4}
        )
        return rows.batch(1)


def test_state_of_packing_loses_nothing():
    reader = Packed.config(batch_size=1).Instantiate()
    states, rows = [], []
    for _ in range(6):
        states.append(reader.get_state())
        rows.append(reader.get_next().x.tolist())
    for taken, state in enumerate(states):
        restored = Packed.config(batch_size=1).Instantiate()
        restored.set_state(state)
        assert [batch.x.tolist() for batch in read(restored)] == rows[taken:]
