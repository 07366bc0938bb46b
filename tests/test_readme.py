"""The README's Python blocks run as they stand."""

import pathlib
import re

import tiny_gpt2

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_gpt2.save(tmp_path / "path/of/a/snapshot")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == "(2, 8)\n"
