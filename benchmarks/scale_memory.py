"""Memory of a device as devices grow, of one language model split in several ways.

usage: python -m benchmarks.scale_memory [--layers=N] [--width=N] [--length=N] [--batch=N]

The training step is compiled for 1 to 8 made-up devices; nothing is allocated, and no accelerator
is used. "State" is what a device holds of weights and optimizer; "scratch" is what the program
needs besides, as XLA for CPUs lays it out. The batch is that of all devices together and stays
the same. Prints a Markdown table.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

DEVICES = (1, 2, 4, 8)


class Line(NamedTuple):
    """Bytes of a device, for one way to split on some devices."""

    split: str
    devices: int
    state: int
    scratch: int
    sent: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description="Memory of a device as devices grow.")
    for name, size in (("layers", 4), ("width", 256), ("length", 512), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=size)
    options = parser.parse_args(arguments)
    # Before JAX starts.
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={DEVICES[-1]}"
    print("| split | devices | state | scratch | sent by a device |")
    print("| --- | --: | --: | --: | --: |")
    for line in measure(**vars(options)):
        sizes = (f"{size / 2**20:.1f} MiB" for size in line[2:])
        print(f"| {line.split} | {line.devices} | {' | '.join(sizes)} |", flush=True)


def measure(**sizes: int) -> Iterator[Line]:
    """Compiles for each split and number of devices.

    Args:
      **sizes: layers, width, length and batch.
    """
    # JAX reads the number of devices when it is imported.
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    for split, mesh_of in SPLITS.items():
        for count in DEVICES:
            if count == 1 and split != "data":
                continue  # One device is the same for all.
            yield _compile(split, count, mesh_of(count), **sizes)


# [replica, data, seq, mdl]
SPLITS: dict[str, Any] = {
    "data": lambda count: (count, 1, 1, 1),
    "data, weights too (FSDP)": lambda count: (1, count, 1, 1),
    "model (tensors)": lambda count: (1, 1, 1, count),
    "time (context)": lambda count: (1, 1, count, 1),
}


def _compile(
    split: str,
    count: int,
    mesh: tuple[int, ...],
    *,
    layers: int,
    width: int,
    length: int,
    batch: int,
) -> Line:
    import jax
    import numpy as np

    from paxml import partitioning
    from paxml.partitioning.create import get_step_fn
    from paxml.tasks.lm.adam import TransformerLmSpmdAdam
    from paxml.tasks.lm.synthetic import SyntheticDataset, token_batch
    from paxml.trainer.types import RunningMode
    from praxis import pax_fiddle
    from praxis.inspection.collectives import collectives, total_sent_bytes

    class Lm(SyntheticDataset, TransformerLmSpmdAdam):
        NUM_LAYERS = layers
        MODEL_DIMS = width
        NUM_HEADS = 8
        DIMS_PER_HEAD = None
        VOCAB_SIZE = 8192
        MAX_SEQ_LEN = length
        USE_REPEATED_LAYER = True
        ICI_MESH_SHAPE = mesh
        DCN_MESH_SHAPE = None
        MESH_AXIS_NAMES = ("replica", "data", "seq", "mdl")

        def shard(self, lm: Any, mesh: dict[str, Any]) -> None:
            lm.cls.set_sharding_params_v1(
                lm,
                replica_axis="replica",
                data_axis="data",
                seq_axis="seq",
                mdl_axis="mdl",
                training_optimized=True,
                **mesh,
            )

    task = pax_fiddle.instantiate(Lm().task())
    devices = np.array(jax.devices()[:count]).reshape(mesh)
    partitioner = partitioning.JitPartitioner(task=task, device_mesh=devices)
    specs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), token_batch(batch, length)
    )
    partitioner.setup(task, jax.random.PRNGKey(0), specs)
    program = partitioner.lower(get_step_fn(RunningMode.TRAIN), specs, False).compile()
    memory, text = program.memory_analysis(), program.as_text()
    assert memory is not None and text is not None
    sent = total_sent_bytes(collectives(text), count)
    return Line(
        split,
        count,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        sum(sent.values()),
    )


if __name__ == "__main__":
    main()
