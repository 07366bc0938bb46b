"""A shipped experiment runs on one CPU device; larger ones lower for a mesh (behaviour 119)."""

import os
import subprocess
import sys

import jax
import pytest

from paxml.experiment import lookup
from paxml.partitioning import jit
from paxml.partitioning.create import create_partitioner, get_step_fn
from paxml.trainer.init import get_train_input_specs_for_model_init
from paxml.trainer.types import RunningMode
from praxis import pax_fiddle


def test_the_small_one_trains_5_steps_on_one_device_by_its_name(tmp_path):
    """Its rows are shortened to 64 tokens; the rest is as shipped."""
    command = [
        sys.executable,
        "-m",
        "paxml.main",
        "--exp=tasks.lm.params.lm_cloud.LmCloudSpmdTest",
        f"--job_log_dir={tmp_path}",
        *("--set=MAX_STEPS=5", "--set=MAX_SEQ_LEN=64", "--set=SUMMARY_INTERVAL_STEPS=1"),
    ]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    losses = [
        float(line.split("loss ")[1].split(",")[0])
        for line in run.stderr.splitlines()
        if "] train step " in line
    ]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [
        "checkpoint_00000000",
        "checkpoint_00000005",
    ]


@pytest.mark.parametrize("name", ["c4.C4SpmdAdam", "c4.C4SpmdPipelineGpt3SmallAdam8Replicas"])
def test_a_step_of_a_large_one_lowers_for_its_mesh_of_8_devices(name, monkeypatch):
    """The whole training step, at full size, from shapes alone."""
    compiled = {}
    monkeypatch.setattr(jit, "bind_mesh", lambda step, mesh: compiled.update({mesh: step}))
    experiment = lookup.get_experiment(name)()
    task = pax_fiddle.instantiate(experiment.task())
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    partitioner = create_partitioner(task)
    partitioner.setup(task, jax.random.PRNGKey(0), specs)
    partitioner.partition(get_step_fn(RunningMode.TRAIN), specs, is_eval=False)
    [(mesh, step)] = compiled.items()
    state = partitioner.abstract_train_state()
    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    with jax.set_mesh(mesh):
        lowered = step.lower(state, key, specs, None)
    assert mesh.size == 8
    new_state, _ = lowered.out_info
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (new_state, state))
    assert shapes[0] == shapes[1]
