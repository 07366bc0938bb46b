"""Tiny language models on meshes of all kinds, and the training step of each, compiled once."""

import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paxml import partitioning, trainer_lib
from paxml.tasks.lm.adam import TransformerLmSpmdAdam, TransformerLmSpmdPipelineAdam
from paxml.tasks.lm.experts import GlamWithExpertAxis
from paxml.tasks.lm.synthetic import SyntheticDataset
from praxis import pax_fiddle, py_utils
from praxis.inspection import collectives
from praxis.layers import normalizations

BATCH, LENGTH, VOCAB = 16, 8, 64


class Tiny(SyntheticDataset):
    """Small sizes, with what a mesh could get wrong: clipping, EMA, batch statistics.

    Attributes:
      SEQ_AXIS: Mesh axis over which time is split; None for none.
    """

    SEQ_AXIS: ClassVar[str | None] = None
    NUM_LAYERS: ClassVar[int] = 2
    MODEL_DIMS: ClassVar[int] = 16
    HIDDEN_DIMS: ClassVar[int | None] = 32
    NUM_HEADS: ClassVar[int | None] = 4
    DIMS_PER_HEAD: ClassVar[int | None] = 4
    VOCAB_SIZE: ClassVar[int] = VOCAB
    MAX_SEQ_LEN: ClassVar[int] = LENGTH
    FPROP_DTYPE: ClassVar[Any] = jnp.float32
    USE_REPEATED_LAYER: ClassVar[bool] = True
    COMBINE_QKV: ClassVar[bool] = False
    USE_PER_DIM_SCALE: ClassVar[bool] = False
    NORM_CLS: ClassVar[type[normalizations.BaseNormalization]] = normalizations.RmsNorm
    TRAINING_OPTIMIZED_SHARDING: ClassVar[bool] = False
    CLIP_GRADIENT_NORM: ClassVar[float] = 0.5
    WARMUP_STEPS: ClassVar[int] = 1
    LEARNING_RATE: ClassVar[float] = 0.01

    def lm_config(self) -> Any:
        lm: Any = super().lm_config()  # pyright: ignore[reportAttributeAccessIssue]
        # Its statistics are those of the whole batch, and its averages have to stay in step.
        return lm.set(final_ln_tpl=pax_fiddle.Config(normalizations.BatchNorm, decay=0.5))

    def shard(self, lm: Any, mesh: dict[str, Any]) -> None:
        if self.SEQ_AXIS is None:
            super().shard(lm, mesh)  # pyright: ignore[reportAttributeAccessIssue]
            return
        lm.cls.set_sharding_params_v1(
            lm,
            replica_axis="replica",
            data_axis="data",
            mdl_axis="mdl",
            seq_axis=self.SEQ_AXIS,
            training_optimized=self.TRAINING_OPTIMIZED_SHARDING,
            **mesh,
        )

    def task(self) -> Any:
        task = super().task()
        task.train.learner.optimizer.ema_decay = 0.5
        task.train.variable_norm_summary = False
        task.train.learner.var_norm_summary = False
        return task


class TinyLm(Tiny, TransformerLmSpmdAdam):
    """On [replica, data, mdl]."""


class TinyLongLm(TinyLm):
    """On [replica, data, seq, mdl], time split over seq."""

    SEQ_AXIS = "seq"
    TRAINING_OPTIMIZED_SHARDING = True
    MESH_AXIS_NAMES = ("replica", "data", "seq", "mdl")
    DCN_MESH_SHAPE = None


class TinyPipeline(  # pyright: ignore[reportIncompatibleVariableOverride]
    Tiny, TransformerLmSpmdPipelineAdam
):
    """4 stages of a layer on [stage, replica, data, mdl]."""

    NUM_LAYERS = 4
    NUM_STAGES = 4
    NUM_MICROBATCHES = 4
    USE_REPEATED_LAYER = False


class TinyExperts(Tiny, GlamWithExpertAxis):
    """4 experts in every other layer, on [replica, data, data_expert, mdl]."""

    NUM_EXPERTS = 4
    DCN_MESH_SHAPE = None

    def expert_fields(self) -> dict[str, Any]:
        # By default as many groups as devices, and with them the places for tokens differ.
        return {**super().expert_fields(), "num_groups": 8}


