"""Time and memory of imports, in fresh processes, against Flax, Optax and Fiddle.

Time is that of the import statement, memory the peak of the process. A finder in the first place
notes whoever asks for TensorFlow or PyTorch, installed or not.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks import frame
from benchmarks.frame import OURS, Row, Settings

OTHER = "import flax.linen, optax, fiddle"
OTHER_NAME = "flax, optax, fiddle"
CASES = {
    "import praxis.layers": 1.3,
    "from praxis.layers import transformer_models": 1.3,
    "import paxml.main": 2.5,
}
UNWANTED = ("tensorflow", "torch")

CHILD = """
import json, resource, sys, time
class Finder:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            self.asked.append(name)
        return None
sys.meta_path.insert(0, Finder())
start = time.perf_counter()
%s
seconds = time.perf_counter() - start
kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, kibibytes * 1024, Finder.asked]))
"""


def measure(settings: Settings) -> Iterator[Row]:
    statements = [*CASES, OTHER]
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    memory: dict[str, list[float]] = {statement: [] for statement in statements}
    asked: dict[str, set[str]] = {statement: set() for statement in statements}
    for turn in range(-1, settings.choose(3, 11)):
        for statement in statements if turn % 2 else reversed(statements):
            time, size, modules = run(statement)
            asked[statement].update(modules)
            if turn >= 0:  # the first turn reads the files from disk
                seconds[statement].append(time)
                memory[statement].append(size)
    for statement, bound in CASES.items():
        for what, measured, unit, scale in (
            ("time", seconds, "ms", 1e3),
            ("memory", memory, "MiB", 2.0**-20),
        ):
            yield frame.row_of_times(
                f"{statement}: {what}",
                {OURS: measured[statement], OTHER_NAME: measured[OTHER]},
                limit=frame.at_most(bound),
                unit=unit,
                scale=scale,
            )
    names = sorted(set().union(*(asked[statement] for statement in CASES)))
    yield Row(
        "imports of TensorFlow or PyTorch",
        {OURS: len(names), OTHER_NAME: len(asked[OTHER])},
        "",
        judged=len(names),
        judged_unit="imports",
        limit=frame.at_most(0),
        note=", ".join(names),
    )


def run(statement: str) -> tuple[float, float, list[str]]:
    """Seconds, bytes and unwanted modules of a statement in a process of its own."""
    child = CHILD % (UNWANTED, statement)
    result = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True)
    seconds, size, modules = json.loads(result.stdout.splitlines()[-1])
    return seconds, size, modules
