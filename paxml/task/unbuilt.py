"""Settings that this version accepts in a config but cannot honour yet."""

from typing import Any

# Path of the setting, and what to do instead.
UNBUILT = {
    "train.restore_transformations": "Use init_from_checkpoint_rules, which rename and cast, or an "
    "external_checkpoint_handler, which gets them.",
    "train.tensorstore_metadata_key": "Leave it None.",
}


def refuse_unbuilt_settings(task: Any) -> None:
    """Raises for a setting that would silently do nothing.

    Raises:
      NotImplementedError: naming the setting, its value and what to do.
    """
    for path, advice in UNBUILT.items():
        section, field = path.split(".")
        value = getattr(getattr(task, section), field)
        if path == "train.restore_transformations" and task.train.external_checkpoint_path:
            continue
        if value:
            raise NotImplementedError(
                f"Task {task.name!r}: {path} = {value!r} has no effect yet. {advice}"
            )
