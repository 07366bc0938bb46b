"""Saving and restoring a train state against Orbax by itself, and how long training pauses.

Orbax's checkpointer for trees writes and reads the same arrays with its defaults. What is restored
has to be equal. The pause is how long `save` in the background keeps the caller, of the time until
the checkpoint is complete.
"""

import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax import checkpoint as ocp

from benchmarks import frame
from benchmarks.frame import OURS, Row, Settings
from paxml.checkpoint.manager import Checkpointer
from paxml.train_states import TrainState

LIMIT = frame.at_most(1.1)
PAUSE = frame.at_most(0.05)


def measure(settings: Settings) -> Iterator[Row]:
    mebibytes, turns = settings.choose(64, 1024), settings.choose(3, 5)
    state = train_state(mebibytes)
    saves: dict[str, list[float]] = {OURS: [], "Orbax": []}
    restores: dict[str, list[float]] = {OURS: [], "Orbax": []}
    pauses: list[float] = []
    note = f"{mebibytes} MiB"
    with tempfile.TemporaryDirectory(prefix="pax_bench_") as root:
        for turn in range(turns + 1):
            for name in (OURS, "Orbax") if turn % 2 else ("Orbax", OURS):
                folder = pathlib.Path(root) / f"{name}_{turn}"
                save, restore = (ours if name == OURS else orbax)(folder, state)
                if turn > 0:  # the first turn imports and warms up
                    saves[name].append(save)
                    restores[name].append(restore)
                shutil.rmtree(folder)
            if turn > 0:
                folder = pathlib.Path(root) / f"background_{turn}"
                pauses.append(pause(folder, state))
                shutil.rmtree(folder)
    yield frame.row_of_times("save", saves, limit=LIMIT, note=note)
    yield frame.row_of_times("restore", restores, limit=LIMIT, note=note)
    yield Row(
        "pause of training, of the time of a save",
        {OURS: 100 * statistics.median(pauses)},
        "%",
        judged=statistics.median(pauses),
        spread=frame.quartiles(pauses),
        limit=PAUSE,
        turns=turns,
        note=note,
    )


def train_state(mebibytes: int) -> TrainState:
    """A state of so many MiB, in arrays of 16 MiB: a third weights, the rest moments."""
    number = max(3, mebibytes // 16)
    side = int((mebibytes * 2**20 / number / 4) ** 0.5)
    keys = jax.random.split(jax.random.PRNGKey(0), number)
    arrays = [jax.random.normal(key, (side, side)) for key in keys]
    third = number // 3
    parts = arrays[:third], arrays[third : 2 * third], arrays[2 * third :]
    weights, mean, variance = (
        {f"layer_{index}": {"w": array} for index, array in enumerate(part)} for part in parts
    )
    return TrainState(
        step=jnp.zeros([], jnp.uint32),
        mdl_vars={"params": weights},
        opt_states=[{"m": mean, "v": variance}],
        extra_state=(),
    )


def shapes_of(state: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def ours(folder: pathlib.Path, state: TrainState) -> tuple[float, float]:
    """Seconds to save and to restore."""
    checkpointer = Checkpointer(folder, save_interval_steps=1, max_to_keep=None, async_save=False)
    start = time.perf_counter()
    checkpointer.save(1, state, force=True)
    checkpointer.wait()
    saved = time.perf_counter()
    restored = jax.block_until_ready(checkpointer.restore(1, shapes_of(state)))
    end = time.perf_counter()
    checkpointer.close()
    check(state, restored)
    return saved - start, end - saved


def orbax(folder: pathlib.Path, state: TrainState) -> tuple[float, float]:
    """Seconds to save and to restore, without anything of Pax."""
    tree = {"step": state.step, "mdl_vars": state.mdl_vars, "opt_states": state.opt_states}
    with ocp.StandardCheckpointer() as checkpointer:
        start = time.perf_counter()
        checkpointer.save(folder / "state", tree)
        checkpointer.wait_until_finished()
        saved = time.perf_counter()
        restored = jax.block_until_ready(checkpointer.restore(folder / "state", shapes_of(tree)))
        end = time.perf_counter()
    check(tree, restored)
    return saved - start, end - saved


def pause(folder: pathlib.Path, state: TrainState) -> float:
    """The share of a save in the background during which the caller waits."""
    checkpointer = Checkpointer(folder, save_interval_steps=1, max_to_keep=None)
    start = time.perf_counter()
    checkpointer.save(1, state, force=True)
    returned = time.perf_counter()
    checkpointer.wait()
    end = time.perf_counter()
    checkpointer.close()
    return (returned - start) / (end - start)


def check(saved: Any, restored: Any) -> None:
    for before, after in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        if not np.array_equal(np.asarray(before), np.asarray(after)):
            raise frame.DifferentNumbersError("A restored array is not the one that was saved.")
