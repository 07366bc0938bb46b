"""Text files about a run."""

import jax

from paxml.trainer import files
from praxis import base_layer

VARIABLES = {
    "params": {
        "w": base_layer.WeightHParams(
            [4, 3], mesh_shape=[1, 2], tensor_split_dims_mapping=[None, "mdl"], repeat_prefix=[5]
        )
    }
}


def test_the_parameter_table_says_how_each_variable_is_split(tmp_path, caplog):
    with caplog.at_level("INFO", logger="absl"):
        files.write_parameter_table_file(VARIABLES, tmp_path)
    text = (tmp_path / "parameters.txt").read_text()
    assert text.endswith("\n")
    assert "params/w     5x4x3  float32     60  240 B" in text
    assert "-, -, mdl" in text
    assert f"60 parameters, table in {tmp_path / 'parameters.txt'}" in caplog.text


def test_only_the_first_process_writes(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with caplog.at_level("INFO", logger="absl"):
        files.write_parameter_table_file(VARIABLES, tmp_path)
        files.write_text(tmp_path / "new", "x.txt", "x")
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""
