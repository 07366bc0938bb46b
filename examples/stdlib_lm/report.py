"""After training: bits per byte beside gzip and xz, the picture, and a sample."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from examples.stdlib_lm import data
from examples.stdlib_lm.experiment import StdlibLm
from paxml import partitioning, tasks_lib
from paxml.checkpoint.manager import Checkpointer
from paxml.experiment.settings import with_settings
from paxml.summary.events import read_scalars
from paxml.summary.plot import loss_curve
from praxis import decoder_hparams, py_utils

SAMPLE_LENGTH = 300  # bytes


def report(job_log_dir: pathlib.Path, steps: int | None, prompt: str) -> dict[str, Any]:
    """Prints what the run reached, and returns the numbers.

    Args:
      job_log_dir: Directory of the finished run.
      steps: Length of the run; None: the experiment's own.
      prompt: Text that the model continues.

    Returns:
      `step`, `eval_bits_per_byte`, `gzip_bits_per_byte`, `xz_bits_per_byte`, `log_dir`.
    """
    _, held_out = data.load()
    curve = read_scalars(job_log_dir / "summaries" / "eval_test_held_out", "Metrics/bits_per_byte")
    step, bits = max(curve.items())
    rivals = {
        name: 8 * held_out.compressed_bytes(compress) / held_out.num_bytes
        for name, compress in data.compressors().items()
    }
    print_comparison(held_out, bits, rivals)
    picture = loss_curve(job_log_dir, job_log_dir / "loss.png")
    print(f"\nLoss curve: {picture}")
    print(f"TensorBoard: tensorboard --logdir {job_log_dir / 'summaries'}")
    print(f"\nA sample that continues {prompt!r}:\n")
    print(sample(job_log_dir, steps, prompt), flush=True)
    return {
        "step": step,
        "eval_bits_per_byte": round(bits, 4),
        "gzip_bits_per_byte": round(rivals["gzip"], 4),
        "xz_bits_per_byte": round(rivals["xz"], 4),
        "log_dir": str(job_log_dir),
    }


def print_comparison(held_out: data.Split, bits: float, rivals: dict[str, float]) -> None:
    """Prints bits per byte of the model and the compressors, the best first."""
    figures = {"this model": bits, "gzip -9": rivals["gzip"], "xz -9": rivals["xz"]}
    print(f"\nBits per byte on {len(held_out.names)} files ({held_out.num_bytes:,} bytes), unseen:")
    for name, figure in sorted(figures.items(), key=lambda item: item[1]):
        print(f"  {name:<10} {figure:.3f}")


def sample(job_log_dir: pathlib.Path, steps: int | None, prompt: str) -> str:
    """Returns the prompt and what the trained model writes after it, one byte at a time."""
    settings = [] if steps is None else [f"NUM_STEPS={steps}"]
    experiment: StdlibLm = with_settings(StdlibLm, settings)()
    task = experiment.task().Instantiate()
    variables = restored_variables(experiment, task, job_log_dir)
    prefix = np.frombuffer(b"\0" + b"\n" + prompt.encode(), np.uint8).astype(np.int32)[None]
    batch = py_utils.NestedMap(
        ids=jnp.asarray(prefix),
        paddings=jnp.zeros(prefix.shape, jnp.float32),
    )
    sampling = decoder_hparams.SampleDecoderHParams(
        fprop_for_prefix=True,
        max_decode_steps=SAMPLE_LENGTH,
        seqlen=prefix.shape[1] + SAMPLE_LENGTH,
        temperature=0.7,
        k=0,
        p=0.95,
        eos_id=data.START,
    )

    def decode(variables: Any, key: jax.Array) -> Any:
        (_, out, _), _ = task.model.apply(
            variables,
            sampling,
            batch,
            method=task.model.decode_with_params,
            rngs={"random": key},
            mutable=["decoder_cache"],
        )
        return out.output_ids, out.decode_lengths

    output_ids, lengths = jax.jit(decode)(variables, jax.random.PRNGKey(0))
    written = np.asarray(output_ids)[0, 0, 2 : int(np.asarray(lengths)[0, 0])]
    return bytes(written.astype(np.uint8)).decode("utf-8", "replace")


def restored_variables(
    experiment: StdlibLm, task: tasks_lib.SingleTask, job_log_dir: pathlib.Path
) -> Any:
    """Returns the variables of the newest checkpoint."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns about what is meant here: only reading.
    specs = experiment.get_input_specs_provider_params().Instantiate().get_input_specs()
    partitioner = partitioning.create_partitioner(task)
    partitioner.setup(task, jax.random.PRNGKey(0), specs)
    checkpoints = Checkpointer(
        job_log_dir / "checkpoints", save_interval_steps=None, max_to_keep=None, read_only=True
    )
    restored = checkpoints.restore_latest(partitioner.abstract_train_state())
    checkpoints.close()
    if restored is None:
        raise FileNotFoundError(f"There is no checkpoint under {job_log_dir}: train first.")
    return restored[1].mdl_vars
