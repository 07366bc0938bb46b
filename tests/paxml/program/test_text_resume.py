"""A run on text goes on bit for bit, also from the positions of another number of processes."""

import shutil

import numpy as np
import pytest
import toy_experiment
from etils import epath

from paxml import train
from paxml.checkpoint.checksums import write_checksums
from paxml.checkpoint.handlers import InputStateHandler
from paxml.summary.events import read_scalars
from praxis import py_utils, text_input

ROWS = 8


class Numbers(text_input.TextInput):
    """Rows of text as features of the toy model."""

    def get_next(self):
        batch = super().get_next()
        x = batch.ids[:, : toy_experiment.FEATURES].astype(np.float32) / 256
        return py_utils.NestedMap(x=x, y=batch.labels[:, -1].astype(np.float32) / 256)


def input_config(path, **fields):
    return Numbers.config(
        **{"name": "train", "is_training": True, "batch_size": ROWS, **fields},
        row_length=5,
        sources=[text_input.TextFiles.config(paths=path)],
        shuffle=True,
    )


@pytest.fixture
def losses(tmp_path):
    """Trains for some steps, and returns the losses of all."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join("word " * (1 + i % 7) + str(i) for i in range(30)))

    class OnText(toy_experiment.Toy):
        SAVE = 2
        EVAL = 6
        SUMMARY = 1

        def datasets(self):
            return [input_config(path)]

    def run(name, steps):
        cls = type("OnText", (OnText,), {"STEPS": steps})
        train.train_and_evaluate(cls(), tmp_path / name, False, False)
        return read_scalars(tmp_path / name / "summaries" / "train", "loss")

    return run


def test_goes_on_bit_for_bit(losses, tmp_path):
    whole = losses("whole", 6)
    assert sorted(whole) == [1, 2, 3, 4, 5, 6] and len(set(whole.values())) == 6
    rest = {step: whole[step] for step in (5, 6)}
    for name in ("stopped", "of_two"):
        last = "checkpoints/checkpoint_00000006"
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        shutil.rmtree(tmp_path / name / last)
        shutil.rmtree(tmp_path / name / "summaries")
    assert losses("stopped", 6) == rest

    # What two processes would have written at step 4.
    folder = tmp_path / "of_two" / "checkpoints" / "checkpoint_00000004" / "train_input"
    for path in folder.iterdir():
        path.unlink()
    for index in range(2):
        half = input_config(
            tmp_path / "texts.txt",
            batch_size=ROWS // 2,
            num_infeed_hosts=2,
            infeed_host_index=index,
        ).Instantiate()
        for _ in range(4):
            half.get_next()
        half.save(folder / f"process_{index}-of-2")
    write_checksums(epath.Path(folder))
    assert losses("of_two", 6) == rest

    (folder / "process_1-of-2").unlink()
    with pytest.raises(FileNotFoundError, match=r"each process that.*missing: process_1-of-2"):
        InputStateHandler().read_all(epath.Path(folder))
