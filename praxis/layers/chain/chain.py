"""Chains of layers, under their public path.

The function `chain` of the package hides this module as an attribute of it, so what is named by its
module, such as a class in the text of a config, lives in `apply`.
"""

from praxis.layers.chain.apply import Chain, call_chain, call_chained_layer, ensure_tuple

__all__ = ["Chain", "call_chain", "call_chained_layer", "ensure_tuple"]