def batch_of(number: int, rows: int = BATCH, length: int = LENGTH) -> py_utils.NestedMap:
    """Batch `number` of packed tokens: some padding, two segments in a row."""
    rng = np.random.default_rng(number)
    ids = rng.integers(1, VOCAB, (rows, length + 1)).astype(np.int32)
    half = length // 2
    paddings = np.zeros((rows, length), np.float32)
    paddings[: rows // 4, -2:] = 1.0
    positions = np.concatenate([np.arange(half), np.arange(length - half)])
    segments = np.repeat([1, 2], [half, length - half])
    return py_utils.NestedMap(
        ids=ids[:, :-1],
        labels=ids[:, 1:],
        paddings=paddings,
        weights=1.0 - paddings,
        segment_ids=np.tile(segments, (rows, 1)).astype(np.int32),
        segment_pos=np.tile(positions, (rows, 1)).astype(np.int32),
    )


class Step(NamedTuple):
    """The training step of a model on a mesh.

    Attributes:
      partitioner: What placed it.
      program: What was compiled; takes the state, which it uses up, a key, and a batch.
    """

    partitioner: partitioning.JitPartitioner
    program: Any

    @property
    def collectives(self) -> list[collectives.Collective]:
        """What devices send each other, without single numbers."""
        found = collectives.collectives(self.program.as_text())
        return [one for one in found if one.num_bytes > 128]

    def place(self, state: Any) -> Any:
        """A state on the mesh; copied, as a step uses its state up."""
        stored = self.partitioner.abstract_train_state()
        return jax.tree.map(
            lambda x, to: jax.device_put(np.asarray(x), to.sharding, may_alias=False), state, stored
        )


# Name to the experiment and its mesh; the first one of an experiment is on one device.
MESHES: dict[str, tuple[type[Any], tuple[int, ...]]] = {
    "one": (TinyLm, (1, 1, 1)),
    "data 2": (TinyLm, (2, 1, 1)),
    "data 4": (TinyLm, (4, 1, 1)),
    "data 8": (TinyLm, (8, 1, 1)),
    "fsdp 8": (TinyLm, (1, 8, 1)),
    "tensor 4": (TinyLm, (1, 1, 4)),
    "fsdp 2 tensor 4": (TinyLm, (1, 2, 4)),
    "fsdp 2 sequence 4": (TinyLongLm, (1, 2, 4, 1)),
    "one, pipeline": (TinyPipeline, (1, 1, 1, 1)),
    "stage 4 fsdp 2": (TinyPipeline, (4, 1, 2, 1)),
    "one, experts": (TinyExperts, (1, 1, 1, 1)),
    "fsdp 2 expert 4": (TinyExperts, (1, 2, 4, 1)),
}


def reference_of(name: str) -> str:
    """The name of the same model on one device."""
    if name.startswith("one"):
        return name
    if name.startswith("stage"):
        return "one, pipeline"
    return "one, experts" if "expert" in name else "one"


@functools.cache
def compiled_step(name: str) -> Step:
    """The step on one of `MESHES`, compiled once in a test run."""
    experiment, mesh = MESHES[name]
    count = int(np.prod(mesh))
    settings = {"ICI_MESH_SHAPE": mesh, "PERCORE_BATCH_SIZE": BATCH / count}
    task = pax_fiddle.instantiate(type("Chosen", (experiment,), settings)().task())
    partitioner = partitioning.JitPartitioner(
        task=task, device_mesh=np.array(jax.devices()[:count]).reshape(mesh)
    )
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch_of(0))
    partitioner.setup(task, jax.random.PRNGKey(0), specs)
    step_fn = partitioning.get_step_fn(trainer_lib.RunningMode.TRAIN)
    lowered = partitioner.lower(step_fn, specs, is_eval=False)
    # Without XLA's own emitters of fused loops for CPUs it compiles in a third of the time.
    return Step(partitioner, lowered.compile({"xla_cpu_use_fusion_emitters": False}))


@functools.cache
def first_state(name: str) -> Any:
    """The state at step 0 of a model, on one device."""
    partitioner = compiled_step(reference_of(name)).partitioner
    return partitioner.initialize_prng_key_and_train_state(jax.random.PRNGKey(0), None, None)[1]
