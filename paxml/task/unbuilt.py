"""Settings that this version accepts in a config but cannot honour yet."""

from typing import Any

# Path of the setting, and what to do instead.
UNBUILT = {
    "train.eval_use_ema_states": "Leave it False: evaluation uses the plain weights.",
    "train.decode_use_ema_states": "Leave it False: decoding uses the plain weights.",
    "train.init_from_checkpoint_rules": "Leave it {}: a fresh run starts from random weights.",
    "train.external_checkpoint_path": "Leave it None, or copy the checkpoint into the run.",
    "train.external_checkpoint_handler": "Leave it None.",
    "train.restore_transformations": "Leave it None.",
    "train.tensorstore_metadata_key": "Leave it None.",
    "train.profiler_capture_step": "Leave it None; jax.profiler.start_server works meanwhile.",
}


def refuse_unbuilt_settings(task: Any) -> None:
    """Raises for a setting that would silently do nothing.

    Raises:
      NotImplementedError: naming the setting, its value and what to do.
    """
    for path, advice in UNBUILT.items():
        section, field = path.split(".")
        value = getattr(getattr(task, section), field)
        if value:
            raise NotImplementedError(
                f"Task {task.name!r}: {path} = {value!r} has no effect yet. {advice}"
            )
