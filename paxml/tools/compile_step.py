"""Compiles the training step of an experiment for many devices, of which none is needed.

usage: python -m paxml.tools.compile_step EXP --devices=N [--set PATH=VALUE ...] --output=FILE

The devices are made up from the memory of the host, as many as the mesh of the experiment has.
Nothing is allocated: the program is compiled from shapes. What it holds and sends is written to a
file, as JSON.
"""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import jax
import numpy as np

from paxml.experiment.base import BaseExperiment
from paxml.launch.commands.common import chosen_experiment, experiment_parser
from paxml.partitioning.create import get_step_fn
from paxml.partitioning.jit import JitPartitioner
from paxml.trainer.init import get_train_input_specs_for_model_init
from paxml.trainer.types import BaseStepFnStaticArgs, RunningMode
from praxis import pax_fiddle
from praxis.inspection.collectives import collectives
from praxis.inspection.table import Column, Table, size_text

_DEVICES = "--xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Collectives of one kind that come from one place of the model.

    Attributes:
      kind: Such as `all-gather`.
      source: Path of layers, from the model on; empty if it is not known.
      times: How many of them run in a step.
      group_size: Devices that exchange data with each other.
      sent_bytes: Bytes that each device sends in a step, see `Collective.sent_bytes`.
    """

    kind: str
    source: str
    times: int
    group_size: int
    sent_bytes: float


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """What the compiled program of a step holds and sends on each device.

    Attributes:
      num_devices: Devices it is compiled for.
      argument_bytes: State, batch and key.
      temporary_bytes: What it needs besides, as XLA for CPUs lays it out without most
        optimizations: more than an accelerator needs, as bfloat16 becomes float32.
      exchanges: What devices send each other.
      seconds: How long tracing and compiling took.
    """

    num_devices: int
    argument_bytes: int
    temporary_bytes: int
    exchanges: Sequence[Exchange]
    seconds: float

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends in a step."""
        return sum(exchange.sent_bytes for exchange in self.exchanges)

    def table(self, most: int = 20) -> Table:
        """Returns what is sent, the largest first."""
        columns = [
            Column("collective"),
            Column("from"),
            Column("devices", is_number=True),
            Column("times", is_number=True),
            Column("sent by a device", is_number=True),
        ]
        largest = sorted(self.exchanges, key=lambda each: -each.sent_bytes)
        rows = [_row(each) for each in largest[:most]]
        if rest := largest[most:]:
            sent, times = sum(x.sent_bytes for x in rest), sum(x.times for x in rest)
            rows.append((f"{len(rest)} more", "", "", f"{times:,}", size_text(sent)))
        times = f"{sum(each.times for each in self.exchanges):,}"
        return Table(columns, rows, ("total", "", "", times, size_text(self.sent_bytes)))


def _row(exchange: Exchange) -> tuple[str, ...]:
    return (
        exchange.kind,
        exchange.source,
        f"{exchange.group_size:,}",
        f"{exchange.times:,}",
        size_text(exchange.sent_bytes),
    )


def compile_apart(
    experiment: str, settings: Sequence[str], devices: int, *, timeout: float | None = None
) -> CompiledStep:
    """Compiles in a process of its own, in which JAX has as many devices as asked for.

    Args:
      experiment: Name of the experiment, as in `pax train --exp=`.
      settings: Changes, as in `--set`.
      devices: Number of devices.
      timeout: Seconds after which to give up; None: never.

    Raises:
      ValueError: if it does not compile, with the end of what the process wrote.
      TimeoutError: if it takes too long.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "step.json"
        command = [sys.executable, "-m", "paxml.tools.compile_step", experiment]
        command += [f"--devices={devices}", f"--output={path}"]
        command += [f"--set={setting}" for setting in settings]
        others = [
            flag
            for flag in os.environ.get("XLA_FLAGS", "").split()
            if not flag.startswith(f"{_DEVICES}=")
        ]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": " ".join([*others, f"{_DEVICES}={devices}"]),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        try:
            done = subprocess.run(
                command,
                env=environment,
                text=True,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(
                f"Compiling {experiment!r} for {devices} devices took more than {timeout} s. "
                "Describe it without --compile."
            ) from error
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise ValueError(
                f"{experiment!r} does not compile for {devices} devices; the end of the error:\n"
                f"{last}"
            )
        return from_json(path.read_text())


def from_json(text: str) -> CompiledStep:
    """Reads what `main` wrote."""
    fields = json.loads(text)
    exchanges = tuple(Exchange(**each) for each in fields.pop("exchanges"))
    return CompiledStep(exchanges=exchanges, **fields)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles in this process, and writes the file."""
    parser = experiment_parser(
        "paxml.tools.compile_step", "Compiles a training step for devices that are made up."
    )
    parser.add_argument("--devices", type=int, required=True, help="number of devices")
    parser.add_argument("--output", required=True, help="file to write")
    options = parser.parse_args(arguments)
    compiled = _compile(chosen_experiment(options), options.devices)
    pathlib.Path(options.output).write_text(json.dumps(dataclasses.asdict(compiled)))


def _compile(experiment: BaseExperiment, num_devices: int) -> CompiledStep:
    jax.config.update("jax_disable_most_optimizations", True)
    start = time.perf_counter()
    task = pax_fiddle.instantiate(experiment.task())
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    devices = np.array(jax.devices()[:num_devices])
    shape = task.model.mesh_shape
    partitioner = JitPartitioner(
        task=task, device_mesh=devices if shape is None else devices.reshape(shape)
    )
    partitioner.setup(task, jax.random.PRNGKey(0), specs)
    rows = jax.tree.leaves(specs)[0].shape[0]
    padded = math.ceil(rows / num_devices) * num_devices
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((padded, *x.shape[1:]), x.dtype) if x.shape else x, specs
    )
    lowered = partitioner.lower(
        get_step_fn(RunningMode.TRAIN), batch, False, BaseStepFnStaticArgs(rows)
    )
    program = lowered.compile()
    memory, text = program.memory_analysis(), program.as_text()
    assert memory is not None and text is not None
    merged: dict[tuple[str, str, int], tuple[int, float]] = {}
    for one in collectives(text):
        key = (one.kind, place_of(one.source), one.group_size or num_devices)
        times, sent = merged.get(key, (0, 0.0))
        merged[key] = (times + one.times, sent + one.sent_bytes(num_devices))
    return CompiledStep(
        num_devices=num_devices,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        exchanges=[
            Exchange(kind, source, times, group, sent)
            for (kind, source, group), (times, sent) in merged.items()
        ],
        seconds=time.perf_counter() - start,
    )


# Parts of the name of an operation that are no layers.
_NO_LAYERS = (
    *("jit(", "jvp(", "transpose(", "while", "body", "cond", "branch", "checkpoint"),
    *("closed_call", "rematted_computation", "shard_map"),
)


def place_of(source: str) -> str:
    """The layers in the name of an operation, without methods and what JAX adds.

    Example:
      >>> place_of("jit(step)/transpose(jvp(lm))/lm.compute/stack/while/body/layer/ffn/dot_general")
      'stack/layer/ffn'
    """
    kept: dict[str, None] = {}
    for part in source.split("/")[:-1]:  # The last one is the operation.
        if part.startswith("("):  # From here on several operations that were merged.
            break
        if not (part.startswith(_NO_LAYERS) or "." in part or "->" in part):
            kept[part] = None
    return "/".join(kept)


if __name__ == "__main__":
    main()
