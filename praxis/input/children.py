"""Configs of the inputs inside another input."""

from typing import Any

from praxis import pax_fiddle

_INHERITED = (
    "num_infeed_hosts",
    "infeed_host_index",
    "is_training",
    "reset_for_eval",
    "eval_loop_num_batches",
)


def config_of_child(parent: Any, config: pax_fiddle.Config, name: str) -> pax_fiddle.Config:
    """A copy of a child's config: with the parent's hosts and modes, named `<parent>_<name>`."""
    inherited = {field: getattr(parent, field) for field in _INHERITED}
    return config.clone().set(name=f"{parent.name}_{name}", **inherited)
