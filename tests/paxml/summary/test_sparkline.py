"""Curves in a terminal, and pictures of several runs."""

import math

import pytest

from paxml.summary.plot import draw_curves, names_of_runs
from paxml.summary.sparkline import curves_table, sparkline


def test_means_of_steps_become_bars():
    assert sparkline({step: float(step) for step in range(8)}) == "▁▂▃▄▅▆▇█"
    assert sparkline({step: float(step) for step in range(80)}, width=8) == "▁▂▃▄▅▆▇█"
    assert sparkline({1: 2.0, 2: 2.0}) == "▁▁"
    assert sparkline({1: math.nan, 2: 0.0, 3: math.inf, 4: 1.0}) == "!▁!█"
    assert sparkline({1: math.nan}) == "!"


def test_table_of_two_runs():
    runs = {"a": {"train": {1: 4.0, 2: 0.5, 9: 1.0}}, "b": {"train": {1: 2.0}}}
    assert list(curves_table(runs, "loss").rows) == [
        ("a", "train", "9", "4", "0.5", "1", "█▁▂"),
        ("b", "train", "1", "2", "2", "2", "▁"),
    ]


def test_names_grow_until_they_differ():
    assert names_of_runs(["x/first", "x/second"]) == ["first", "second"]
    assert names_of_runs(["x/a/run", "y/a/run", "y/b/run"]) == ["x/a/run", "y/a/run", "y/b/run"]
    assert names_of_runs(["x/run", "x/run"]) == ["run", "run"]


def test_each_run_has_its_color(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    curve = {step: float(step) for step in range(20)}
    down = {step: 20.0 - step for step in range(20)}
    picture = draw_curves({"a": {"train": curve}, "b": {"train": down}}, tmp_path / "x.png", "loss")
    pixels = image.imread(picture)[..., :3]
    blue = (pixels[..., 2] > pixels[..., 0] + 0.3).sum()
    orange = (pixels[..., 0] > pixels[..., 2] + 0.3).sum()
    assert blue > 100
    assert orange > 100
