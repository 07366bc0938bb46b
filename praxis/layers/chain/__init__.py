"""Chains of layers, under their public names."""

from praxis.layers.chain.chain import Chain, call_chain
from praxis.layers.chain.chain_extensions import (
    add_residual,
    apply_padding,
    chain,
    copy_n_times,
    dict_to_args,
    feed_forward,
    full_like,
    kwargs_with_name,
    log_args,
    repeat,
)

__all__ = [
    "Chain",
    "add_residual",
    "apply_padding",
    "call_chain",
    "chain",
    "copy_n_times",
    "dict_to_args",
    "feed_forward",
    "full_like",
    "kwargs_with_name",
    "log_args",
    "repeat",
]
