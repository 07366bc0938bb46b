"""The progress line, drawn into strings with a clock of its own."""

import io

import jax.numpy as jnp
import pytest
import rich.console

from paxml.summary.progress import ProgressLine, count_text, duration_text


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def line_to(terminal, total=100, **options):
    output = io.StringIO()
    console = rich.console.Console(
        file=output, force_terminal=terminal, width=120, color_system=None, legacy_windows=False
    )
    clock = Clock()
    return ProgressLine(total, console=console, clock=clock, **options), output, clock


def test_plain_lines_every_few_seconds():
    line, output, clock = line_to(False, metrics=["accuracy"])
    for step in range(1, 12):
        line.update(
            step,
            loss=jnp.float32(2 / step),
            metrics={"accuracy": (jnp.float32(0.25), jnp.float32(3)), "other": 1.0},
            tokens_per_sec=12345.0,
        )
        clock.now += 1
    line.close()
    assert output.getvalue().splitlines() == [
        "step 1/100  loss 2  accuracy 0.25  12.3k tokens/s",
        "step 6/100  loss 0.3333  accuracy 0.25  1 steps/s  12.3k tokens/s  1:34 left",
        "step 11/100  loss 0.1818  accuracy 0.25  1 steps/s  12.3k tokens/s  1:29 left",
        "step 11/100  loss 0.1818  accuracy 0.25  0.909 steps/s  12.3k tokens/s  1:38 left",
    ]


def test_terminal_shows_one_line_in_place():
    line, output, clock = line_to(True)
    with line:
        for step in (1, 50, 100):
            line.update(step, loss=1.0, steps_per_sec=5.0)
            clock.now += 1
        assert line.line(clock.now).startswith("━" * 20 + "  step 100/100")
    text = output.getvalue()
    assert "━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌  step 50/100  loss 1  5 steps/s  0:10 left" in text
    # Each drawing but the first goes back over the one before.
    assert text.count("\n") == 1


def test_arrays_of_steps_that_are_not_drawn_are_not_read():
    class Unread:
        def __array__(self, *args, **kwargs):
            raise AssertionError("a step waited for the device")

    line, output, clock = line_to(False)
    line.update(1, loss=1.0)
    line.update(2, loss=Unread())
    clock.now += 6
    line.update(3, loss=3.0)
    line.close()
    assert "step 2" not in output.getvalue()


def test_unknown_end():
    line, output, _ = line_to(False, total=0)
    line.update(7, loss=0.5, steps_per_sec=2.0)
    assert output.getvalue() == "step 7  loss 0.5  2 steps/s\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (2.5e6, "2.5M"), (7e12, "7e+03G")]
)
def test_counts(number, text):
    assert count_text(number) == text
