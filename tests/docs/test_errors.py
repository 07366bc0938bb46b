"""The page of error messages is what the errors say today."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_page_of_errors_is_up_to_date():
    """In a process of its own: checks of annotations, on in tests, would speak up first."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [sys.executable, "-m", "docs.generate_errors", "--print"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    written = (ROOT / "docs" / "errors.md").read_text()
    assert made.stdout == written, "Run `make docs-errors` and look at the difference."


@pytest.mark.parametrize(
    "text",
    [
        "variable 'w' is declared by a list, expected WeightHParams",
        "Linear 'lin': output_dims is '5' of type str, expected an int.",
    ],
)
def test_messages_that_only_the_page_can_check(text):
    """In tests the checks of annotations refuse these mistakes first."""
    assert text in " ".join((ROOT / "docs" / "errors.md").read_text().split())
