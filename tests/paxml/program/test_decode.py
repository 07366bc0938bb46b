"""Decoding while training (behaviours 8-10, 12, 14, 103-106)."""

import json

import jax
import numpy as np
import pytest
import toy_decoding
import toy_experiment

from paxml import decode_programs, eval_lib, io_utils, programs, train, trainer_lib
from paxml.partitioning import JitPartitioner
from paxml.summary.events import read_scalars
from praxis import pax_fiddle


def rows_of(directory, step):
    path = directory / "decoder_out" / "held_out" / f"decoder_out_{step}_shard_0.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """Twelve steps, evaluated at 5, 10 and 12; decoded from step 8 on."""
    directory = tmp_path_factory.mktemp("decoded")
    told = {}

    def tell(metrics, mode, step, is_last, checkpoint_path):
        told[step] = (mode, metrics)
        return False

    train.train_and_evaluate(
        toy_decoding.variant(STEPS=12, DECODE_START=8, SUMMARY=1),
        directory,
        False,
        True,
        run_decode=True,
        early_stopping_fn=tell,
    )
    return directory, told


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same training, with nothing in between."""
    directory = tmp_path_factory.mktemp("undisturbed")
    train.train_and_evaluate(
        toy_decoding.variant(STEPS=12, SUMMARY=1, EVAL=0, DECODE=None),
        directory,
        False,
        True,
        run_decode=True,
    )
    return directory


def test_decoding_at_the_interval_from_its_first_step_on_and_at_the_end(decoded):
    """Behaviours 8, 9."""
    directory, told = decoded
    summaries = directory / "summaries"
    assert sorted(read_scalars(summaries / "eval_test_test", "loss")) == [5, 10, 12]
    for tag in (
        "decode_metrics/mean",
        "decode_metrics/mean-weight",
        "process_decode_metrics/rows",
        "process_decode_metrics/rows-weight",
        "Metrics/longest",
        "prediction_scalar",
    ):
        assert sorted(read_scalars(summaries / "decode_test_held_out", tag)) == [10, 12], tag
    decode = trainer_lib.RunningMode.DECODE
    assert [step for step, (mode, _) in told.items() if mode & decode] == [10, 12]


def test_metrics_are_those_of_all_records(decoded):
    directory, told = decoded
    rows = rows_of(directory, 12)
    assert len(rows) == 16
    mean = np.mean([row["prediction"] for row in rows])
    where = directory / "summaries" / "decode_test_held_out"
    np.testing.assert_allclose(read_scalars(where, "decode_metrics/mean")[12], mean, rtol=1e-5)
    np.testing.assert_allclose(read_scalars(where, "prediction_scalar")[12], mean, rtol=1e-5)
    assert read_scalars(where, "decode_metrics/mean-weight")[12] == 16
    assert read_scalars(where, "process_decode_metrics/rows-weight")[12] == 2
    metrics = told[12][1]
    np.testing.assert_allclose(metrics["decode_test_held_out/mean"], mean, rtol=1e-5)
    assert metrics["decode_test_held_out/rows"] == 8
    assert metrics["decode_test_held_out/longest"] == 8
    assert metrics["decode_steps_per_sec"] > 0
    assert metrics["eval_steps_per_sec"] > 0


def test_weights_are_those_of_the_step(decoded, tmp_path):
    """Behaviours 8, 9: a job that reads the checkpoint of step 12 predicts the same."""
    directory, _ = decoded
    eval_lib.decode(
        toy_decoding.variant(STEPS=12), tmp_path, False, directory / "checkpoints", [8, 12], False
    )
    before, after = (
        [row["prediction"] for row in rows_of(where, 12)] for where in (directory, tmp_path)
    )
    np.testing.assert_allclose(before, after, rtol=1e-5)
    assert before != [row["prediction"] for row in rows_of(tmp_path, 8)]


def test_training_is_the_same_with_evaluation_and_decoding_in_between(decoded, undisturbed):
    """Behaviours 12, 14: also the batch that eval_train looks at is trained on."""
    with_them, without = (
        read_scalars(directory / "summaries" / "train", "loss")
        for directory in (decoded[0], undisturbed)
    )
    assert sorted(with_them) == list(range(1, 13))
    assert with_them == without


def test_interval_0_evaluates_and_decodes_nothing(undisturbed):
    """Behaviour 10."""
    assert [path.name for path in (undisturbed / "summaries").iterdir()] == ["train"]
    assert not (undisturbed / "decoder_out").exists()


