"""What devices send each other in a compiled program, read from its text (HLO)."""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_KIND = re.compile(rf" ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_CALLED = re.compile(r"\b(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SOURCE = re.compile(r'\bop_name="([^"]*)"')
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_TILED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}")
_AXIS_SIZE = re.compile(r"'([\w.]+)'=(\d+)")
_AXIS_USED = re.compile(r"'([\w.]+)'(?::\(\d+\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation in which devices exchange data.

    Attributes:
      kind: One of `KINDS`.
      shapes: Shape of each array that comes out on one device.
      num_bytes: Bytes of these arrays.
      group_size: Devices that exchange with each other; 0: all devices.
      times: How often it runs in one call of the program.
      source: Where it is from, the path of layers and the operation; empty if not known.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    num_bytes: float
    group_size: int
    times: int
    source: str

    def sent_bytes(self, num_devices: int) -> float:
        """Bytes that each device sends in all runs, with ring algorithms.

        Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005.

        Args:
          num_devices: Devices of the program, for operations among all of them.
        """
        size = self.group_size or num_devices
        if self.kind == "collective-permute":
            return self.num_bytes * self.times
        share = (size - 1) / size
        if self.kind == "reduce-scatter":  # A device ends up with a part of what it puts in.
            return self.num_bytes * size * share * self.times
        return self.num_bytes * share * self.times * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str) -> list[Collective]:
    """Finds the collectives of a compiled program.

    A body of a loop counts as often as it runs where the compiler knows that, else once; of the
    branches of a conditional each counts.

    Args:
      text: `jax.jit(f).lower(...).compile().as_text()`.
    """
    lines = _by_computation(text)
    times = _runs(lines)
    found = []
    for name, own in lines.items():
        for line in own:
            if (match := _KIND.search(line)) and times[name]:
                found.append(_collective(line, match, times[name]))
    return found


def _by_computation(text: str) -> dict[str, list[str]]:
    """Lines of each computation, the entry under the empty name."""
    lines: dict[str, list[str]] = {}
    own: list[str] = []
    for line in text.splitlines():
        if not line.startswith(" ") and (header := _HEADER.match(line)):
            own = lines.setdefault("" if header[1] else header[2], [])
        else:
            own.append(line)
    return lines


def _runs(lines: dict[str, list[str]]) -> Counter[str]:
    """How often each computation runs."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, own in lines.items():
        calls[name] = [call for line in own for call in _calls(line)]
    times: Counter[str] = Counter()

    def visit(name: str, count: int) -> None:
        times[name] += count
        for called, trips in calls[name]:
            visit(called, count * trips)

    visit("", 1)
    return times


def _calls(line: str) -> Iterator[tuple[str, int]]:
    if body := _BODY.search(line):
        trips = _TRIPS.search(line)
        yield body[1], int(trips[1]) if trips else 1
    if branches := _BRANCHES.search(line):
        for name in branches[1].split(","):
            yield name.strip().lstrip("%"), 1
    for name in _CALLED.findall(line):
        yield name, 1


def _collective(line: str, match: re.Match[str], times: int) -> Collective:
    results = line[: match.start()].partition(" = ")[2]
    arrays = _ARRAY.findall(results)
    if match[2] and match[1] != "all-reduce":
        arrays = arrays[len(arrays) // 2 :]  # Inputs come before outputs.
        if match[1] == "collective-permute":
            arrays = arrays[:1]
    shapes = tuple(tuple(int(dim) for dim in dims.split(",") if dim) for _, dims in arrays)
    sizes = (math.prod(shape) for shape in shapes)
    num_bytes = sum(size * _bits(dtype) / 8 for size, (dtype, _) in zip(sizes, arrays, strict=True))
    source = _SOURCE.search(line)
    return Collective(
        match[1], shapes, num_bytes, _group_size(line), times, source[1] if source else ""
    )


def _bits(dtype: str) -> int:
    """Bits of an element; the first number in its name counts, as in f8e4m3fn."""
    digits = re.search(r"\d+", dtype)
    return _BITS.get(dtype, int(digits[0]) if digits else 0)


def _group_size(line: str) -> int:
    if listed := _LISTED.search(line):
        return listed[1].count(",") + 1 if listed[1] else 0
    if tiled := _TILED.search(line):
        return int(tiled[1])
    if axes := _AXES.search(line):
        sizes = {name: int(size) for name, size in _AXIS_SIZE.findall(axes[1])}
        used = _AXIS_USED.findall(axes[2])
        return math.prod(int(part) if part else sizes[name] for name, part in used)
    return 0


def total_sent_bytes(found: Iterable[Collective], num_devices: int) -> dict[str, float]:
    """Bytes that each device sends, by kind, see `Collective.sent_bytes`."""
    sent: dict[str, float] = defaultdict(float)
    for one in found:
        sent[one.kind] += one.sent_bytes(num_devices)
    return dict(sent)
