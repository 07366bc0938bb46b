"""The experiment of docs/data.md is in order as it stands: configs, files, shapes."""

import json
import pathlib
import re
from typing import Any

from paxml.tools.validate_config import validate_experiment

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "data.md"


def test_experiment_of_the_page(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    namespace: dict[str, Any] = {"__name__": "my_text"}
    exec(compile(block, "data.md", "exec"), namespace)
    experiment = namespace["MyText"]()

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    books = [json.dumps({"text": "a book of many words " * (1 + i % 5)}) for i in range(40)]
    (folder / "books-1.jsonl").write_text("\n".join(books))
    (folder / "notes.txt").write_text("\n".join(f"note number {i}" for i in range(30)))
    (folder / "held_out.txt").write_text("a book\nof words\nand a note\n")

    assert validate_experiment(experiment) == []
    train, held_out = (config.Instantiate() for config in experiment.datasets())
    batch = train.get_next()
    assert batch.ids.shape == (8, 256) and batch.weights.all()
    assert len({tuple(row) for row in batch.labels}) == 8
    whole = held_out.get_next()
    assert whole.weights.sum() == len("a book") + len("of words") + len("and a note") + 3

    # The ids are of the model's vocabulary.
    lm = experiment.task().model.lm_tpl
    assert batch.ids.max() == 256 < lm.vocab_size
    assert train.vocab_size == lm.vocab_size