def test_all_batches_of_a_run_share_their_random_numbers(decoded):
    """Behaviour 105: by default."""
    draws = [row["draw"] for row in rows_of(decoded[0], 12)]
    assert draws[:8] == draws[8:]
    assert len(set(draws)) == 8
    assert draws != [row["draw"] for row in rows_of(decoded[0], 10)]


def test_each_batch_may_have_its_own_random_numbers(decoded, tmp_path):
    """Behaviour 105: with `prng_key_fold_with_batch_index`."""
    checkpoints = decoded[0] / "checkpoints"
    eval_lib.decode(toy_decoding.variant(FOLD=True), tmp_path, False, checkpoints, 12, False)
    assert len({row["draw"] for row in rows_of(tmp_path, 12)}) == 16


def test_outputs_that_are_no_json_are_named_and_leave_no_file(decoded, tmp_path):
    """Behaviour 103."""
    experiment = toy_decoding.variant(UNSERIALIZABLE=True)
    with pytest.raises(TypeError, match=r"key 'held_out-0' is a dict .* Object of type set"):
        eval_lib.decode(experiment, tmp_path, False, decoded[0] / "checkpoints", 12, False)
    assert not list((tmp_path).rglob("decoder_out_*"))


def test_outputs_can_be_loaded(decoded):
    """Behaviour 104: in a round trip; several steps need `step`."""
    where = decoded[0] / "decoder_out"
    with pytest.raises(ValueError, match=r"give step=\. There are outputs of steps \[10, 12\]"):
        io_utils.load_outputs(where, "held_out", "decoder_out")
    with pytest.raises(ValueError, match=r"no outputs of step 11\. There are .* \[10, 12\]"):
        io_utils.load_outputs(where, "held_out", "decoder_out", step=11)
    pairs = io_utils.load_outputs(where, "held_out", "decoder_out", step=12)
    assert [key for key, _ in pairs] == [f"held_out-{row}" for row in range(8)] * 2
    rows = rows_of(decoded[0], 12)
    np.testing.assert_allclose([value["y"] for _, value in pairs], [row["y"] for row in rows])


def test_a_program_is_set_up_first_and_an_empty_input_is_an_error_in_the_log(caplog, tmp_path):
    program = decode_programs.SingleTaskDecodeProgram(
        pax_fiddle.Config(
            toy_experiment.CountingInput, batch_size=8, num_batches=0, reset_for_eval=True
        )
    )
    with pytest.raises(ValueError, match=r"SingleTaskDecodeProgram is used before setup\(\)"):
        _ = program.decode_input
    task = pax_fiddle.instantiate(toy_decoding.Decoding().task())
    program.setup(task, JitPartitioner(task=task), tmp_path, jax.random.PRNGKey(0))
    state = trainer_lib.TrainState(step=np.uint32(3), mdl_vars={}, opt_states=[])
    output = program.run(state, 3)
    program.shutdown()
    assert "Decoding input input gave no batch at step 3" in caplog.text
    assert output.num_decode_steps == 0
    assert output.decode_metrics == {}


class Given(programs.SingleTaskEvalProgram):
    """Has the results of its two batches from the start."""

    results = ((1.0, 1.0), (3.0, 3.0))

    def eval_step(self, state, prng_key, inputs, static_args):
        self.seen = getattr(self, "seen", -1) + 1
        value, weight = self.results[self.seen]
        scalars = {"value": (np.float32(value), np.float32(weight))}
        return None, trainer_lib.StepFnOutput(np.float32(value), scalars, {}, {}, {})


def test_metrics_are_weighted_means_and_the_loss_is_a_plain_one(tmp_path):
    """Behaviour 106."""
    program = Given(toy_experiment.Toy().datasets()[1])
    task = pax_fiddle.instantiate(toy_experiment.Toy().task())
    program.setup(task, JitPartitioner(task=task), tmp_path, jax.random.PRNGKey(0))
    output = program.run(trainer_lib.TrainState(step=1, mdl_vars={}, opt_states=[]), 1)
    program.shutdown()
    where = tmp_path / "summaries" / "eval_test_test"
    assert read_scalars(where, "Metrics/value") == {1: 2.5}
    assert read_scalars(where, "Metrics/value-weight") == {1: 4.0}
    assert read_scalars(where, "loss") == {1: 2.0}
    assert output.eval_metrics == {"loss": 2.0, "value": 2.5}
