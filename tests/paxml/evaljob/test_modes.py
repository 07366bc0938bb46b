"""The modes of the command line beside training."""

import pytest
import toy_decoding
from absl import flags
from absl.testing import flagsaver

from paxml import main
from paxml.io_utils import OutputFormatType
from paxml.tasks_lib import SingleTask
from praxis import pax_fiddle


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


@pytest.mark.parametrize(
    ("mode", "written"),
    [
        ("eval", ["eval_out/test/eval_out_10_shard_0.pickle"]),
        ("decode", ["decoder_out/held_out/decoder_out_10_shard_0.pickle"]),
        ("infer", ["output/held_out/output.jsonl-00000-of-00001"]),
    ],
)
def test_a_mode_writes_its_config_and_its_outputs(mode, written, make):
    directory = make(10)
    writer = pax_fiddle.Config(
        SingleTask.InferWriter,
        inference_runner=pax_fiddle.Config(toy_decoding.Runner),
        output_format=OutputFormatType.JSONL,
        output_num_shards=1,
    )
    with flagsaver.flagsaver(mode=mode):
        main.run_experiment(toy_decoding.variant(INFER_WRITER=writer), None, directory)
    for name in (*written, f"{mode}_model_params.txt", f"{mode}_experiment_cls_vars.txt"):
        assert (directory / name).exists(), name
    assert not (directory / "model_params.txt").exists()


def test_decode_once_takes_its_flags(make, trained, tmp_path):
    make()
    with flagsaver.flagsaver(
        mode="decode_once",
        restore_checkpoint_dir=str(trained / "checkpoints"),
        restore_checkpoint_step=[4, 8],
        decode_output_pickle=False,
        eval_during_decode=True,
    ):
        main.run_experiment(toy_decoding.variant(), None, tmp_path)
    names = [path.name for path in (tmp_path / "decoder_out" / "held_out").iterdir()]
    assert sorted(names) == ["decoder_out_4_shard_0.jsonl", "decoder_out_8_shard_0.jsonl"]
    assert (tmp_path / "eval_out" / "test" / "eval_out_8_shard_0.jsonl").exists()
