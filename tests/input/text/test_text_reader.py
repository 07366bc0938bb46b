"""The text input: rows, order, processes, position, errors."""

import collections
import itertools
import pickle

import numpy as np
import pytest

from praxis import text_input

BOS, EOS = 256, 257
TEXTS = ["a", "bcd", "efghijk", "lm", "nopqrstuvwxyz", "0123", "45"]
FIELDS = {"ids", "labels", "segment_ids", "segment_pos", "weights", "paddings"}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return text_input.TextFiles.config(paths=path)


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("\n".join(["A", "BC", "DEF"]))
    return text_input.TextFiles.config(paths=path)


def build(*sources, **fields):
    defaults = {"batch_size": 2, "row_length": 5, "sources": list(sources)}
    return text_input.TextInput.config(**{**defaults, **fields}).Instantiate()


def of_processes(count, global_rows, *sources, **fields):
    return [
        build(
            *sources,
            **fields,
            batch_size=global_rows // count,
            num_infeed_hosts=count,
            infeed_host_index=index,
        )
        for index in range(count)
    ]


def global_batch(readers):
    """The rows of all processes, in their order."""
    parts = [reader.get_next() for reader in readers]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def to_end(readers):
    batches = []
    while True:
        try:
            batches.append(global_batch(readers))
        except StopIteration:
            return batches


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, expected in zip(batches, others, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(batch[name], expected[name])


def labels_of(batches):
    """All labels that count, sorted."""
    return sorted(np.concatenate([b["labels"][b["weights"] > 0] for b in batches]).tolist())


def expected_labels(texts=tuple(TEXTS)):
    return sorted(itertools.chain(*([*text.encode(), EOS] for text in texts)))


def test_packs_one_row_after_the_other(source):
    batch = build(source, batch_size=1).get_next()
    assert set(batch) == FIELDS
    np.testing.assert_array_equal(batch.ids, [[BOS, *b"a", BOS, *b"bc"]])
    np.testing.assert_array_equal(batch.labels, [[*b"a", EOS, *b"bcd"]])
    np.testing.assert_array_equal(batch.segment_ids, [[1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(batch.segment_pos, [[0, 1, 0, 1, 2]])
    assert batch.ids.dtype == batch.segment_pos.dtype == np.int32
    assert batch.weights.dtype == batch.paddings.dtype == np.float32


def test_a_sequence_goes_on_in_the_next_row(source):
    reader = build(source, batch_size=1)
    reader.get_next()
    batch = reader.get_next()
    np.testing.assert_array_equal(batch.ids, [[*b"d", BOS, *b"efg"]])
    np.testing.assert_array_equal(batch.labels, [[EOS, *b"efgh"]])
    np.testing.assert_array_equal(batch.segment_pos, [[0, 0, 1, 2, 3]])


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_each_token_counts_once_in_a_pass(source, num_epochs):
    batches = to_end([build(source, num_epochs=num_epochs, shuffle=True)])
    assert labels_of(batches) == sorted(expected_labels() * num_epochs)


def test_only_the_last_row_is_not_full(source):
    batches = to_end([build(source, num_epochs=1, batch_size=1)])
    assert len(batches) == -(-len(expected_labels()) // 5)
    assert all(batch["weights"].all() for batch in batches[:-1])
    assert batches[-1]["weights"].sum() == len(expected_labels()) % 5


@pytest.mark.parametrize("packing", text_input.Packing, ids=lambda packing: packing.value)
@pytest.mark.parametrize("count", [1, 3])
def test_more_rows_than_texts(source, packing, count):
    fields = {"packing": packing, "row_length": 14, "reset_for_eval": True}
    batches = to_end(of_processes(count, 9, source, **fields))
    assert len(batches) == 1 and labels_of(batches) == expected_labels()
    assert not batches[0]["segment_ids"][len(TEXTS) :].any()


def test_without_packing_each_text_has_its_row(source):
    reader = build(source, packing=text_input.Packing.NONE, row_length=14, reset_for_eval=True)
    batches = to_end([reader])
    rows = np.concatenate([batch["labels"] for batch in batches])
    assert rows.shape == (8, 14)
    for text, row in zip([*TEXTS, None], rows, strict=True):
        np.testing.assert_array_equal(row[row > 0], [] if text is None else [*text.encode(), EOS])
    np.testing.assert_array_equal(batches[1]["paddings"][1], [0] * 3 + [1] * 11)
    reader.reset()
    assert_same(to_end([reader]), batches)


def test_too_long_a_sequence(source):
    fields = {"packing": text_input.Packing.NONE, "row_length": 8, "batch_size": 5}
    message = r"texts.txt', line 5: the sequence has 14 positions, more than row_length = 8. Set tr"
    with pytest.raises(ValueError, match=message):
        build(source, **fields).get_next()
    batch = build(source, truncate=True, **fields).get_next()
    np.testing.assert_array_equal(batch.labels[4], list(b"nopqrstu"))


def test_each_pass_is_another_permutation_by_the_seed(source):
    def firsts(**fields):
        reader = build(
            source, batch_size=7, row_length=14, packing=text_input.Packing.NONE, **fields
        )
        return [reader.get_next().labels[:, 0].tolist() for _ in range(2)]

    first, second = firsts(shuffle=True, input_random_seed=3)
    assert sorted(first) == sorted(second) == sorted(ord(text[0]) for text in TEXTS)
    assert first != second
    assert firsts(shuffle=True, input_random_seed=3) == [first, second]
    assert firsts(shuffle=True, input_random_seed=4) != [first, second]
    assert firsts() == [[ord(text[0]) for text in TEXTS]] * 2


def test_mixes_by_weight(source, other):
    reader = build(
        source,
        other,
        weights=[3.0, 1.0],
        shuffle=True,
        batch_size=40,
        packing=text_input.Packing.NONE,
        row_length=14,
    )
    counts = collections.Counter()
    for _ in range(2):
        counts += collections.Counter(reader.get_next().labels[:, 0].tolist())
    of_other = sum(counts[ord(letter)] for letter in "ABD")
    assert of_other == 20
    assert min(counts.values()) >= 5  # Each source goes through all of its texts.


def test_without_weights_all_sources_are_one(source, other):
    batches = to_end([build(source, other, num_epochs=1, shuffle=True)])
    assert labels_of(batches) == expected_labels([*TEXTS, "A", "BC", "DEF"])


def test_weighted_data_ends_with_the_source_that_ends_first(source, other):
    fields = {"packing": text_input.Packing.NONE, "row_length": 14, "num_epochs": 1}
    batches = to_end([build(source, other, weights=[1.0, 1.0], **fields)])
    labels = labels_of(batches)
    assert set(b"ABCDEF") <= set(labels) and labels.count(EOS) == 6


PACKINGS = {packing.value: packing for packing in text_input.Packing}


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("weights", [None, [2.0, 1.0]], ids=["all", "mixed"])
def test_global_batches_do_not_depend_on_the_number_of_processes(source, other, packing, weights):
    def batches(count, num_epochs):
        readers = of_processes(
            count,
            6,
            source,
            other,
            packing=packing,
            weights=weights,
            row_length=14,
            shuffle=True,
            num_epochs=num_epochs,
        )
        if num_epochs is None:
            return [global_batch(readers) for _ in range(4)]
        return to_end(readers)

    alone = batches(1, None)
    for count in (2, 6):
        assert_same(batches(count, None), alone)
    assert_same(batches(3, 2), batches(1, 2))


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
def test_state_resumes_exactly_at_each_position(source, packing, tmp_path):
    fields = {"packing": packing, "row_length": 14, "shuffle": True, "num_epochs": 2}
    reader = build(source, **fields)
    batches = to_end([build(source, **fields)])
    for taken in range(len(batches) + 1):
        reader.save(tmp_path / "state")
        restored = build(source, **fields)
        restored.get_next()
        restored.restore(tmp_path / "state")
        assert_same(to_end([restored]), batches[taken:])
        if taken < len(batches):
            reader.get_next()


def test_short_rows_resume_inside_of_long_texts(source):
    """Grain's packing keeps the rest of a text, and a mark for none, as tuples."""
    fields = {"row_length": 3, "shuffle": True, "batch_size": 1}
    reader = build(source, **fields)
    states, batches = [], []
    for _ in range(16):
        states.append(reader.get_state())
        batches.append(reader.get_next())
    for taken, state in enumerate(states):
        restored = build(source, **fields)
        restored.set_state(state)
        assert_same([restored.get_next() for _ in range(taken, 16)], batches[taken:])


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 6), (6, 2)])
def test_goes_on_with_another_number_of_processes(source, before, after):
    fields = {"row_length": 4, "shuffle": True}
    alone = of_processes(1, 6, source, **fields)
    saving = of_processes(before, 6, source, **fields)
    for _ in range(5):
        global_batch(saving)
        global_batch(alone)
    states = [reader.get_state() for reader in saving]
    restored = of_processes(after, 6, source, **fields)
    for reader in restored:
        reader.set_state(reader.join_states(states))
    assert_same([global_batch(restored) for _ in range(4)], [global_batch(alone) for _ in range(4)])


def test_peeked_batch_is_not_lost(source):
    reader = build(source)
    reader.get_next()
    peeked = reader.peek_padded()
    restored = build(source)
    restored.set_state(reader.get_state())
    assert_same([restored.get_next()], [peeked])
    assert_same([reader.get_next_padded()], [peeked])


def test_pickled_input_goes_on(source):
    reader = build(source, shuffle=True)
    reader.get_next()
    restored = pickle.loads(pickle.dumps(reader))
    assert_same([restored.get_next()], [reader.get_next()])


def test_states_that_do_not_fit(source, other):
    first, second = of_processes(2, 6, source)
    state = first.get_state()
    with pytest.raises(ValueError, match=r"holds the rows \[0, 1, 2\].*reads \[3, 4, 5\].*join_st"):
        second.set_state(state)
    first.get_next()
    message = "TextInput 'input': the states are not of one moment .*after 1 batches.*after 0"
    with pytest.raises(ValueError, match=message):
        first.join_states([first.get_state(), second.get_state()])
    for reader, changed in [
        (build(other, batch_size=6), r"saved with {'num_examples': \[7\]}.*now.*\[3\]}"),
        (build(source, batch_size=8), r"saved with {'global_batch_size': 6}.*{.*: 8}"),
        (build(source, batch_size=6, shuffle=True), r"{'shuffle': False}.*{'shuffle': True}"),
    ]:
        with pytest.raises(ValueError, match=changed):
            reader.set_state(state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "sources is empty, expected configs of text sources"),
        ({"row_length": 0}, "row_length is 0, expected at least 1"),
        ({"num_epochs": 0}, "num_epochs is 0, expected at least 1, or None"),
        ({"weights": [1.0, 2.0]}, "weights has 2 entries, expected one for each of the 1 sources"),
        ({"weights": [0.0]}, r"weights is \[0.0\], expected positive numbers"),
        ({"infeed_host_index": 1}, "infeed_host_index is 1, expected one of num_infeed_hosts = 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_fields(source, fields, message):
    with pytest.raises(ValueError, match=f"TextInput 'input': {message}"):
        build(source, **fields)


def test_too_few_examples_for_the_processes(other):
    with pytest.raises(ValueError, match="3 examples are too few for 4 processes: each needs one"):
        of_processes(4, 4, other)[0].get_next()


def test_source_without_a_text(source, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    empty = text_input.JsonLines.config(paths=tmp_path / "*.jsonl")
    with pytest.raises(ValueError, match=r"JsonLines: there is no text in .*empty\.jsonl"):
        build(source, empty).get_next()


def test_nothing_to_predict_ends_in_an_error(tmp_path):
    class Plain(text_input.ByteTokenizer):
        @property
        def bos_id(self):
            return None

        @property
        def eos_id(self):
            return None

    (tmp_path / "a.txt").write_text("a\nb\nc")
    letters = text_input.TextFiles.config(paths=tmp_path / "a.txt")
    with pytest.raises(ValueError, match="4 texts, one after the other, have fewer than 2 tokens"):
        build(letters, tokenizer=Plain.config()).get_next()


def test_texts_of_ids(source):
    reader = build(source, batch_size=1)
    batch = reader.get_next()
    assert reader.ids_to_strings(batch.labels, np.array([4])) == ["abc"]
    assert reader.vocab_size == 258


def test_a_single_source_needs_no_list(source):
    assert_same([build(sources=source).get_next()], [build(source).get_next()])


def test_config_survives_printing_and_copies(source):
    config = text_input.TextInput.config(batch_size=1, row_length=5, sources=[source])
    copied = config.clone()
    assert copied == config and "TextFiles" in str(copied)
    assert_same([copied.Instantiate().get_next()], [config.Instantiate().get_next()])
