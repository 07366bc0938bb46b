"""Every numbered behaviour of the foundation and of the trainer has a test that names the number.

The numbers are those of three lists of required behaviours: `core` (configs, layers, variables,
contexts) has 100, `utilities` (nested maps, trees, masks, devices, inputs) has 50, `trainer` 120.
A test says `Behaviour 7.` or `Behaviours 7, 8: ...` in its docstring. The list meant is the one
that the docstring of its file names (`of the core`, `of the utilities`; without that `trainer`
under `tests/paxml`, `core` under `tests/core` and `tests/config`), unless the same words follow the
numbers. The docstring of a whole file of the trainer may name them too.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COUNTS = {"core": 100, "utilities": 50, "trainer": 120}

# Number to the reason why no test names it.
NOT_COVERED: dict[str, dict[int, str]] = {
    "core": {},
    "utilities": {},
    "trainer": {120: "a search over settings is not offered"},
}

CLAIM = re.compile(
    r"\bbehaviours? (?P<numbers>\d+(?:(?:, | and |-| to )\d+)*)"
    r"(?: of the (?P<family>core|utilities|trainer))?",
    re.IGNORECASE,
)
RANGE = re.compile(r"(\d+)(?:(?:-| to )(\d+))?")


def claimed(text: str, family: str | None) -> Iterator[tuple[str, int]]:
    """The (list, number) pairs that a docstring names."""
    for claim in CLAIM.finditer(text):
        owner = claim["family"] or family
        if owner is None:
            continue
        for first, last in RANGE.findall(claim["numbers"]):
            for number in range(int(first), int(last or first) + 1):
                yield owner, number


def family_of(path: Path, docstring: str) -> str | None:
    """The list that the numbers in a file belong to; None where other lists are meant."""
    if "of the utilities" in docstring:
        return "utilities"
    if path.relative_to(TESTS).parts[0] == "paxml":
        return "trainer"
    in_core = path.relative_to(TESTS).parts[0] in ("config", "core")
    return "core" if in_core or "of the core" in docstring else None


def collect() -> dict[str, dict[int, list[str]]]:
    """Names of tests by list and number."""
    found: dict[str, dict[int, list[str]]] = {family: {} for family in COUNTS}
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_text())
        whole = ast.get_docstring(module) or ""
        family = family_of(path, whole)
        if family == "trainer":
            for owner, number in claimed(whole, family):
                found[owner].setdefault(number, []).append(path.name)
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for owner, number in claimed(ast.get_docstring(node) or "", family):
                    found[owner].setdefault(number, []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("family", COUNTS)
def test_each_number_has_a_test_or_a_reason(family):
    found = collect()[family]
    numbers = set(range(1, COUNTS[family] + 1))
    assert set(found) <= numbers, "a test names a number beyond the list"
    assert numbers - set(found) == set(NOT_COVERED[family])


@pytest.mark.parametrize(
    ("text", "family", "want"),
    [
        ("Behaviours 3, 5-7 and 9: words 12.", "core", [3, 5, 6, 7, 9]),
        ("Core behaviours 2 to 4", "core", [2, 3, 4]),
        ("Behaviour 5 of the utilities.", None, [5]),
        ("Behaviour 5.", None, []),
        ("Behaves well 5.", "core", []),
    ],
)
def test_numbers_in_docstrings(text, family, want):
    assert [number for _, number in claimed(text, family)] == want
